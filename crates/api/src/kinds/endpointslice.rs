//! EndpointSlice.

use super::endpoints::shorten;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("AddressType", "The type of address carried by this EndpointSlice.").at("addressType"),
        Column::text("Ports", "The ports of each endpoint in this slice.").by(ports),
        Column::text("Endpoints", "The addresses in this slice.").by(endpoints),
        AGE,
    ],
    defaults: |s| {
        fill::each(s, &["ports"], |port| {
            fill::unset(port, "name", "");
            fill::text(port, "protocol", "TCP");
        });
    },
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["addressType", "endpoints", "ports"]),
    rules: &[("addressType", Immutable)],
    validate,
    ..Kind::PLAIN
};

fn ports(s: &Value) -> Cell {
    let all: Vec<String> =
        s.array_at(&["ports"]).iter().map(|p| p.int_at(&["port"]).map_or("*".into(), |n| n.to_string())).collect();
    if all.is_empty() { "<unset>".into() } else { shorten(&all).into() }
}

fn endpoints(s: &Value) -> Cell {
    let addresses = s.array_at(&["endpoints"]).iter().flat_map(|e| e.array_at(&["addresses"]));
    let all: Vec<String> = addresses.filter_map(Value::as_str).map(String::from).collect();
    if all.is_empty() { "<unset>".into() } else { shorten(&all).into() }
}

const RULES: &[Rule] = &[
    ("addressType", RequiredOneOf(&["FQDN", "IPv4", "IPv6"])),
    ("ports[].name", Name(names::dns1123_label)),
    ("ports[].protocol", RequiredOneOf(&["SCTP", "TCP", "UDP"])),
    ("ports[].port", Port),
    ("ports[].appProtocol", Name(names::qualified_name)),
];
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;

fn validate(s: &Value, errors: &mut Errors) {
    let (endpoints, ports) = (s.array_at(&["endpoints"]), s.array_at(&["ports"]));
    if endpoints.len() > ENDPOINTS_MAX {
        return errors.push(Error::too_many(&Path::new("endpoints"), endpoints.len(), ENDPOINTS_MAX));
    }
    if ports.len() > PORTS_MAX {
        return errors.push(Error::too_many(&Path::new("ports"), ports.len(), PORTS_MAX));
    }
    check(s, RULES, errors);
    let ty = text(s, &["addressType"]);
    for (i, endpoint) in endpoints.iter().enumerate() {
        let at = Path::new("endpoints").index(i).child("addresses");
        let addresses = endpoint.array_at(&["addresses"]);
        if addresses.is_empty() {
            errors.push(Error::required(&at, "must contain at least 1 address"));
        }
        for (j, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
            let wrong = match ty {
                "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => vec!["must be a valid IPv4 address".into()],
                "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => vec!["must be a valid IPv6 address".into()],
                "FQDN" => names::dns1123_subdomain(address),
                _ => Vec::new(),
            };
            errors.extend(wrong.into_iter().map(|m| Error::invalid(&at.index(j), address, m)));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        if ports[..i].iter().any(|p| p["name"] == port["name"]) {
            errors.push(Error::duplicate(&Path::new("ports").index(i).child("name"), text(port, &["name"])));
        }
    }
}
