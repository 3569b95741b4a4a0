//! Endpoints.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Endpoints", ".subsets").by(endpoints), AGE],
    defaults: |e| fill::each(e, &["subsets"], |s| fill::each(s, &["ports"], |p| fill::text(p, "protocol", "TCP"))),
    validate,
    create_on_update: true,
    ..Kind::PLAIN
};

const SHOWN_MAX: usize = 3;

fn endpoints(e: &Value) -> Cell {
    let subsets = e.array_at(&["subsets"]);
    if subsets.is_empty() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let ports = subset.array_at(&["ports"]);
        let addresses = subset.array_at(&["addresses"]).iter().map(|a| text(a, &["ip"]));
        if ports.is_empty() {
            all.extend(addresses.map(String::from));
            continue;
        }
        let addresses: Vec<&str> = addresses.collect();
        for port in ports {
            all.extend(addresses.iter().map(|ip| {
                let number = int(port, &["port"]);
                if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }
            }));
        }
    }
    shorten(&all).into()
}

/// The first three, and how many more there are.
pub(super) fn shorten(all: &[String]) -> String {
    let text = all[..all.len().min(SHOWN_MAX)].join(",");
    match all.len() {
        0..=SHOWN_MAX => text,
        more => format!("{text} + {} more...", more - SHOWN_MAX),
    }
}

const PORT_RULES: &[Rule] = &[
    ("name", Name(names::dns1123_label)),
    ("port", AnyPort),
    ("protocol", RequiredOneOf(&["SCTP", "TCP", "UDP"])),
    ("appProtocol", GivenName(names::qualified_name)),
];
const ADDRESS_RULES: &[Rule] = &[
    ("ip", AnyName(names::ip)),
    ("hostname", Name(names::dns1123_label)),
    ("nodeName", GivenName(names::dns1123_subdomain)),
];

fn validate(e: &Value, errors: &mut Errors) {
    for (i, subset) in e.array_at(&["subsets"]).iter().enumerate() {
        let at = Path::new("subsets").index(i);
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|list| subset.array_at(&[list]).is_empty()) {
            errors.push(Error::required(&at, "must specify `addresses` or `notReadyAddresses`"));
        }
        for list in lists {
            for (j, address) in subset.array_at(&[list]).iter().enumerate() {
                let at = at.child(list).index(j);
                check_at(address, &at, ADDRESS_RULES, errors);
                let ip = text(address, &["ip"]);
                errors.extend(names::special_ip(ip).map(|m| Error::invalid(&at.child("ip"), ip, m)));
            }
        }
        let ports = subset.array_at(&["ports"]);
        for (j, port) in ports.iter().enumerate() {
            let at = at.child("ports").index(j);
            if ports.len() > 1 && port["name"].is_empty() {
                errors.push(Error::required(&at.child("name"), ""));
            }
            check_at(port, &at, PORT_RULES, errors);
        }
    }
}
