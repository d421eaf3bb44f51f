//! Options of consumers.

use ::consumers::kafka::{KafkaForm, KafkaSaslMechanism};

use super::*;
use crate::config::ConsumerSource;

const KAFKA: &str = r#"
[[consumers]]
name = "orders"
enabled = true
type = "kafka"
[consumers.kafka]
brokers = ["kafka:9092"]
topics = ["orders"]
consumer_group = "push"
sasl_mechanism = "scram-sha-512"
sasl_user = "alice"
sasl_password = "hidden-password"
[consumers.kafka.change_events]
enabled = true
channel = "db:{table}"
[[consumers]]
name = "off"
type = "redis_stream"
"#;

#[test]
fn a_kafka_consumer_has_the_defaults_of_the_compatible_server() {
    let (config, warnings) = load_text(".toml", KAFKA).unwrap_or_else(|error| panic!("{error}"));
    assert!(warnings.iter().all(|one| !one.key.starts_with("consumers")), "{warnings:?}");
    let [consumer] = &config.consumers[..] else { panic!("one is enabled") };
    let ConsumerSource::Kafka(kafka) = &consumer.source;
    assert_eq!((&*consumer.name, &*kafka.consumer_group), ("orders", "push"));
    assert_eq!((kafka.max_poll_records, kafka.partition_queue_max_size), (100, 1_000));
    assert_eq!(kafka.sasl.as_ref().unwrap().mechanism, KafkaSaslMechanism::ScramSha512);
    assert!(matches!(kafka.form, KafkaForm::ChangeEvents(_)));
    assert!(!format!("{config:?}").contains("hidden-password"));
}

#[test]
fn mistakes_of_consumers_name_their_keys() {
    let text = r#"{"consumers": [
        {"name": "a"},
        {"name": "same"}, {"name": "same", "enabled": true},
        {"name": "both", "enabled": true, "type": "kafka", "kafka": {
            "brokers": ["k:9092"], "topics": ["t"], "dead_letter_topic": "t",
            "sasl_mechanism": "aws-msk-iam", "tls": {"enabled": true, "cert_pem": "nowhere.pem"},
            "publication_data_mode": {"enabled": true},
            "change_events": {"enabled": true, "channel": "db:{table"}}},
        {"name": "queue", "enabled": true, "type": "aws_sqs"},
        {"name": "wrong", "enabled": true, "type": "rabbitmq"}
    ]}"#;
    let mistakes = load_text(".json", text).unwrap_err();
    expect![[r""]].assert_eq(&mistakes.to_string());
}
