//! `client.trusted_proxies`: proxies that may name the client's address, and the header they use.
//!
//! Invariants: only peers in the list are trusted; an empty list trusts no peer. Only one header is
//! read, which the proxies write; other headers may be forged by the client.

use std::net::IpAddr;

use axum::http::HeaderMap;
use thiserror::Error;

use super::{ClientAddress, ForwardedHeader};

/// Networks of trusted proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<Cidr>,
    /// Whether peers on Unix sockets are trusted (`unix:`).
    trusts_unix: bool,
    header: ForwardedHeader,
}

/// A network such as `10.0.0.0/8`; its host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cidr {
    network: IpAddr,
    length: u32,
}

/// An entry of the list that cannot be parsed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{entry:?} is not a network: expected \"10.0.0.0/8\", \"2001:db8::/32\", an address, or \"unix:\""
)]
pub struct CidrError {
    entry: String,
}

impl TrustedProxies {
    /// Parses the entries of the list.
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

    /// Whether no peer is trusted.
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

    /// The same proxies, which name the client in this header.
    #[must_use]
    pub fn with_header(self, header: ForwardedHeader) -> TrustedProxies {
        TrustedProxies { header, ..self }
    }

    /// The client of a request: the peer of its connection, or the client that trusted proxies name
    /// in their header. Walks from the nearest hop to the farthest while each hop is a trusted
    /// proxy. A hop without an address ends the walk, since the entries before it come from an
    /// unknown peer.
    #[must_use]
    pub fn client_of(&self, peer: ClientAddress, headers: &HeaderMap) -> ClientAddress {
        let mut client = peer;
        if !self.trusts(peer) {
            return client;
        }
        for hop in self.header.hops(headers) {
            let Some(ip) = hop else { break };
            client = ClientAddress::from(ip);
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
            // Rust parses `+8` as a number; CIDR notation does not allow it.
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

/// The address with all but the first `length` bits cleared.
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
    use axum::http::HeaderValue;
    use engine::random::Random;

    use super::*;

    fn trusted(entries: &[&str]) -> TrustedProxies {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        TrustedProxies::new(&entries).unwrap()
    }

    fn peer(ip: &str) -> ClientAddress {
        ClientAddress::from(ip.parse::<IpAddr>().unwrap())
    }

    /// The client of a request with these headers, of which trusted proxies write this one.
    fn client_by(header: &str, peer_ip: &str, headers: &[(&'static str, &[u8])]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let header = ForwardedHeader::new(header).unwrap();
        let proxies = trusted(&["10.0.0.0/8", "fd00::/8"]).with_header(header);
        proxies.client_of(peer(peer_ip), &map).to_string()
    }

    fn client_of(peer_ip: &str, headers: &[(&'static str, &str)]) -> String {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        client_by("X-Forwarded-For", peer_ip, &headers)
    }

    fn by_forwarded(value: &str) -> String {
        client_by("Forwarded", "10.0.0.1", &[("forwarded", value.as_bytes())])
    }

    #[test]
    fn networks_contain_addresses_with_their_prefix() {
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
    fn forwarded_addresses_are_used_only_from_trusted_proxies() {
        let spoofed = [("x-forwarded-for", "198.51.100.1")];
        assert_eq!(client_of("203.0.113.9", &spoofed), "203.0.113.9");
        assert_eq!(client_of("10.0.0.1", &spoofed), "198.51.100.1");
        assert_eq!(client_of("10.0.0.1", &[]), "10.0.0.1");
        // The first entry is forged by the client; each proxy appends the address of its peer.
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
    fn forwarded_is_parsed_as_in_rfc_7239() {
        let by = by_forwarded;
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
    fn what_is_no_address_is_nobody() {
        for value in [
            "for=\"[2001:db8::1\"",
            "for=\"[192.0.2.1]\"",
            "for=\"2001:db8::1:x\"",
            "for=192.0.2.1:99999",
            "for=\"192.0.2.1",
            "for=192.0.2.1;for=192.0.2.2",
            "for=\"[fe80::1%eth0]\"",
            "for=192.0.2.256",
            "for=",
            "",
        ] {
            assert_eq!(by_forwarded(value), "10.0.0.1", "{value}");
        }
        assert_eq!(by_forwarded("for=\"192.0.2.1:_a1\""), "192.0.2.1");
        assert_eq!(by_forwarded("for=\"[2001:db8::1]:_a1\";host=x"), "2001:db8::1");
    }

    #[test]
    fn only_the_header_that_proxies_write_counts() {
        let both: [(&str, &[u8]); 3] = [
            ("x-forwarded-for", b"192.0.2.1"),
            ("forwarded", b"for=192.0.2.2"),
            ("x-real-ip", b"192.0.2.3"),
        ];
        assert_eq!(client_by("X-Forwarded-For", "10.0.0.1", &both), "192.0.2.1");
        assert_eq!(client_by("forwarded", "10.0.0.1", &both), "192.0.2.2");
        assert_eq!(client_by("X-Real-IP", "10.0.0.1", &both), "192.0.2.3");
        assert_eq!(client_by("CF-Connecting-IP", "10.0.0.1", &both), "10.0.0.1");
        for wrong in ["", "X Forwarded For", "x-forwarded-for:", "\u{e4}"] {
            assert!(ForwardedHeader::new(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Whatever a client sends in whichever header, behind a proxy that writes one header the
    /// client is who the proxy saw.
    #[test]
    fn no_client_chooses_its_address_behind_a_proxy_of_one_header() {
        const PIECES: [&[u8]; 16] = [
            b"for=",
            b"1.1.1.1",
            b"\"",
            b"\\",
            b",",
            b";",
            b" ",
            b"=",
            b"[2001:db8::1]",
            b":80",
            b"\xff",
            b"10.0.0.9",
            b"for=1.1.1.1;x=\"",
            b"unknown",
            b"_hidden",
            b"by=\"a\\\"b\"",
        ];
        let mut random = Random::new(1);
        let sent = |random: &mut Random| -> Vec<u8> {
            let count = random.below(7);
            let pieces = (0..count).map(|_| PIECES[random.below(PIECES.len() as u64) as usize]);
            pieces.collect::<Vec<_>>().concat()
        };
        let written = [
            ("x-forwarded-for", "198.51.100.7", "198.51.100.7"),
            ("x-forwarded-for", "2001:db8:7::7", "2001:db8:7::7"),
            ("forwarded", "for=198.51.100.7;proto=https", "198.51.100.7"),
            ("forwarded", "for=\"[2001:db8:7::7]:4711\";host=\"a, \\\"b;c\\\"\"", "2001:db8:7::7"),
        ];
        for _ in 0..5_000 {
            for (name, entry, client) in written {
                let other = if name == "forwarded" { "x-forwarded-for" } else { "forwarded" };
                let (own, foreign) = (sent(&mut random), sent(&mut random));
                // Some proxies append to the line, some add a line of their own.
                let appended = [&own[..], b", ", entry.as_bytes()].concat();
                let in_line = [(name, &appended[..]), (other, &foreign[..])];
                let own_line = [(other, &foreign[..]), (name, &own[..]), (name, entry.as_bytes())];
                assert_eq!(client_by(name, "10.0.0.1", &in_line), client, "{in_line:?}");
                assert_eq!(client_by(name, "10.0.0.1", &own_line), client, "{own_line:?}");
                // A second trusted proxy.
                let hop = if name == "forwarded" { ", for=10.0.0.2" } else { ", 10.0.0.2" };
                let chain = [&appended[..], hop.as_bytes()].concat();
                assert_eq!(client_by(name, "10.0.0.1", &[(name, &chain)]), client, "{chain:?}");
            }
        }
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
