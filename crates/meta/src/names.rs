//! The rules of names, labels and keys. Each function answers what is wrong, in upstream's words; empty means valid.
//!
//! Source: the documentation page "Object Names and IDs", RFC 1123 and RFC 1035, and the messages of an API server.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
                     validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                         '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used \
                         for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                          alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or \
                          'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                         with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
                           '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
                           'my_value',  or '12345', regex used for validation is \
                           '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const C_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string \
                            of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex \
                            used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
                          'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
                          '[-._a-zA-Z0-9]+')";

/// What is wrong: too long, and each message whose condition holds.
fn faults<const N: usize>(s: &str, max: usize, wrong: [(bool, &str); N]) -> Vec<String> {
    let long = (s.len() > max).then(|| format!("must be no more than {max} characters"));
    long.into_iter().chain(wrong.iter().filter(|(is, _)| *is).map(|(_, message)| message.to_string())).collect()
}

fn is_lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `s` is made of `inner` bytes and begins and ends with `edge` bytes.
fn shaped(s: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let b = s.as_bytes();
    match (b.first(), b.last()) {
        (Some(first), Some(last)) => edge(*first) && edge(*last) && b.iter().all(|b| inner(*b)),
        _ => false,
    }
}

fn is_label(s: &str) -> bool {
    shaped(s, is_lower_alnum, |b| is_lower_alnum(b) || b == b'-')
}

/// Names of namespaces, containers, ports' services, ... : at most 63 bytes.
pub fn dns1123_label(s: &str) -> Vec<String> {
    // Compat: a value that would do as a subdomain gets a shorter hint (the API server's own wording).
    let hint = if is_subdomain(s) { "must not contain dots" } else { LABEL };
    faults(s, 63, [(!is_label(s), hint)])
}

fn is_subdomain(s: &str) -> bool {
    s.split('.').all(is_label)
}

/// Names of most objects: at most 253 bytes.
pub fn dns1123_subdomain(s: &str) -> Vec<String> {
    faults(s, 253, [(!is_subdomain(s), SUBDOMAIN)])
}

/// Names of services: at most 63 bytes, beginning with a letter.
pub fn dns1035_label(s: &str) -> Vec<String> {
    faults(s, 63, [(!(is_label(s) && s.as_bytes()[0].is_ascii_lowercase()), LABEL_1035)])
}

/// Names that become part of a path (RBAC objects, ...): anything but `.`, `..`, `/` and `%`.
pub fn path_segment(s: &str) -> Vec<String> {
    if s == "." || s == ".." {
        return vec![format!("may not be '{s}'")];
    }
    ['/', '%'].iter().filter(|c| s.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

fn is_qualified(s: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_alphanumeric();
    shaped(s, alnum, |b| alnum(b) || matches!(b, b'-' | b'_' | b'.'))
}

/// Keys of labels and annotations: `name` or `prefix/name`.
pub fn qualified_name(s: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = match s.split_once('/') {
        None => s,
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                QUALIFIED.trim_start_matches("name part ")
            )];
        }
        Some((prefix, rest)) => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".into());
            } else {
                wrong.extend(dns1123_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            rest
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        wrong.push("name part must be no more than 63 bytes".into());
    }
    if !is_qualified(name) {
        wrong.push(QUALIFIED.into());
    }
    wrong
}

/// Values of labels: empty, or at most 63 bytes.
pub fn label_value(s: &str) -> Vec<String> {
    let long = (s.len() > 63).then(|| "must be no more than 63 bytes".to_string());
    long.into_iter().chain(faults(s, usize::MAX, [(!s.is_empty() && !is_qualified(s), LABEL_VALUE)])).collect()
}

