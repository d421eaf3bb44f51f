//! Host and port of an address that a user gives to a command.
//!
//! Invariant: an invalid host or port is reported, as a mistake, before anything is looked up or
//! connected.

use std::net::Ipv6Addr;

use server::telemetry::visible;

use crate::misuse::misuse;

/// See the module. A host in brackets is given without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authority<'u> {
    pub(crate) host: &'u str,
    pub(crate) port: Option<u16>,
}

impl<'u> Authority<'u> {
    /// Reads what stands between the scheme and the path of `url`, which is for messages.
    ///
    /// # Errors
    /// A misuse, with the part that is wrong.
    pub(crate) fn parse(url: &str, text: &'u str) -> anyhow::Result<Authority<'u>> {
        if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            misuse!("{}: an address has no spaces", visible(url));
        }
        let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_host = match bare {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.contains(['[', ']', ':']),
        };
        if host.is_empty() {
            misuse!("{url}: there is no host in it");
        }
        if !is_host {
            misuse!(
                "{url}: {host} is no host; an IPv6 address stands in brackets, such as [::1]:8000"
            );
        }
        let port = match port.map(|port| (port, port.parse())) {
            None => None,
            Some((_, Ok(port @ 1..))) => Some(port),
            Some((port, _)) => misuse!("{url}: {port:?} is not a port (1 to 65535)"),
        };
        Ok(Authority { host: bare.unwrap_or(host), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::misuse::Misuse;

    #[test]
    fn hosts_and_ports_are_told_apart_and_mistakes_are_named() {
        for (text, host, port) in [
            ("localhost", "localhost", None),
            ("127.0.0.1:8000", "127.0.0.1", Some(8000)),
            ("[::1]", "::1", None),
            ("[::1]:65535", "::1", Some(65535)),
            ("user:word@push.example:1", "push.example", Some(1)),
        ] {
            assert_eq!(Authority::parse(text, text).unwrap(), Authority { host, port });
        }
        for (text, wanted) in [
            ("", "no host"),
            (":8000", "no host"),
            ("h:0", "\"0\" is not a port"),
            ("h:65536", "\"65536\" is not a port"),
            ("h:", "\"\" is not a port"),
            ("h:x", "\"x\" is not a port"),
            ("[::1", "in brackets"),
            ("::1", "in brackets"),
            ("[h]:1", "in brackets"),
            ("a b", "no spaces"),
        ] {
            let error = Authority::parse(text, text).unwrap_err();
            assert!(error.is::<Misuse>() && error.to_string().contains(wanted), "{text}: {error}");
        }
    }
}
