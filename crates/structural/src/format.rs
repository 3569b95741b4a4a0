//! The formats of strings that upstream checks; any other format says nothing.
//!
//! Source: the list in "Extend the Kubernetes API with CustomResourceDefinitions", "Specifying a structural schema".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use meta::names;
use regex::Regex;
use std::sync::LazyLock;

/// Whether `text` is of a format (its name without dashes); `None` for those that nobody checks.
pub fn holds(format: &str, text: &str) -> Option<bool> {
    Some(match format {
        "bsonobjectid" => text.len() == 24 && is_hex(text),
        "uri" => is_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => matches(&SSN, text),
        "hexcolor" => matches(&HEX_COLOR, text),
        "rgbcolor" => matches(&RGB_COLOR, text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10,
        "datetime" => is_date_time(text),
        "duration" => matches(&DURATION, text),
        "k8sshortname" => names::dns1123_label(text).is_empty(),
        "k8slongname" => names::dns1123_subdomain(text).is_empty(),
        _ => return None,
    })
}

/// Somebody checks it, of strings or of numbers.
pub fn is_known(format: &str) -> bool {
    matches!(format, "int32" | "int64" | "float" | "double") || holds(format, "").is_some()
}

/// As errors name it.
pub fn shown(format: &str) -> &str {
    if format == "datetime" { "date-time" } else { format }
}

fn fixed(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a fixed pattern: a test reads them all")
}

static SSN: LazyLock<Regex> = LazyLock::new(|| fixed(r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"));
static HEX_COLOR: LazyLock<Regex> = LazyLock::new(|| fixed(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"));
static RGB_COLOR: LazyLock<Regex> = LazyLock::new(|| {
    let part = "(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])";
    fixed(&format!(r"^rgb\( *{part} *, *{part} *, *{part} *\)$"))
});
/// Go's durations, and the words that upstream's reader takes as well.
static DURATION: LazyLock<Regex> = LazyLock::new(|| {
    let units = "(ns|nano|us|µs|μs|micro|ms|milli|s|sec|m|min|h|hr|hour|d|day|w|week|wk)s?";
    fixed(&format!(r"^(0|[-+]?([0-9]*\.?[0-9]+ *{units} *)+)$"))
});

fn matches(regex: &LazyLock<Regex>, text: &str) -> bool {
    regex.is_match(text)
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Compat: what Go's `url.ParseRequestURI` takes: an absolute URI, or an absolute path.
fn is_uri(text: &str) -> bool {
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(letters) && !rest.is_empty()
}

fn is_email(text: &str) -> bool {
    // `Name <a@b>` is an address too for Go's mail reader.
    let address = match (text.rfind('<'), text.ends_with('>')) {
        (Some(at), true) => &text[at + 1..text.len() - 1],
        _ => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let dots = |s: &str| !s.is_empty() && !s.starts_with('.') && !s.ends_with('.') && !s.contains("..");
    dots(local) && local.chars().all(atom) && dots(domain) && domain.chars().all(atom)
}

fn is_hostname(text: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 255 && text.trim_end_matches('.').split('.').all(label)
}

fn is_cidr(text: &str) -> bool {
    let Some((ip, bits)) = text.split_once('/') else { return false };
    match (ip.parse::<IpAddr>(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    }
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len()) && parts.iter().all(|p| p.len() == width && is_hex(p))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

/// Dashes may be left out, as upstream has it.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let bare: String = text.chars().filter(|c| *c != '-').collect();
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    let placed = dashes.iter().all(|at| [8, 12, 13, 16, 17, 18, 20, 21, 22, 23].contains(at));
    bare.len() == 32 && is_hex(&bare) && placed && version.is_none_or(|v| bare.chars().nth(12) == Some(v))
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

fn is_isbn10(text: &str) -> bool {
    let bare: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let value = |(i, c): (usize, char)| match c {
        'X' if i == 9 => Some(10),
        c => c.to_digit(10),
    };
    let parts: Option<Vec<u32>> = bare.chars().enumerate().map(value).collect();
    parts.is_some_and(|p| p.len() == 10 && p.iter().zip((1..=10).rev()).map(|(d, w)| d * w).sum::<u32>() % 11 == 0)
}

fn is_isbn13(text: &str) -> bool {
    let bare: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let d = digits(&bare);
    let weighted = d.iter().enumerate().map(|(i, d)| if i % 2 == 0 { *d } else { d * 3 });
    bare.len() == 13 && d.len() == 13 && weighted.sum::<u32>() % 10 == 0
}

fn is_credit_card(text: &str) -> bool {
    let bare: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let d = digits(&bare);
    let doubled = d.iter().rev().enumerate().map(|(i, d)| match (i % 2, d * 2) {
        (0, _) => *d,
        (_, twice) if twice > 9 => twice - 9,
        (_, twice) => twice,
    });
    (13..=19).contains(&bare.len()) && d.len() == bare.len() && doubled.sum::<u32>() % 10 == 0
}

/// RFC 3339, with a blank for the `T` and without a zone as well.
fn is_date_time(text: &str) -> bool {
    text.parse::<jiff::Timestamp>().is_ok() || text.parse::<jiff::civil::DateTime>().is_ok() && text.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        golden::check!("tests/formats.txt", |case| {
            let (format, text) = case.split_once(' ').expect("a format and a text");
            holds(format, text).is_none_or(|holds| holds).to_string()
        });
    }
}
