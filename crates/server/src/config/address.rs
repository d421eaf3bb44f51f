//! Addresses to listen on, as they are written: an IP address, a name, or a Unix socket.
//!
//! Invariant: what no machine could listen on is a mistake before the start; whether this machine
//! can is seen at the start.

use std::net::{IpAddr, Ipv6Addr};

/// Bytes of the path of a Unix socket: `sun_path` of Linux, without the zero behind it.
const UNIX_PATH_MAX: usize = 107;

/// Why an address can be none, and what to write; `port` is the key of the port that belongs to it.
pub(super) fn fault(address: &str, port: &str) -> Option<String> {
    if let Some(path) = address.strip_prefix("unix:") {
        return match path.len() {
            0 => Some("names no file: write unix:/run/tidings.sock".to_owned()),
            length if length > UNIX_PATH_MAX => Some(format!(
                "has a path of {length} bytes, and the system takes {UNIX_PATH_MAX} at most"
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
        "*" => "is no address: leave it empty for all addresses".to_owned(),
        path if path.starts_with(['/', '.']) => {
            format!("is a path: for a Unix socket write unix:{path}")
        }
        url if url.contains("://") => {
            format!("is a URL: write the host alone, and the port as {port}")
        }
        list if list.contains(|c: char| c == ',' || c.is_whitespace()) => {
            "is more than one word: one address or name is listened on".to_owned()
        }
        pair if pair.rsplit_once(':').is_some_and(|(host, _)| is_host(host)) => {
            format!("holds a port: write the host alone, and the port as {port}")
        }
        number if number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            "is no IPv4 address: it has four numbers from 0 to 255".to_owned()
        }
        name if is_host(name) => return None,
        _ => "is neither an IP address nor a name".to_owned(),
    };
    Some(text)
}

/// The internal endpoints, as they are read in the compatible server too: an address or port that
/// is not written is that for clients, and the same place is one listener. Without a port, they are
/// on the public one.
///
/// # Errors
/// Both cannot be listened on.
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
        // The system would choose two ports.
        false if port == 0 => Ok(shares(None)),
        false if !is_everywhere(public.0) && !is_everywhere(address) => Ok(shares(Some(port))),
        false if written.1 == 0 => Ok(shares(None)),
        false => {
            Err("must differ from http_server.port, since one of the addresses stands for all"
                .to_owned())
        }
    }
}

/// Whether an address stands for all.
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

/// `fe80::1%eth0` without what names the interface.
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
    fn what_can_be_no_address_is_told_with_what_to_write() {
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
            ("unix:", "names no file"),
            (&*long, "108 bytes"),
            ("/run/tidings.sock", "write unix:/run/tidings.sock"),
            ("*", "leave it empty"),
            ("http://localhost", "write the host alone, and the port as http_server.port"),
            ("127.0.0.1:80", "the port as http_server.port"),
            ("localhost:80", "holds a port"),
            ("[::1]:80", "holds a port"),
            ("127.0.0.1,::1", "more than one"),
            ("exa mple", "more than one"),
            ("256.1.1.1", "no IPv4 address"),
            ("80", "no IPv4 address"),
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
