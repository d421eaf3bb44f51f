//! Addresses to listen on: an IP address, a host name, or a Unix socket.
//!
//! Invariant: an address that is invalid on every machine is a mistake of the configuration. An
//! address that only this machine lacks fails when the server binds it.

use std::net::{IpAddr, Ipv6Addr};

/// Maximum length in bytes of the path of a Unix socket: `sun_path` on Linux without the zero at
/// its end.
const UNIX_PATH_MAX: usize = 107;

/// Why an address is invalid, and what to write instead. `port` is the key of its port.
pub(super) fn fault(address: &str, port: &str) -> Option<String> {
    if let Some(path) = address.strip_prefix("unix:") {
        return match path.len() {
            0 => Some("has no path: write one, such as unix:/run/tidings.sock".to_owned()),
            length if length > UNIX_PATH_MAX => Some(format!(
                "has a path of {length} bytes, but at most {UNIX_PATH_MAX} are possible: choose a shorter one"
            )),
            _ => None,
        };
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_ip =
        bare.map_or_else(|| is_ip(address), |bare| without_zone(bare).parse::<Ipv6Addr>().is_ok());
    if address.is_empty() || is_ip {
        return None;
    }
    let text = match address {
        "*" => "is not an address: leave it empty for all addresses".to_owned(),
        path if path.starts_with(['/', '.']) => {
            format!("is a path: for a Unix socket write unix:{path}")
        }
        url if url.contains("://") => {
            format!("is a URL: write the host alone, and the port as {port}")
        }
        list if list.contains(|c: char| c == ',' || c.is_whitespace()) => {
            "is more than one word: write one address or host name".to_owned()
        }
        pair if pair.rsplit_once(':').is_some_and(|(host, _)| is_host(host)) => {
            format!("contains a port: write the host alone, and the port as {port}")
        }
        number if number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            "is not an IPv4 address, which has four numbers from 0 to 255".to_owned()
        }
        name if is_host(name) => return None,
        _ => "is neither an IP address nor a host name".to_owned(),
    };
    Some(text)
}

/// Address and port of the internal endpoints, resolved as in the compatible server: the default of
/// each is the public one. If both are equal, there is one listener and no port is returned.
///
/// # Errors
/// The two addresses cannot be bound at the same time.
pub(super) fn internal(
    public: (&str, u16),
    written: (&str, u16),
) -> Result<(String, Option<u16>), String> {
    let is_unix = |address: &str| address.starts_with("unix:");
    if is_unix(public.0) || is_unix(written.0) {
        return Ok((written.0.to_owned(), Some(written.1).filter(|port| *port != 0)));
    }
    let address = if written.0.is_empty() { public.0 } else { written.0 };
    let port = if written.1 == 0 { public.1 } else { written.1 };
    let shares = |port| (address.to_owned(), port);
    if port != public.1 {
        return Ok(shares(Some(port)));
    }
    match address == public.0 {
        true => Ok(shares(None)),
        // The kernel would choose a different port for each address.
        false if port == 0 => Ok(shares(None)),
        false if !is_everywhere(public.0) && !is_everywhere(address) => Ok(shares(Some(port))),
        false if written.1 == 0 => Ok(shares(None)),
        false => Err(
            "must differ from http_server.port, because one of the two listens on all addresses"
                .to_owned(),
        ),
    }
}

/// Whether an address means all addresses of the machine.
pub(super) fn is_everywhere(address: &str) -> bool {
    matches!(address, "" | "0.0.0.0" | "::" | "[::]")
}

fn is_host(text: &str) -> bool {
    let is_name =
        |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.map_or_else(|| !text.is_empty() && is_name(text), is_ip)
}

fn is_ip(text: &str) -> bool {
    without_zone(text).parse::<IpAddr>().is_ok()
}

/// Removes the zone of an IPv6 address: `fe80::1%eth0` becomes `fe80::1`.
fn without_zone(text: &str) -> &str {
    text.split_once('%').map_or(text, |(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::{fault, internal};

    #[test]
    fn the_internal_endpoints_are_where_the_compatible_server_has_them() {
        for (public, written, expected) in [
            (("127.0.0.1", 8000), ("", 0), ("127.0.0.1", None)),
            (("127.0.0.1", 8000), ("", 9000), ("127.0.0.1", Some(9000))),
            (("127.0.0.1", 8000), ("", 8000), ("127.0.0.1", None)),
            (("10.0.0.1", 8000), ("127.0.0.1", 0), ("127.0.0.1", Some(8000))),
            (("10.0.0.1", 8000), ("127.0.0.1", 8000), ("127.0.0.1", Some(8000))),
            (("", 8000), ("127.0.0.1", 0), ("127.0.0.1", None)),
            (("", 8000), ("", 9000), ("", Some(9000))),
            (("127.0.0.1", 0), ("::1", 0), ("::1", None)),
            (("", 8000), ("unix:/run/x", 0), ("unix:/run/x", None)),
            (("unix:/run/x", 8000), ("", 9000), ("", Some(9000))),
        ] {
            let found = internal(public, written);
            assert_eq!(found, Ok((expected.0.to_owned(), expected.1)), "{public:?} {written:?}");
        }
        assert!(internal(("", 8000), ("127.0.0.1", 8000)).is_err());
    }

    #[test]
    fn an_invalid_address_is_refused_with_advice() {
        let long = format!("unix:/{}", "a".repeat(107));
        for address in [
            "",
            "127.0.0.1",
            "::1",
            "[::1]",
            "0.0.0.0",
            "::",
            "fe80::1%lo",
            "localhost",
            "tidings.example",
            "unix:/run/tidings.sock",
            "unix:tidings.sock",
            "my_host-1",
        ] {
            assert_eq!(fault(address, "http_server.port"), None, "{address}");
        }
        for (address, wanted) in [
            ("unix:", "has no path"),
            (&*long, "108 bytes"),
            ("/run/tidings.sock", "write unix:/run/tidings.sock"),
            ("*", "leave it empty"),
            ("http://localhost", "write the host alone, and the port as http_server.port"),
            ("127.0.0.1:80", "the port as http_server.port"),
            ("localhost:80", "contains a port"),
            ("[::1]:80", "contains a port"),
            ("127.0.0.1,::1", "more than one"),
            ("exa mple", "more than one"),
            ("256.1.1.1", "not an IPv4 address"),
            ("80", "not an IPv4 address"),
            ("[::1", "neither"),
            ("::1]", "neither"),
            ("[localhost]", "neither"),
            ("ex{a}mple", "neither"),
        ] {
            let text = fault(address, "http_server.port").unwrap_or_default();
            assert!(text.contains(wanted), "{address}: {text:?}");
        }
    }
}
