//! Behind balancers and proxies: the PROXY protocol with and without TLS, however its bytes arrive.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::{Fixture, PATIENCE, upgrade};

const V1: &[u8] = b"PROXY TCP4 198.51.100.1 192.0.2.9 4711 443\r\n";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 for 198.51.100.1, with so many bytes behind the addresses.
fn v2(extra: u16) -> Vec<u8> {
    let addresses = [198, 51, 100, 1, 192, 0, 2, 9, 18, 103, 1, 187];
    let length = (12 + extra).to_be_bytes();
    let mut header = [V2_SIGNATURE, &[0x21, 0x11], &length, &addresses].concat();
    header.resize(header.len() + usize::from(extra), 0);
    header
}

fn local() -> Vec<u8> {
    [V2_SIGNATURE, &[0x20, 0, 0, 0]].concat()
}

/// A server with TLS that expects PROXY headers, and what its clients need.
struct Proxied {
    fixture: Fixture,
    client: Arc<ClientConfig>,
}

impl Proxied {
    fn start() -> Proxied {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let fixture = Fixture::with(&[
            ("http_server.tls.enabled", "true"),
            ("http_server.tls.cert_pem", &made.cert.pem()),
            ("http_server.tls.key_pem", &made.signing_key.serialize_pem()),
            ("client.trusted_proxies", "127.0.0.1"),
            ("http_server.proxy_protocol", "true"),
            ("limits.address.handshakes", "1/1m"),
        ]);
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Proxied { fixture, client: Arc::new(client) }
    }

    fn tcp(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.fixture.address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    fn tls(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(self.client.clone(), name).unwrap()
    }

    /// Sends the header in these pieces, then speaks TLS; the status of a WebSocket handshake.
    fn handshake_after(&self, pieces: &[&[u8]]) -> String {
        let mut tcp = self.tcp();
        for piece in pieces {
            tcp.write_all(piece).unwrap();
        }
        status(&mut StreamOwned::new(self.tls(), tcp))
    }

    /// The same with header and ClientHello in one write.
    fn handshake_with_hello_behind(&self, header: &[u8]) -> String {
        let mut tls = self.tls();
        let mut first = header.to_vec();
        tls.write_tls(&mut first).unwrap();
        let mut tcp = self.tcp();
        tcp.write_all(&first).unwrap();
        status(&mut StreamOwned::new(tls, tcp))
    }

    /// The server's response to a peer that sends this and then closes its side.
    fn answer_to(&self, bytes: &[u8]) -> Vec<u8> {
        let mut tcp = self.tcp();
        tcp.write_all(bytes).unwrap();
        // Who is refused at once may find the socket closed.
        let _closed = tcp.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        match tcp.read_to_end(&mut answer) {
            Ok(_) => answer,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => answer,
            Err(error) => panic!("the server does not close: {error}"),
        }
    }
}

fn status(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> String {
    stream.write_all(upgrade("").as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

#[test]
fn a_proxy_header_precedes_tls_however_its_bytes_arrive() {
    let v2 = v2(300);
    let in_bytes: Vec<&[u8]> = V1.chunks(1).collect();
    let in_parts: Vec<&[u8]> = v2.chunks(7).collect();
    type Way<'a> = (&'a str, &'a dyn Fn(&Proxied) -> String);
    let ways: [Way<'_>; 6] = [
        ("version 1", &|proxied| proxied.handshake_after(&[V1])),
        ("version 1 in bytes", &|proxied| proxied.handshake_after(&in_bytes)),
        ("version 1 and hello", &|proxied| proxied.handshake_with_hello_behind(V1)),
        ("version 2 with more", &|proxied| proxied.handshake_after(&[&v2])),
        ("version 2 in parts", &|proxied| proxied.handshake_after(&in_parts)),
        ("version 2 and hello", &|proxied| proxied.handshake_with_hello_behind(&v2)),
    ];
    for (name, way) in ways {
        let proxied = Proxied::start();
        assert_eq!(way(&proxied), "101", "{name}");
        // The rate of the client's address is used up, so it was that which counted.
        assert_eq!(way(&proxied), "429", "{name}");
        assert_eq!(proxied.handshake_after(&[&local()]), "101", "{name}: the proxy itself");
    }
}

#[test]
fn without_a_proxy_header_or_with_a_bad_one_nothing_is_served() {
    let proxied = Proxied::start();
    let mut hello = Vec::new();
    proxied.tls().write_tls(&mut hello).unwrap();
    for (name, bytes) in [
        ("TLS at once", hello.clone()),
        ("HTTP at once", upgrade("").into_bytes()),
        ("too large", [v2(5_000), hello.clone()].concat()),
        (
            "a line that is too long",
            [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n", &hello].concat(),
        ),
        ("not an address", [b"PROXY TCP4 x 192.0.2.9 1 2\r\n", &hello[..]].concat()),
        ("an unfinished header", V1[..20].to_vec()),
        ("nothing", Vec::new()),
    ] {
        assert_eq!(proxied.answer_to(&bytes), b"", "{name}");
    }
    // What is not TLS behind a header gets TLS' own word for it, and no HTTP.
    let answer = proxied.answer_to(&[V1, upgrade("").as_bytes()].concat());
    assert!(answer.first().is_none_or(|kind| *kind == 21), "{answer:?}");
    assert_eq!(proxied.handshake_after(&[V1]), "101", "others are served");
}
