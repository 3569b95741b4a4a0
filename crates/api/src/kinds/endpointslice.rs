//! EndpointSlice.

use std::collections::HashSet;

use super::endpoints::shorten;
use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("AddressType", "").at("addressType"),
        Column::text("Ports", ".ports").by(ports),
        Column::text("Endpoints", ".endpoints").by(endpoints),
        AGE,
    ],
    defaults: |s| {
        fill::each(s, &["ports"], |port| {
            fill::unset(port, "name", "");
            fill::unset(port, "protocol", "TCP");
        });
    },
    prepare_create: |s| {
        without_topology(s);
        first_generation(s);
    },
    prepare_update: |new, old| {
        without_topology(new);
        count_change(new, old, &["addressType", "endpoints", "ports"]);
        // Compat: labels count too (endpointslice's strategy).
        let generation = int(old, &["metadata", "generation"]);
        if new["metadata"]["labels"] != old["metadata"]["labels"] {
            new.set(&["metadata", "generation"], generation + 1);
        }
    },
    rules: &[("addressType", Fixed)],
    validate,
    ..Kind::PLAIN
};

/// What `v1` has no room for.
fn without_topology(s: &mut Value) {
    fill::each(s, &["endpoints"], |endpoint| drop(endpoint.remove(&["deprecatedTopology"])));
}

fn ports(s: &Value) -> Cell {
    let shown = |port: &Value| match port.int_at(&["port"]) {
        Some(number) => Some(number.to_string()),
        None => port.str_at(&["name"]).filter(|name| !name.is_empty()).map(str::to_string),
    };
    let all: Vec<String> = s.array_at(&["ports"]).iter().filter_map(shown).collect();
    if all.is_empty() { "<unset>".into() } else { shorten(&all).into() }
}

fn endpoints(s: &Value) -> Cell {
    let addresses = s.array_at(&["endpoints"]).iter().flat_map(|e| e.array_at(&["addresses"]));
    let all: Vec<String> = addresses.filter_map(Value::as_str).map(String::from).collect();
    if all.is_empty() { "<unset>".into() } else { shorten(&all).into() }
}

const PORT_RULES: &[Rule] = &[
    ("ports[].name", Name(names::dns1123_label)),
    ("ports[].protocol", GivenOneOf(&["SCTP", "TCP", "UDP"])),
    ("ports[].appProtocol", GivenName(names::qualified_name)),
];
const RULES: &[Rule] = &[
    ("nodeName", GivenName(names::dns1123_subdomain)),
    ("hostname", GivenName(names::dns1123_label)),
    ("hints.forZones", MaxItems(HINTS_MAX)),
    ("hints.forZones[].name", GivenName(names::label_value)),
    ("hints.forNodes", MaxItems(HINTS_MAX)),
    ("hints.forNodes[].name", GivenName(names::dns1123_subdomain)),
];
const HINTS_MAX: usize = 8;
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 20_000;

fn validate(s: &Value, errors: &mut Errors) {
    let (endpoints, ports) = (s.array_at(&["endpoints"]), s.array_at(&["ports"]));
    if ports.len() > PORTS_MAX {
        errors.push(Error::too_many(&Path::new("ports"), ports.len(), PORTS_MAX));
    } else {
        check(s, PORT_RULES, errors);
        duplicates(ports, &Path::new("ports"), errors);
    }
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(Error::too_many(&Path::new("endpoints"), endpoints.len(), ENDPOINTS_MAX));
    } else {
        for (i, endpoint) in endpoints.iter().enumerate() {
            let at = Path::new("endpoints").index(i);
            validate_addresses(endpoint, text(s, &["addressType"]), &at.child("addresses"), errors);
            check_at(endpoint, &at, RULES, errors);
            for list in ["forZones", "forNodes"] {
                let hints = endpoint.array_at(&["hints", list]);
                if hints.len() <= HINTS_MAX {
                    duplicates(hints, &at.child("hints").child(list), errors);
                }
            }
        }
    }
    check(s, &[("addressType", RequiredOneOf(&["FQDN", "IPv4", "IPv6"]))], errors);
}

fn duplicates(items: &[Value], path: &Path, errors: &mut Errors) {
    let mut known = HashSet::new();
    for (i, item) in items.iter().enumerate().filter(|(_, item)| !known.insert(text(item, &["name"]))) {
        errors.push(Error::duplicate(&path.index(i).child("name"), text(item, &["name"])));
    }
}

fn validate_addresses(endpoint: &Value, ty: &str, path: &Path, errors: &mut Errors) {
    let addresses = endpoint.array_at(&["addresses"]);
    if addresses.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if addresses.len() > ADDRESSES_MAX {
        errors.push(Error::too_many(path, addresses.len(), ADDRESSES_MAX));
    }
    for (i, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        let at = path.index(i);
        let mut wrong = match ty {
            "FQDN" => names::fully_qualified(address),
            "IPv4" | "IPv6" => names::ip(address),
            _ => continue,
        };
        if let (true, Ok(ip)) = (wrong.is_empty() && ty != "FQDN", address.parse::<std::net::IpAddr>()) {
            if ip.to_string() != address {
                wrong.push(format!("must be in canonical form ({:?})", ip.to_string()));
            }
            if meta::cidr::family(ip) != ty {
                errors.push(Error::invalid(path, address, format!("must be an {ty} address")));
            }
            wrong.extend(names::special_ip(address).map(String::from));
        }
        errors.extend(wrong.into_iter().map(|m| Error::invalid(&at, address, m)));
    }
}

const ADDRESSES_MAX: usize = 100;
