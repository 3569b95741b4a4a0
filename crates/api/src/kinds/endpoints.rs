//! Endpoints.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("Endpoints", "Addresses and ports that traffic goes to.").by(endpoints), AGE],
    defaults: |e| fill::each(e, &["subsets"], |s| fill::each(s, &["ports"], |p| fill::text(p, "protocol", "TCP"))),
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
