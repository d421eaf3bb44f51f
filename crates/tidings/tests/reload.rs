//! SIGHUP: the process reads its files again, uses what is good, and says what is not.

#[path = "support/process.rs"]
mod process;
#[path = "../../server/tests/it/trust.rs"]
mod trust;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, StreamOwned};

use process::{PATIENCE, Running, configured, tidings};
use trust::trusting;

struct Certificate {
    pem: String,
    key: String,
    der: CertificateDer<'static>,
}

fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    Certificate { pem: made.cert.pem(), key, der: made.cert.der().clone() }
}

/// The files of a server, and how to write them anew.
struct Files<'f> {
    folder: &'f Path,
    config: &'f Path,
}

impl Files<'_> {
    fn config(&self, key: &str, rest: &str) {
        let folder = self.folder.display();
        let text = format!(
            "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n\
             [http_server.tls]\nenabled = true\n\
             cert_pem = \"{folder}/cert.pem\"\nkey_pem = \"{folder}/key.pem\"\n\
             [http_api]\nkey = \"{key}\"\n{rest}"
        );
        std::fs::write(self.config, text).unwrap();
    }

    fn certificate(&self, made: &Certificate) {
        std::fs::write(self.folder.join("cert.pem"), &made.pem).unwrap();
        std::fs::write(self.folder.join("key.pem"), &made.key).unwrap();
    }
}

/// The certificate that is served, and the status of a request to the server API with this key.
fn seen(port: u16, known: &[&Certificate], key: &str) -> (CertificateDer<'static>, String) {
    let config = trusting(known.iter().map(|made| &made.der));
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(config, name).unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(tls, tcp);
    let head = format!("POST /api/info HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n");
    write!(stream, "{head}Content-Length: 2\r\n\r\n{{}}").unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    let certificate = stream.conn.peer_certificates().unwrap()[0].clone().into_owned();
    (certificate, String::from_utf8_lossy(&status[9..]).into_owned())
}

#[test]
fn a_hangup_reads_keys_and_certificates_again_and_keeps_what_is_good() {
    let (first, second) = (certificate(), certificate());
    let (folder, config) = configured("");
    let files = Files { folder: folder.path(), config: &config };
    files.config("first-key", "");
    files.certificate(&first);
    let (mut server, port) = Running::serving(tidings(&["serve", "-c", config.to_str().unwrap()]));
    let seen = |key| seen(port, &[&first, &second], key);
    assert_eq!(seen("first-key"), (first.der.clone(), "200".to_owned()));

    files.config("second-key", "");
    files.certificate(&second);
    server.signal("-HUP");
    let line = server.says("SIGHUP");
    assert!(line.contains("INFO") && line.contains("reloaded"), "{line}");
    assert_eq!(seen("second-key"), (second.der.clone(), "200".to_owned()));
    assert_eq!(seen("first-key").1, "401");

    // Mistakes: all of it holds on, and each is named.
    files.config("third-key", "[client]\nping_interval = \"often\"\n");
    server.signal("-HUP");
    let lines = server.says_until("SIGHUP").join("\n");
    assert!(lines.contains("client.ping_interval") && lines.contains("WARN"), "{lines}");
    assert_eq!(seen("second-key"), (second.der.clone(), "200".to_owned()));
    assert_eq!(seen("third-key").1, "401");

    // No configuration at all any more.
    std::fs::remove_file(&config).unwrap();
    server.signal("-HUP");
    let lines = server.says_until("SIGHUP").join("\n");
    assert!(lines.contains("tidings.toml") && lines.contains("WARN"), "{lines}");
    assert_eq!(seen("second-key").1, "200");

    // A certificate that cannot be used, beside a configuration that can.
    files.config("third-key", "");
    std::fs::write(folder.path().join("cert.pem"), "no certificate").unwrap();
    server.signal("-HUP");
    let lines = server.says_until("SIGHUP").join("\n");
    assert!(lines.contains("cert.pem") && lines.contains("ERROR"), "{lines}");
    assert_eq!(seen("third-key"), (second.der.clone(), "200".to_owned()));

    files.certificate(&first);
    server.signal("-HUP");
    server.says("SIGHUP");
    assert_eq!(seen("third-key"), (first.der.clone(), "200".to_owned()));
    server.signal("-TERM");
    let status = server.exit();
    let words = server.last_words();
    assert!(status.code() == Some(0) && !words.contains("panicked"), "{words}");
}
