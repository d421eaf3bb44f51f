//! Addresses of clients, resolved through trusted proxies.
//!
//! Invariant: an address from a header or the PROXY protocol is used only if every hop behind it is
//! a trusted proxy (`client.trusted_proxies`). A peer that is not trusted is itself the client.

mod forwarded;
mod trusted;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

pub use forwarded::{ForwardedHeader, HeaderNameError};
pub use trusted::{CidrError, TrustedProxies};

/// Address of the client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// An IP address. IPv4-mapped IPv6 addresses (`::ffff:192.0.2.1`) are stored as IPv4.
    Ip(IpAddr),
    /// Client of a Unix socket, which has no address. Permissions of the socket file control
    /// access.
    Unix,
}

/// Unit of limits per address: an IPv4 address or an IPv6 /64 network, the smallest that is
/// assigned to one customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressPrefix(IpAddr);

impl ClientAddress {
    /// Key for limits per address; `None` for a Unix socket, to which they do not apply.
    #[must_use]
    pub fn prefix(self) -> Option<AddressPrefix> {
        match self {
            ClientAddress::Ip(IpAddr::V6(ip)) => {
                let [a, b, c, d, ..] = ip.segments();
                Some(AddressPrefix(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()))
            }
            ClientAddress::Ip(ip) => Some(AddressPrefix(ip)),
            ClientAddress::Unix => None,
        }
    }
}

impl From<IpAddr> for ClientAddress {
    fn from(ip: IpAddr) -> ClientAddress {
        ClientAddress::Ip(ip.to_canonical())
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientAddress::Ip(ip) => ip.fmt(f),
            ClientAddress::Unix => f.write_str("unix"),
        }
    }
}

impl fmt::Display for AddressPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => ip.fmt(f),
            IpAddr::V6(ip) => write!(f, "{ip}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(ip: &str) -> String {
        ClientAddress::from(ip.parse::<IpAddr>().unwrap()).prefix().unwrap().to_string()
    }

    #[test]
    fn ipv4_counts_by_address_and_ipv6_by_64_bits() {
        assert_eq!(prefix("192.0.2.7"), "192.0.2.7");
        assert_eq!(prefix("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(prefix("2001:db8:1:2:aaaa::1"), "2001:db8:1:2::/64");
        assert_eq!(prefix("2001:db8:1:2:bbbb::9"), prefix("2001:db8:1:2::"));
        assert_ne!(prefix("2001:db8:1:3::1"), prefix("2001:db8:1:2::1"));
        assert_eq!(ClientAddress::Unix.prefix(), None);
    }
}
