//! `client.trusted_proxies`: whose word about a client's address counts.
//!
//! Invariant: nobody is trusted who is not in the list; an empty list trusts nobody.

use std::net::IpAddr;

use axum::http::HeaderMap;
use thiserror::Error;

use super::{ClientAddress, forwarded};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<Cidr>,
    /// Whoever connects through a Unix socket.
    trusts_unix: bool,
}

/// A network such as `10.0.0.0/8`; its host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cidr {
    network: IpAddr,
    length: u32,
}

/// What is wrong with an entry of the list.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{entry:?} is no network: expected \"10.0.0.0/8\", \"2001:db8::/32\", an address, or \"unix:\""
)]
pub struct CidrError {
    entry: String,
}

impl TrustedProxies {
    /// Reads the entries of the list.
    ///
    /// # Errors
    /// The first entry that cannot be read.
    pub fn new(entries: &[String]) -> Result<TrustedProxies, CidrError> {
        let mut trusted = TrustedProxies::default();
        for entry in entries {
            match entry.trim() {
                "unix:" => trusted.trusts_unix = true,
                text => match Cidr::parse(text) {
                    Some(network) => trusted.networks.push(network),
                    None => return Err(CidrError { entry: entry.clone() }),
                },
            }
        }
        Ok(trusted)
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.trusts_unix
    }

    /// Whether a peer is a trusted proxy.
    #[must_use]
    pub fn trusts(&self, peer: ClientAddress) -> bool {
        match peer {
            ClientAddress::Ip(ip) => self.networks.iter().any(|network| network.contains(ip)),
            ClientAddress::Unix => self.trusts_unix,
        }
    }

    /// The client of a request: the peer of its connection, or the address that trusted proxies
    /// give in `X-Forwarded-For` or `Forwarded`. When a request has both and they disagree, one of
    /// them is the client's own invention and nobody can tell which, so the proxy's own address
    /// counts.
    #[must_use]
    pub fn client_of(&self, peer: ClientAddress, headers: &HeaderMap) -> ClientAddress {
        if !self.trusts(peer) {
            return peer;
        }
        let client = |hops: Option<Vec<Option<IpAddr>>>| hops.map(|hops| self.walk(peer, &hops));
        let by_x_forwarded_for = client(forwarded::x_forwarded_for(headers));
        let by_forwarded = client(forwarded::forwarded(headers));
        match (by_x_forwarded_for, by_forwarded) {
            (Some(one), Some(other)) if one != other => peer,
            (Some(client), _) | (None, Some(client)) => client,
            (None, None) => peer,
        }
    }

    /// Goes from the nearest hop to the farthest for as long as each is a trusted proxy. A hop that
    /// gives no address ends the walk: what stands beyond it was written by somebody unknown.
    fn walk(&self, peer: ClientAddress, hops: &[Option<IpAddr>]) -> ClientAddress {
        let mut client = peer;
        for hop in hops.iter().rev() {
            let Some(ip) = hop else { break };
            client = ClientAddress::from(*ip);
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

impl Cidr {
    fn parse(text: &str) -> Option<Cidr> {
        let (ip, length) = match text.split_once('/') {
            Some((ip, length)) => (ip, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().ok()?;
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let length = match length {
            // `+8` and the like are numbers for Rust, but not here.
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            Some(_) => return None,
            None => bits,
        };
        (length <= bits).then(|| Cidr { network: masked(ip, length), length })
    }

    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.network.is_ipv4() && masked(ip, self.length) == self.network
    }
}

/// The first `length` bits.
fn masked(ip: IpAddr, length: u32) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(entries: &[&str]) -> TrustedProxies {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        TrustedProxies::new(&entries).unwrap()
    }

    fn peer(ip: &str) -> ClientAddress {
        ClientAddress::from(ip.parse::<IpAddr>().unwrap())
    }

    fn client_of(peer_ip: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let proxies = trusted(&["10.0.0.0/8", "fd00::/8"]);
        proxies.client_of(peer(peer_ip), &map).to_string()
    }

    #[test]
    fn networks_contain_what_they_should() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ];
        for (network, ip, is_in) in cases {
            assert_eq!(trusted(&[network]).trusts(peer(ip)), is_in, "{ip} in {network}");
        }
        for wrong in
            ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0", "localhost", "*"]
        {
            assert!(TrustedProxies::new(&[wrong.to_owned()]).is_err(), "{wrong:?}");
        }
        assert!(trusted(&["unix:"]).trusts(ClientAddress::Unix));
        assert!(!trusted(&["0.0.0.0/0"]).trusts(ClientAddress::Unix));
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let spoofed = [("x-forwarded-for", "198.51.100.1")];
        assert_eq!(client_of("203.0.113.9", &spoofed), "203.0.113.9");
        assert_eq!(client_of("10.0.0.1", &spoofed), "198.51.100.1");
        assert_eq!(client_of("10.0.0.1", &[]), "10.0.0.1");
        // The client sent the first; each proxy adds whom it saw.
        let chain = [("x-forwarded-for", "1.1.1.1, 198.51.100.7, 10.0.0.2")];
        assert_eq!(client_of("10.0.0.1", &chain), "198.51.100.7");
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "198.51.100.7,10.0.0.2")];
        assert_eq!(client_of("10.0.0.1", &lines), "198.51.100.7");
        let all_trusted = [("x-forwarded-for", "10.0.0.3, 10.0.0.2")];
        assert_eq!(client_of("10.0.0.1", &all_trusted), "10.0.0.3");
        let garbage = [("x-forwarded-for", "1.1.1.1, not an address, 10.0.0.2")];
        assert_eq!(client_of("10.0.0.1", &garbage), "10.0.0.2");
        assert_eq!(client_of("10.0.0.1", &[("x-forwarded-for", "")]), "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_says() {
        let by = |value| client_of("10.0.0.1", &[("forwarded", value)]);
        assert_eq!(by("for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60");
        assert_eq!(by("For=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::17");
        assert_eq!(by("for=192.0.2.43, for=198.51.100.17"), "198.51.100.17");
        assert_eq!(by("for=198.51.100.17;secret=\"a, b; c\\\"\", for=10.0.0.7"), "198.51.100.17");
        assert_eq!(by("for=_hidden, for=10.0.0.7"), "10.0.0.7");
        assert_eq!(by("for=unknown"), "10.0.0.1");
        assert_eq!(by("proto=https"), "10.0.0.1");
        assert_eq!(by("for=\"192.0.2.1:80\""), "192.0.2.1");
    }

    #[test]
    fn of_two_headers_that_disagree_none_is_believed() {
        let both =
            |one, other| client_of("10.0.0.1", &[("x-forwarded-for", one), ("forwarded", other)]);
        assert_eq!(both("192.0.2.1", "for=192.0.2.1"), "192.0.2.1");
        assert_eq!(both("192.0.2.1", "for=192.0.2.2"), "10.0.0.1");
    }

    #[test]
    fn ports_and_ipv6_in_x_forwarded_for() {
        let by = |value| client_of("fd00::1", &[("x-forwarded-for", value)]);
        assert_eq!(by("192.0.2.1:4711"), "192.0.2.1");
        assert_eq!(by("2001:db8::1"), "2001:db8::1");
        assert_eq!(by("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(by("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
