//! The ranges that service addresses come from: the ServiceCIDR objects that are ready.
//!
//! Reads documents; pure. Invariant: nothing is given out of a range that is being deleted.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use meta::Value;
use rand::Rng;

use crate::config::{Cidr, family};
use crate::metadata;

#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    pub cidr: Cidr,
    /// Addresses are given out of it.
    pub ready: bool,
}

/// The ranges of a ServiceCIDR.
pub fn of(object: &Value) -> Vec<Range> {
    // Compat: without conditions a range is ready, so that addresses are given out before the controller runs.
    let says_no = |c: &Value| c["type"].as_str() == Some("Ready") && c["status"].as_str() != Some("True");
    let ready = !metadata::is_deleting(object) && !object.array_at(&["status", "conditions"]).iter().any(says_no);
    let cidrs = object.array_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str).filter_map(Cidr::parse);
    // Source: upstream's allocator, which takes no IPv6 range with a shorter prefix.
    cidrs.filter(|c| c.address.is_ipv4() || c.bits >= 64).map(|cidr| Range { cidr, ready }).collect()
}

/// Whether a service may ask for this address; the error is upstream's.
pub fn admit(ranges: &[Range], ip: IpAddr) -> Result<(), String> {
    let around = || ranges.iter().filter(|r| r.ready && r.cidr.contains(ip)).map(|r| r.cidr);
    if around().any(|cidr| ip != cidr.nth(0) && (ip.is_ipv6() || ip != cidr.nth(cidr.places().end() + 1))) {
        return Ok(());
    }
    Err(match around().next() {
        Some(cidr) => {
            format!("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {cidr}")
        }
        None => "the provided network does not match the current range".into(),
    })
}

/// Any address of the family that is free.
pub fn pick(ranges: &[Range], of_family: &str, is_taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let ready = ranges.iter().filter(|r| r.ready && family(r.cidr.address) == of_family);
    ready.map(|r| r.cidr).find_map(|cidr| {
        let places = cidr.places();
        let reserved = (places.end() / 16).clamp(16, 256);
        any(places, reserved, |n| is_taken(cidr.nth(n))).map(|n| cidr.nth(n))
    })
}

/// Any free number. The first, `reserved` ones are for who asks for one by name, and are taken by chance only once the
/// others are used up. Source: KEP-3070.
pub fn any(numbers: RangeInclusive<u128>, reserved: u128, is_taken: impl Fn(u128) -> bool) -> Option<u128> {
    let (first, end) = (*numbers.start(), numbers.end() + 1);
    let upper = if end.saturating_sub(first) > reserved { first + reserved } else { first };
    // From a number by chance on, for others choose at the same time.
    let find = |start: u128, end: u128| {
        let from = if start < end { rand::rng().random_range(start..end) } else { end };
        (from..end).chain(start..from).find(|n| !is_taken(*n))
    };
    find(upper, end).or_else(|| find(first, upper))
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn each_number_once_and_the_reserved_ones_last() {
        let mut all: Vec<u128> = Vec::new();
        while let Some(n) = any(10..=59, 16, |n| all.contains(&n)) {
            all.push(n);
        }
        assert!(all[..34].iter().all(|n| *n >= 26), "{all:?}");
        all.sort_unstable();
        assert_eq!(all, (10..=59).collect::<Vec<_>>());
        assert_eq!(any(RangeInclusive::new(1, 0), 16, |_| false), None);
    }

    #[test]
    fn what_may_be_asked_for() {
        let objects = [
            json!({"spec": {"cidrs": ["10.0.0.0/24", "fd00::/120"]}}),
            json!({"spec": {"cidrs": ["10.1.0.0/24"]}, "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            json!({"spec": {"cidrs": ["10.2.0.0/24"]}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
            json!({"spec": {"cidrs": ["10.0.0.128/25"]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        ];
        let ranges: Vec<Range> = objects.iter().flat_map(of).collect();
        let outside = |ip: &str, cidr: &str| {
            Err(format!("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {cidr}"))
        };
        let nowhere = || Err("the provided network does not match the current range".to_string());
        for (ip, want) in [
            ("10.0.0.1", Ok(())),
            ("10.0.0.128", Ok(())), // the smaller network's own address is an ordinary one of the larger
            ("10.0.0.0", outside("10.0.0.0", "10.0.0.0/24")),
            ("10.0.0.255", outside("10.0.0.255", "10.0.0.0/24")),
            ("fd00::ff", Ok(())),
            ("fd00::", outside("fd00::", "fd00::/120")),
            ("10.1.0.1", nowhere()),
            ("10.2.0.1", nowhere()),
        ] {
            assert_eq!(admit(&ranges, ip.parse().expect("ip")), want, "{ip}");
        }
        let taken = |ip: IpAddr| ip.to_string() != "fd00::3";
        assert_eq!(pick(&ranges, "IPv6", taken).map(|ip| ip.to_string()).as_deref(), Some("fd00::3"));
        assert_eq!(pick(&ranges, "IPv4", |_| true), None);
    }
}
