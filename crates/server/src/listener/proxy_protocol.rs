//! The PROXY protocol, versions 1 and 2: a proxy's first bytes on a connection name the client.
//!
//! Invariant: exactly the header is read, so that TLS or HTTP begins with the next byte. A header
//! has at most [`PROXY_HEADER_MAX`] bytes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::limits::PROXY_HEADER_MAX;

/// The first twelve bytes of a header of version 2.
const SIGNATURE_V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Maximum length of a line of version 1, including CRLF.
const LINE_MAX: usize = 107;

/// Reads a header. Returns `None` if the proxy connects for itself, as in a health check, or does
/// not know the client.
///
/// # Errors `InvalidData` if the header is missing or malformed.
pub(super) async fn read_client(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<IpAddr>> {
    let mut start = [0; SIGNATURE_V2.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE_V2 {
        return read_v2(stream).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(invalid("the connection does not begin with a PROXY header"));
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE_MAX {
            return Err(invalid("the line of the PROXY header is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    let line = line.strip_suffix(b"\r\n").unwrap_or(&line);
    parse_v1(line).ok_or_else(|| invalid("the line of the PROXY header cannot be understood"))
}

/// Parses `PROXY TCP4 192.0.2.1 192.0.2.9 4711 443`, or `PROXY UNKNOWN` with any suffix.
fn parse_v1(line: &[u8]) -> Option<Option<IpAddr>> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let ports: Vec<u16> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
    let ip = match family {
        "TCP4" => {
            let _to: Ipv4Addr = destination.parse().ok()?;
            IpAddr::V4(source.parse().ok()?)
        }
        "TCP6" => {
            let _to: Ipv6Addr = destination.parse().ok()?;
            IpAddr::V6(source.parse().ok()?)
        }
        _ => return None,
    };
    (ports.len() == 2).then_some(Some(ip))
}

async fn read_v2(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let [version_and_command, family] = [stream.read_u8().await?, stream.read_u8().await?];
    let length = usize::from(stream.read_u16().await?);
    if length > PROXY_HEADER_MAX {
        return Err(invalid("the PROXY header is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    match version_and_command {
        // LOCAL: the proxy's own connection.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(invalid("the PROXY header has an unknown version or command")),
    }
    // The high half of the byte is the address family. Data behind the addresses is ignored.
    match family >> 4 {
        1 => match body.first_chunk::<12>() {
            Some([a, b, c, d, ..]) => Ok(Some(Ipv4Addr::new(*a, *b, *c, *d).into())),
            None => Err(invalid("the PROXY header is too short for IPv4")),
        },
        2 => match body.first_chunk::<36>().and_then(|body| body.first_chunk::<16>()) {
            Some(source) => Ok(Some(Ipv6Addr::from(*source).into())),
            None => Err(invalid("the PROXY header is too short for IPv6")),
        },
        _ => Ok(None),
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client of a header, and the bytes behind it.
    fn read(bytes: &[u8]) -> (Result<String, io::ErrorKind>, Vec<u8>) {
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let result = runtime.block_on(read_client(&mut rest));
        let text = |ip: Option<IpAddr>| ip.map_or("unknown".to_owned(), |ip| ip.to_string());
        (result.map(text).map_err(|error| error.kind()), rest.to_vec())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE_V2[..], &[command, family], &length, body, b"GET"].concat()
    }

    #[test]
    fn version_1_names_the_client_and_takes_no_byte_more() {
        let read = |line: &str| {
            let (client, rest) = read(format!("{line}GET").as_bytes());
            assert!(client.is_err() || rest == b"GET", "{line:?} left {rest:?}");
            client.unwrap_or_else(|kind| kind.to_string())
        };
        assert_eq!(read("PROXY TCP4 192.0.2.1 192.0.2.9 4711 443\r\n"), "192.0.2.1");
        assert_eq!(read("PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n"), "2001:db8::1");
        assert_eq!(read("PROXY UNKNOWN\r\n"), "unknown");
        assert_eq!(read("PROXY UNKNOWN ff:f::f ff::2 65535 65535\r\n"), "unknown");
        for wrong in [
            "PROXY TCP4 192.0.2.1 192.0.2.9 4711\r\n",
            "PROXY TCP4 2001:db8::1 192.0.2.9 4711 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 4711 99999\r\n",
            "PROXY TCP5 192.0.2.1 192.0.2.9 4711 443\r\n",
            "GET /connection/websocket HTTP/1.1\r\n",
        ] {
            assert_eq!(read(wrong), "invalid data", "{wrong}");
        }
        assert_eq!(read(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(200))), "invalid data");
        assert_eq!(super::tests::read(b"PROXY TC").0, Err(io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn version_2_names_the_client_and_skips_what_follows() {
        let ipv4 = [192, 0, 2, 1, 192, 0, 2, 9, 18, 103, 1, 187];
        let with_more = [&ipv4[..], &[4, 0, 3, 1, 2, 3]].concat();
        let mut ipv6 = [0; 36];
        ipv6[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        let said = |bytes: &[u8]| {
            let (client, rest) = read(bytes);
            assert!(client.is_err() || rest == b"GET");
            client.unwrap_or_else(|kind| kind.to_string())
        };
        assert_eq!(said(&v2(0x21, 0x11, &ipv4)), "192.0.2.1");
        assert_eq!(said(&v2(0x21, 0x11, &with_more)), "192.0.2.1");
        assert_eq!(said(&v2(0x21, 0x21, &ipv6)), "2001:db8::1");
        assert_eq!(said(&v2(0x20, 0x00, &[])), "unknown");
        assert_eq!(said(&v2(0x21, 0x00, &[])), "unknown");
        assert_eq!(said(&v2(0x21, 0x31, &[0; 216])), "unknown");
        assert_eq!(said(&v2(0x21, 0x11, &ipv4[..11])), "invalid data");
        assert_eq!(said(&v2(0x31, 0x11, &ipv4)), "invalid data");
        assert_eq!(said(&v2(0x21, 0x11, &[0; 5000])), "invalid data");
    }
}
