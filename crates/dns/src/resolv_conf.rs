//! The name servers in a resolv.conf. Pure.

use std::net::{IpAddr, SocketAddr};

/// As many as the C library takes.
const MAX_SERVERS: usize = 3;

/// The servers, in order, each on port 53.
pub fn parse(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next()).flatten()?;
        // A zone (`fe80::1%eth0`) would need the interface's number: such servers are left out.
        address.parse::<IpAddr>().ok()
    });
    servers.take(MAX_SERVERS).map(|address| SocketAddr::new(address, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.1\n  nameserver\t::1 # x\nnameserver bad\noptions ndots:5\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n";
        let expected: Vec<SocketAddr> =
            ["10.0.0.1:53", "[::1]:53", "1.1.1.1:53"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(parse(text), expected);
        assert_eq!(parse(""), []);
    }
}
