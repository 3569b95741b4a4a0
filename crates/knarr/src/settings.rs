//! What a cluster decided once and keeps: its address ranges.
//!
//! Stored in `settings.json` of the data directory. Invariant: once written, the ranges never change, since objects in
//! the store hold addresses out of them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use meta::cidr::Cidr;
use serde::{Deserialize, Serialize};

use crate::layout::{Layout, RUN_ROOT};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
}

impl Settings {
    /// The address of the cluster's DNS service: the tenth of the service range, as kubeadm chooses it.
    pub fn dns_ip(&self) -> IpAddr {
        self.service_cidr.nth(10)
    }

    /// The settings of this cluster: those it has, or new ones that overlap no other cluster and no route here.
    pub fn load_or_choose(layout: &Layout, pod: Option<Cidr>, service: Option<Cidr>) -> Result<Self> {
        let path = layout.settings_file();
        let settings = match fs::read_to_string(&path) {
            Ok(text) => {
                let kept: Settings = serde_json::from_str(&text)
                    .with_context(|| format!("{} is damaged: restore it from a copy", path.display()))?;
                for (flag, asked, has) in
                    [("--pod-cidr", pod, kept.pod_cidr), ("--service-cidr", service, kept.service_cidr)]
                {
                    if asked.is_some_and(|asked| asked != has) {
                        bail!("{flag} cannot change: this cluster was made with {has}; use another --data-dir");
                    }
                }
                kept
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let chosen = choose(&taken(layout), pod, service)?;
                write(&path, &chosen)?;
                chosen
            }
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        // Others look here, to stay clear of these ranges while this cluster's pods have not made a route yet.
        write(&layout.run_dir().join("settings.json"), &settings)?;
        Ok(settings)
    }
}

fn write(path: &Path, settings: &Settings) -> Result<()> {
    let text = serde_json::to_string_pretty(settings)?;
    pki::files::write_private(path, &text)?;
    Ok(())
}

/// The first pair of ranges that are free.
fn choose(taken: &[Cidr], pod: Option<Cidr>, service: Option<Cidr>) -> Result<Settings> {
    let free = |cidr: Cidr| taken.iter().all(|t| !t.overlaps(cidr));
    let first = |asked: Option<Cidr>, from: u8, to: u8, flag: &str| match asked {
        Some(asked) => Ok(asked),
        None => (from..=to)
            .filter_map(|second| Cidr::new(Ipv4Addr::new(10, second, 0, 0).into(), 16))
            .find(|cidr| free(*cidr))
            .with_context(|| format!("no free address range from 10.{from}.0.0/16 on: name one with {flag}")),
    };
    let settings = Settings {
        pod_cidr: first(pod, 244, 254, "--pod-cidr")?,
        service_cidr: first(service, 96, 127, "--service-cidr")?,
    };
    if settings.pod_cidr.overlaps(settings.service_cidr) {
        bail!("--pod-cidr {} and --service-cidr {} overlap", settings.pod_cidr, settings.service_cidr);
    }
    Ok(settings)
}

/// Ranges that other clusters of this machine hold, and those the machine has routes to.
fn taken(layout: &Layout) -> Vec<Cidr> {
    let mut taken = routes(&fs::read_to_string("/proc/net/route").unwrap_or_default());
    for entry in fs::read_dir(RUN_ROOT).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy() == layout.id {
            continue;
        }
        let text = fs::read_to_string(entry.path().join("settings.json")).unwrap_or_default();
        if let Ok(other) = serde_json::from_str::<Settings>(&text) {
            taken.extend([other.pod_cidr, other.service_cidr]);
        }
    }
    taken
}

/// Destinations of the kernel's IPv4 routes (`/proc/net/route`, numbers in the host's byte order), but the default one.
fn routes(table: &str) -> Vec<Cidr> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_le);
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let (destination, mask) = (number(columns.get(1)?)?, number(columns.get(7)?)?);
            let to_network = |n: u32| u32::from_be_bytes(n.to_ne_bytes());
            let address = Ipv4Addr::from(to_network(destination));
            if mask == 0 { None } else { Cidr::new(address.into(), to_network(mask).leading_ones() as u8) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect(text)
    }

    #[test]
    fn a_second_cluster_gets_other_ranges() {
        let first = choose(&[], None, None).expect("chosen");
        assert_eq!((first.pod_cidr, first.service_cidr), (cidr("10.244.0.0/16"), cidr("10.96.0.0/16")));
        let second = choose(&[first.pod_cidr, first.service_cidr], None, None).expect("chosen");
        assert_eq!((second.pod_cidr, second.service_cidr), (cidr("10.245.0.0/16"), cidr("10.97.0.0/16")));
        assert!(choose(&[cidr("10.0.0.0/8")], None, None).is_err());
        assert!(choose(&[], Some(cidr("10.96.0.0/12")), Some(cidr("10.100.0.0/16"))).is_err());
    }

    #[test]
    fn the_kernels_routes() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(routes(table), [cidr("192.0.2.0/24")]);
    }
}
