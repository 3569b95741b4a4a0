//! Address ranges of both families, such as `10.96.0.0/12`.
//! Invariant: the address is the network's own, so that equal ranges are equal and `Display` is canonical.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    pub address: IpAddr,
    pub bits: u8,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an address range; write one such as 10.42.0.0/16")]
pub struct CidrError(String);

/// As Services and EndpointSlices name it.
pub fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

impl Cidr {
    /// The network that an address is in; `None` when its family has no prefix as long.
    pub fn new(address: IpAddr, bits: u8) -> Option<Cidr> {
        let address = match address {
            IpAddr::V4(a) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4((u32::from(a) & mask).into())
            }
            IpAddr::V6(a) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6((u128::from(a) & mask).into())
            }
            _ => return None,
        };
        Some(Cidr { address, bits })
    }

    /// Reads `10.96.0.0/12`; the address is cut to the network.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, bits) = text.split_once('/')?;
        Cidr::new(address.parse().ok()?, bits.parse().ok()?)
    }

    pub fn family(&self) -> &'static str {
        family(self.address)
    }

    pub fn is_v6(&self) -> bool {
        self.address.is_ipv6()
    }

    pub fn is_v4_mapped(&self) -> bool {
        matches!(self.address, IpAddr::V6(a) if a.to_ipv4_mapped().is_some())
    }

    /// The range lies in this one, and is smaller.
    pub fn is_around(&self, other: Cidr) -> bool {
        self.contains(other.address) && self.bits < other.bits
    }

    /// The places that services may have: neither the network's own address nor, in IPv4, its last one.
    pub fn places(&self) -> RangeInclusive<u128> {
        let width = if self.is_v6() { 128 } else { 32 };
        let last = u128::MAX.checked_shr(128 - width + u32::from(self.bits)).unwrap_or(0);
        1..=last - u128::from(!self.is_v6() && last > 0)
    }

    /// The address at `offset` from the network's first.
    pub fn nth(&self, offset: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(a) => IpAddr::V4(u32::from(a).wrapping_add(offset as u32).into()),
            IpAddr::V6(a) => IpAddr::V6(u128::from(a).wrapping_add(offset).into()),
        }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        Cidr::new(ip, self.bits).is_some_and(|network| network == *self)
    }

    pub fn overlaps(&self, other: Cidr) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

impl std::str::FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Cidr, CidrError> {
        Cidr::parse(text).ok_or_else(|| CidrError(text.to_owned()))
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Cidr, CidrError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect(text)
    }

    #[test]
    fn networks() {
        for good in ["10.0.0.0/8", "0.0.0.0/0", "fd00::/64"] {
            assert_eq!(cidr(good).to_string(), good);
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129", "10.0.0.0/8; flush ruleset"] {
            assert_eq!(bad.parse::<Cidr>(), Err(CidrError(bad.to_owned())));
        }
        let range = cidr("10.96.3.4/12");
        assert_eq!((range.to_string(), range.nth(258).to_string()), ("10.96.0.0/12".into(), "10.96.1.2".into()));
        let contains = |ip: &str| range.contains(ip.parse().expect("ip"));
        assert_eq!(["10.96.1.2", "10.95.1.2", "10.112.0.0", "fd00::1"].map(contains), [true, false, false, false]);
        assert!(
            cidr("10.0.0.0/8").overlaps(cidr("10.244.0.0/16")) && cidr("10.244.0.0/16").overlaps(cidr("10.0.0.0/8"))
        );
        assert!(!cidr("10.244.0.0/16").overlaps(cidr("10.245.0.0/16")));
    }

    #[test]
    fn places_for_services() {
        let places = |text: &str| cidr(text).places();
        assert_eq!(places("10.96.0.0/12"), 1..=(1 << 20) - 2);
        assert_eq!(places("fd00::/108"), 1..=(1 << 20) - 1);
        assert_eq!(["10.0.0.1/32", "10.0.0.0/31", "fd00::/128"].map(|text| places(text).count()), [0; 3]);
        assert_eq!(*places("0.0.0.0/0").end(), (1 << 32) - 2);
    }
}
