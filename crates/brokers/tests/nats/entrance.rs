//! Connecting to NATS: TLS, users and tokens work, and every mistake has an error message.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use brokers::nats::{NatsError, NatsOptions, NatsTls};
use tempfile::TempDir;

use crate::pair::Pair;
use crate::server::Server;
use crate::start::refusal;
use crate::world::NatsWorld;

/// Certificates for 127.0.0.1 in files.
struct Certificates(TempDir);

impl Certificates {
    fn new(names: &[&str]) -> Certificates {
        let folder = Certificates(TempDir::new().unwrap());
        for name in names {
            let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
            std::fs::write(folder.file(name, "pem"), own.cert.pem()).unwrap();
            std::fs::write(folder.file(name, "key"), own.signing_key.serialize_pem()).unwrap();
        }
        folder
    }

    fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.0.path().join(format!("{name}.{kind}"))
    }

    fn text(&self, name: &str, kind: &str) -> String {
        self.file(name, kind).to_str().unwrap().to_owned()
    }

    fn server(&self, more: &[&str]) -> Server {
        let (certificate, key) = (self.text("server", "pem"), self.text("server", "key"));
        let mut arguments = vec!["-js", "--tls", "--tlscert", &certificate, "--tlskey", &key];
        arguments.extend(more);
        Server::with(&arguments)
    }

    fn trusting(&self, name: &str) -> NatsTls {
        let server_ca_pem_file = Some(self.file(name, "pem"));
        NatsTls { enabled: true, server_ca_pem_file, client_pem_files: None }
    }
}

/// Checks that two nodes with these options deliver and store a publication, and connect again
/// after a restart of the server.
fn assert_carries(server: &mut Server, options: &NatsOptions) {
    let mut pair = Pair::of(NatsWorld::new(options, 2));
    pair.subscribe().unwrap();
    assert_eq!(pair.publish(10).unwrap().offset, 1);
    assert_eq!(pair.received_offset(), 1);
    server.kill();
    server.run();
    let restarted = Instant::now();
    assert_eq!(pair.next_position().offset, 1);
    assert!(restarted.elapsed() < Duration::from_secs(5), "{:?}", restarted.elapsed());
}

#[test]
fn tls_is_used_and_certificates_are_checked() {
    let certificates = Certificates::new(&["server", "other"]);
    let mut server = certificates.server(&[]);
    let plain = server.options();
    let trusting = NatsOptions { tls: certificates.trusting("server"), ..plain.clone() };
    assert_carries(&mut server, &trusting);
    // A `tls://` address requires TLS too.
    let tls = NatsTls { enabled: false, ..certificates.trusting("server") };
    let url = plain.url.replace("nats://", "tls://");
    drop(NatsWorld::new(&NatsOptions { url, tls, ..plain.clone() }, 1));
    for tls in [
        NatsTls { enabled: true, ..NatsTls::default() },
        certificates.trusting("other"),
        certificates.trusting("missing"),
    ] {
        let error = refusal(NatsOptions { tls, ..plain.clone() });
        assert!(matches!(error, NatsError::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains("broker.nats.tls"), "{error}");
    }
    let url = plain.url.replace("127.0.0.1", "localhost");
    let error = refusal(NatsOptions { url, ..trusting });
    assert!(matches!(error, NatsError::Tls { .. }), "the certificate is for another: {error:?}");
}

#[test]
fn a_server_without_tls_is_refused_when_tls_is_enabled() {
    let server = Server::start();
    let tls = NatsTls { enabled: true, ..NatsTls::default() };
    let error = refusal(NatsOptions { tls, ..server.options() });
    assert!(error.to_string().contains("broker.nats.tls"), "{error}");
}

#[test]
fn a_client_certificate_is_sent() {
    let certificates = Certificates::new(&["server", "client"]);
    let roots = certificates.text("client", "pem");
    let mut server = certificates.server(&["--tlsverify", "--tlscacert", &roots]);
    let without = NatsOptions { tls: certificates.trusting("server"), ..server.options() };
    let files = (certificates.file("client", "pem"), certificates.file("client", "key"));
    let mut with = without.clone();
    with.tls.client_pem_files = Some(files);
    assert_carries(&mut server, &with);
    let error = refusal(without);
    assert!(error.to_string().contains("broker.nats"), "{error}");
}

#[test]
fn a_password_with_special_characters_and_a_token_are_sent_again_after_a_restart() {
    for (arguments, login) in [
        (&["-js", "--user", "ann", "--pass", "a@b:c/%"][..], "ann:a%40b%3Ac%2F%25@"),
        (&["-js", "--auth", "s3cr=t"], "s3cr=t@"),
    ] {
        let mut server = Server::with(arguments);
        let bare = server.options();
        for wrong in ["", "ann:wrong@", "wrong@"] {
            let url = bare.url.replace("//", &format!("//{wrong}"));
            let error = refusal(NatsOptions { url, ..bare.clone() });
            assert!(matches!(error, NatsError::Credentials { .. }), "{error}");
        }
        let url = bare.url.replace("//", &format!("//{login}"));
        assert_carries(&mut server, &NatsOptions { url, ..bare });
    }
}