/// Names of ports: at most 15 bytes, with at least one letter. Source: RFC 6335, section 5.1.
pub fn port_name(s: &str) -> Vec<String> {
    let plain = !s.is_empty() && s.bytes().all(|b| is_lower_alnum(b) || b == b'-');
    let wrong = [
        (s.len() > 15, "must be no more than 15 characters"),
        (!plain, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"),
        (!s.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (s.contains("--"), "must not contain consecutive hyphens"),
        (s.starts_with('-') || s.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    faults(s, usize::MAX, wrong)
}

pub fn port_number(n: i64) -> Vec<String> {
    if (1..=65535).contains(&n) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".into()] }
}

/// Keys of ConfigMaps and Secrets.
pub fn config_map_key(s: &str) -> Vec<String> {
    let plain = !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let wrong = [
        (!plain, CONFIG_KEY),
        (s == ".", "must not be '.'"),
        (s == "..", "must not be '..'"),
        (plain && s.starts_with("..") && s != "..", "must not start with '..'"),
    ];
    faults(s, 253, wrong)
}

/// Names of environment variables: any printable ASCII but `=`. Source: KEP-4369, on by default since v1.32.
pub fn env_var_name(s: &str) -> Vec<String> {
    if s.is_empty() || !s.bytes().all(|b| (0x20..=0x7e).contains(&b) && b != b'=') {
        return vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        ];
    }
    Vec::new()
}

pub fn c_identifier(s: &str) -> Vec<String> {
    let ok = s.bytes().enumerate().all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit()));
    if ok && !s.is_empty() { Vec::new() } else { vec![C_IDENTIFIER.into()] }
}

/// Why an address is not one: upstream says more where only its form is wrong.
pub fn ip(s: &str) -> Vec<String> {
    let parse = |s: &str| s.parse::<std::net::IpAddr>().ok();
    let wrong = match parse(s) {
        None if parse(&without_zeros(s)).is_some() => "must not have leading 0s",
        None => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        Some(std::net::IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => "must not be an IPv4-mapped IPv6 address",
        Some(_) => return Vec::new(),
    };
    vec![wrong.into()]
}

/// As `ip`, for a range.
pub fn cidr(s: &str) -> Vec<String> {
    let address = s.split('/').next().and_then(|ip| ip.parse::<std::net::IpAddr>().ok());
    let wrong = match crate::cidr::Cidr::parse(s) {
        None if crate::cidr::Cidr::parse(&without_zeros(s)).is_some() => {
            "must not have leading 0s in IP or prefix length"
        }
        None => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        Some(range) if range.is_v4_mapped() => "must not have an IPv4-mapped IPv6 address",
        Some(range) if address != Some(range.address) => "must not have bits set beyond the prefix length",
        Some(_) => return Vec::new(),
    };
    vec![wrong.into()]
}

/// The address that is meant, whether or not its form is right.
pub fn loose_ip(s: &str) -> Option<std::net::IpAddr> {
    without_zeros(s).parse().ok()
}

/// Dotted numbers without their leading zeros.
fn without_zeros(s: &str) -> String {
    let part = |part: &str| match part.trim_start_matches('0') {
        rest if rest.is_empty() && !part.is_empty() || rest.starts_with('/') => format!("0{rest}"),
        rest => rest.to_string(),
    };
    s.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// Why an address can't be an endpoint or an external address of a service.
pub fn special_ip(s: &str) -> Option<&'static str> {
    use std::net::IpAddr;
    let Ok(ip) = without_zeros(s).parse::<IpAddr>() else { return Some("must be a valid IP address") };
    let (link_local, many, none) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0], "may not be unspecified (0.0.0.0)"),
        IpAddr::V6(ip) => {
            (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02, "may not be unspecified (::)")
        }
    };
    let what = [
        (ip.is_unspecified(), none),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (many, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ];
    what.iter().find(|(is, _)| *is).map(|(_, what)| *what)
}

/// A name of at least two segments.
pub fn fully_qualified(s: &str) -> Vec<String> {
    let mut wrong = dns1123_subdomain(s);
    if wrong.is_empty() && !s.contains('.') {
        wrong.push("should be a domain with at least two segments separated by dots".into());
    }
    wrong
}

/// A domain, a slash, and a path of URL characters.
pub fn domain_path(s: &str) -> Vec<String> {
    let Some((domain, path)) = s.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty()) else {
        return vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_string()];
    };
    let mut wrong = dns1123_subdomain(domain);
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        wrong.push("Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')".to_string());
    }
    wrong
}

const CASELESS: &str = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end \
    with an alphanumeric character (e.g. 'Example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// A subdomain that may have capitals, such as a driver's name.
pub fn caseless_subdomain(s: &str) -> Vec<String> {
    let long = (s.len() > 253).then(|| "must be no more than 253 bytes".to_string());
    long.into_iter().chain(faults(s, usize::MAX, [(!is_subdomain(&s.to_lowercase()), CASELESS)])).collect()
}

const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
    consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', \
    regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// Hosts of an Ingress with a `*` in them.
pub fn wildcard_subdomain(s: &str) -> Vec<String> {
    let fits = s.strip_prefix("*.").is_some_and(is_subdomain) && s.len() <= 253;
    if fits { Vec::new() } else { vec![WILDCARD.into()] }
}

/// The end that `generateName` adds: five characters without vowels or look-alikes, as upstream draws them.
pub fn random_suffix(length: usize) -> String {
    use rand::Rng;
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..length).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule() {
        golden::check!("tests/names.txt", |case| {
            let (rule, name) = case.split_once(' ').expect("a rule and a name");
            let check = match rule {
                "dns1123_label" => dns1123_label,
                "dns1123_subdomain" => dns1123_subdomain,
                "dns1035_label" => dns1035_label,
                "qualified_name" => qualified_name,
                "label_value" => label_value,
                "port_name" => port_name,
                "config_map_key" => config_map_key,
                "env_var_name" => env_var_name,
                "c_identifier" => c_identifier,
                "ip" => ip,
                "path_segment" => path_segment,
                other => panic!("no rule {other}"),
            };
            check(name).join("\n")
        });
        assert_eq!(random_suffix(5).len(), 5);
    }
}
