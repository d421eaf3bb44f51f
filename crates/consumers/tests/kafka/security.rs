//! Credentials, TLS, topics that are missing, and a broker that is away.

use consumers::kafka::{KafkaSasl, KafkaSaslMechanism, KafkaSettings, KafkaTls};

use crate::broker::{Broker, command, shared};
use crate::recorder::{Member, Recorder};

fn sasl(mechanism: KafkaSaslMechanism, password: &str) -> Option<KafkaSasl> {
    Some(KafkaSasl { mechanism, user: "alice".to_owned(), password: password.to_owned() })
}

/// Settings of a member of a group of its own behind this port.
fn at(broker: &Broker, port: u16, group: &str) -> KafkaSettings {
    KafkaSettings {
        brokers: vec![format!("localhost:{port}")],
        consumer_group: group.to_owned(),
        ..broker.settings("secure")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mechanism_authenticates_also_over_tls() {
    let broker = shared();
    let producer = broker.topics(&[("secure", 1)]).await;
    let _sent = producer.send(command("secure", 0, "a", "1")).await.unwrap();
    let tls = KafkaTls { server_ca_pem: broker.certificate.clone(), ..KafkaTls::default() };
    for (group, mechanism, tls) in [
        ("plain", KafkaSaslMechanism::Plain, None),
        ("scram256", KafkaSaslMechanism::ScramSha256, None),
        ("scram512", KafkaSaslMechanism::ScramSha512, Some(tls)),
    ] {
        let port = if tls.is_some() { broker.tls_port } else { broker.sasl_port };
        let settings = KafkaSettings {
            sasl: sasl(mechanism, "alice-password"),
            tls,
            ..at(broker, port, group)
        };
        let recorder = Recorder::new();
        let member = Member::start(&settings, &recorder);
        assert_eq!(recorder.wait_for(1).await, ["1"], "{group}");
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_counted_and_tried_again() {
    let broker = shared();
    broker.topics(&[("secure_wrong", 1)]).await;
    let wrong = sasl(KafkaSaslMechanism::ScramSha512, "wrong");
    let untrusted = Some(KafkaTls::default());
    let good = sasl(KafkaSaslMechanism::Plain, "alice-password");
    let mut nowhere = broker.settings("secure_wrong");
    nowhere.brokers = vec!["127.0.0.1:1".to_owned()];
    for (what, settings) in [
        ("wrong password", KafkaSettings { sasl: wrong, ..at(broker, broker.sasl_port, "w") }),
        (
            "untrusted certificate",
            KafkaSettings { sasl: good, tls: untrusted, ..at(broker, broker.tls_port, "w") },
        ),
        ("no such topic", broker.settings("nobody_created_this")),
        ("nothing listens", nowhere),
    ] {
        let member = Member::start(&settings, &Recorder::new());
        member.until(what, |counters| counters.snapshot().failures >= 2).await;
        assert!(!member.counters.snapshot().is_connected, "{what}");
        member.stop().await;
    }
}
