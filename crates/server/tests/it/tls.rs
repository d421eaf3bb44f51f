//! TLS with certificates from files: traffic, renewal, and unusable certificates.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use server::Server;
use server::config::{Source, load};
use wire::websocket::encoder::FrameKind;

use crate::peer::frame;
use crate::support::{Fixture, token, upgrade};
use crate::trust::trusting;

struct Certificate {
    certificate: rcgen::Certificate,
    key: String,
}

fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    Certificate { certificate: made.cert, key: made.signing_key.serialize_pem() }
}

#[test]
fn messages_of_all_sizes_pass_through_tls() {
    let made = certificate();
    let fixture = Fixture::with(&[
        ("http_server.tls.enabled", "true"),
        ("http_server.tls.cert_pem", &made.certificate.pem()),
        ("http_server.tls.key_pem", &made.key),
    ]);
    let mut stream = dial(&fixture, &[&made]);
    stream.write_all(upgrade("").as_bytes()).unwrap();
    let mut seen = Vec::new();
    let mut read_until = |stream: &mut StreamOwned<_, _>, end: &[u8]| {
        while !seen.windows(end.len()).any(|window| window == end) {
            let mut part = [0; 4096];
            let count = stream.read(&mut part).unwrap();
            assert!(count > 0, "cut off after {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&part[..count]);
        }
        seen.clear();
    };
    read_until(&mut stream, b"\r\n\r\n");
    let data = "x".repeat(40_000);
    let connect = format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann"));
    let subscribe = r#"{"id":2,"subscribe":{"channel":"open:x"}}"#;
    let publish = format!(r#"{{"id":3,"publish":{{"channel":"open:x","data":"{data}"}}}}"#);
    for text in [&connect, subscribe, &publish] {
        stream.write_all(&frame(FrameKind::Text, text.as_bytes())).unwrap();
    }
    read_until(&mut stream, br#"{"id":3,"publish":{}}"#);
}

#[test]
fn the_close_frame_arrives_through_tls_while_the_peer_is_still_sending() {
    let made = certificate();
    let fixture = Fixture::with(&[
        ("http_server.tls.enabled", "true"),
        ("http_server.tls.cert_pem", &made.certificate.pem()),
        ("http_server.tls.key_pem", &made.key),
    ]);
    for _ in 0..2 {
        let mut stream = dial(&fixture, &[&made]);
        stream.write_all(upgrade("").as_bytes()).unwrap();
        // A frame without a mask, and more data than the kernel buffers, before anything is read.
        stream.write_all(&[0x81, 2, b'{', b'}']).unwrap();
        stream.write_all(&[0; 1_000_000]).expect("the server reads until the end");
        let mut said = Vec::new();
        // Reads to the end, which needs a close_notify alert.
        stream.read_to_end(&mut said).expect("close_notify, and no reset");
        let close = said
            .windows(4)
            .rposition(|bytes| bytes[0] == 0x88 && bytes[2..] == 1002_u16.to_be_bytes());
        assert!(close.is_some(), "{:?}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn a_renewed_certificate_is_used_for_new_handshakes() {
    let folder = tempfile::tempdir().unwrap();
    let [cert_file, key_file] =
        ["cert.pem", "key.pem"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let (first, second) = (certificate(), certificate());
    let write = |made: &Certificate| {
        std::fs::write(&cert_file, made.certificate.pem()).unwrap();
        std::fs::write(&key_file, &made.key).unwrap();
    };
    write(&first);
    let fixture = Fixture::with(&[
        ("http_server.tls.enabled", "true"),
        ("http_server.tls.cert_pem", &cert_file),
        ("http_server.tls.key_pem", &key_file),
    ]);
    let server = fixture.server.as_ref().unwrap();
    let used = || {
        let mut stream = dial(&fixture, &[&first, &second]);
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        stream.conn.peer_certificates().unwrap()[0].clone()
    };
    assert_eq!(used(), *first.certificate.der());
    std::fs::write(&cert_file, "not a certificate").unwrap();
    server.reload_certificates();
    assert_eq!(used(), *first.certificate.der(), "the one before stays");
    write(&second);
    server.reload_certificates();
    assert_eq!(used(), *second.certificate.der());
    // Also without a signal.
    write(&first);
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while used() != *first.certificate.der() {
        assert!(std::time::Instant::now() < deadline, "the files have changed");
    }
}

/// A client that trusts these certificates.
fn dial(fixture: &Fixture, trusted: &[&Certificate]) -> StreamOwned<ClientConnection, TcpStream> {
    let config = trusting(trusted.iter().map(|made| made.certificate.der()));
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(config, name).unwrap();
    let tcp = TcpStream::connect(fixture.address).unwrap();
    tcp.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    StreamOwned::new(tls, tcp)
}

#[test]
fn the_error_of_an_unusable_certificate_names_the_cause() {
    let made = certificate();
    let start = |chain: &str, key: &str| {
        let flags = [
            ("http_server.address", "127.0.0.1"),
            ("http_server.port", "0"),
            ("http_server.tls.enabled", "true"),
            ("http_server.tls.cert_pem", chain),
            ("http_server.tls.key_pem", key),
        ];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let (config, _) = load(&Source { flags, ..Source::default() }).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let error = runtime.block_on(Server::start(config)).err().expect("it must not start");
        error.to_string()
    };
    let good = made.certificate.pem();
    let missing = start("/nowhere/cert.pem", &made.key);
    assert!(missing.contains("cert_pem") && missing.contains("/nowhere/cert.pem"), "{missing}");
    let missing = start(&good, "/nowhere/key.pem");
    assert!(missing.contains("key_pem") && missing.contains("/nowhere/key.pem"), "{missing}");
    assert!(start(&made.key, &made.key).contains("contains no certificate"));
    assert!(start(&good, &good).contains("contains no private key"));
    let foreign = start(&good, &certificate().key);
    assert!(foreign.contains("does not go with the key"), "{foreign}");
}
