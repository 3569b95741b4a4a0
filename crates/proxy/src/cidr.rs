//! An address range as `10.0.0.0/16`, checked before it goes into a rule.
//! Invariant: what `Display` prints is valid nft text.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an address range; write one such as 10.42.0.0/16")]
pub struct CidrError(String);

impl Cidr {
    pub fn is_v6(&self) -> bool {
        self.address.is_ipv6()
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let wrong = || CidrError(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        let max = if address.is_ipv6() { 128 } else { 32 };
        if length > max { Err(wrong()) } else { Ok(Self { address, length }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for good in ["10.0.0.0/8", "0.0.0.0/0", "fd00::/64"] {
            assert_eq!(good.parse::<Cidr>().unwrap().to_string(), good);
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129", "10.0.0.0/8; flush ruleset"] {
            assert_eq!(bad.parse::<Cidr>(), Err(CidrError(bad.to_owned())));
        }
    }
}
