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
    let ConsumerSource::Kafka(kafka) = &consumer.source else { panic!("Kafka") };
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
    expect![[r#"
        12 mistakes in the configuration:
          consumers[5].type (line 10): expected one of "", "kafka", "postgresql", "postgresql_cdc", "nats_jetstream", "redis_stream", "google_pub_sub", "aws_sqs", "azure_service_bus", not "rabbitmq"
          consumers[0].name (line 2): expected at least two letters, digits or underscores, not "a"
          consumers[2].name (line 3): "same" is used twice: rename one of the consumers
          consumers[2].type (line 3): is required, such as "kafka"
          consumers[3].kafka.consumer_group (line 4): is required: nodes of one group share the topics
          consumers[3].kafka.dead_letter_topic (line 5): is one of the topics: dead letters would be consumed again
          consumers[3].kafka.sasl_mechanism (line 6): aws-msk-iam is not supported yet: use scram-sha-512, which MSK also supports
          consumers[3].kafka.tls.key_pem (line 4): cert_pem and key_pem belong together: set both, or none
          consumers[3].kafka.tls.cert_pem (line 6): cannot be read from nowhere.pem: No such file or directory (os error 2)
          consumers[3].kafka.change_events.enabled (line 8): excludes publication_data_mode: a record has one form
          consumers[3].kafka.change_events.channel (line 8): has a brace without its other half; write {{ for the character itself
          consumers[4].type (line 9): aws_sqs: consumers of this type are not supported yet; switch it off (publish through the server API)"#]].assert_eq(&mistakes.to_string());
}

#[test]
fn consumers_of_postgresql_and_jetstream_are_resolved_without_secrets_in_sight() {
    let text = r#"{"consumers": [
        {"name": "outbox", "enabled": true, "type": "postgresql", "postgresql": {
            "dsn": "postgres://push:hidden-password@db/shop", "outbox_table_name": "app.outbox",
            "num_partitions": 4, "partition_notification_channel": "outbox_rows"}},
        {"name": "changes", "enabled": true, "type": "postgresql_cdc", "postgresql_cdc": {
            "dsn": "host=db user=push password=hidden-password", "channels": ["db:{table}:{id}"]}},
        {"name": "stream", "enabled": true, "type": "nats_jetstream", "nats_jetstream": {
            "stream_name": "orders", "durable_consumer_name": "push", "token": "hidden-password"}}
    ]}"#;
    let (config, _) = load_text(".json", text).unwrap_or_else(|error| panic!("{error}"));
    assert!(!format!("{config:?}").contains("hidden-password"));
    let [outbox, changes, stream] = &config.consumers[..] else { panic!("all are enabled") };
    let ConsumerSource::Outbox(outbox) = &outbox.source else { panic!("an outbox") };
    assert_eq!((outbox.partitions, outbox.select_limit), (4, 100));
    let ConsumerSource::Capture(changes) = &changes.source else { panic!("changes") };
    assert_eq!((&*changes.slot, changes.creates_slot), ("tidings", false));
    let ConsumerSource::JetStream(stream) = &stream.source else { panic!("JetStream") };
    assert_eq!(stream.max_ack_pending, 100);
}

#[test]
fn mistakes_of_databases_and_streams_name_their_keys() {
    let text = r#"{"consumers": [
        {"name": "outbox", "enabled": true, "type": "postgresql", "postgresql": {
            "dsn": "mysql://db", "outbox_table_name": "outbox; drop table x",
            "tls": {"enabled": true, "server_ca_pem": "nowhere.pem"}}},
        {"name": "changes", "enabled": true, "type": "postgresql_cdc", "postgresql_cdc": {
            "dsn": "postgres://db/shop", "slot_name": "My-Slot", "tables": ["a b"],
            "channels": ["{id}:x"]}},
        {"name": "stream", "enabled": true, "type": "nats_jetstream", "nats_jetstream": {
            "url": "", "stream_name": "a.b", "username": "u", "token": "t", "subjects": ["s"],
            "dead_letter_subject": "s"}}
    ]}"#;
    let mistakes = load_text(".json", text).unwrap_err();
    expect![[r#"
        12 mistakes in the configuration:
          consumers[0].postgresql.dsn (line 3): is neither postgres://user:password@host:5432/database nor "host=… user=…"
          consumers[0].postgresql.outbox_table_name (line 3): must be a table such as outbox, app.outbox or "App"."Outbox"
          consumers[0].postgresql.tls.server_ca_pem (line 4): cannot be read from nowhere.pem: No such file or directory (os error 2)
          consumers[1].postgresql_cdc.dsn (line 6): names no user
          consumers[1].postgresql_cdc.slot_name (line 6): expected up to 63 lower-case letters, digits and underscores
          consumers[1].postgresql_cdc.tables (line 6): "a b" must be a table such as outbox, app.outbox or "App"."Outbox"
          consumers[1].postgresql_cdc.channels (line 7): "{id}:x" takes its namespace from the column "id"; only schema, table, database and operation may stand before the first ":"
          consumers[2].nats_jetstream.url (line 9): expected host:port, nats://host:port or tls://host:port; several are separated by commas
          consumers[2].nats_jetstream.stream_name (line 9): must not contain spaces, ".", "*", ">" or slashes
          consumers[2].nats_jetstream.durable_consumer_name (line 8): is required
          consumers[2].nats_jetstream.dead_letter_subject (line 10): is one of the subjects: dead letters would be consumed again
          consumers[2].nats_jetstream.token (line 9): excludes username: NATS takes one of them"#]].assert_eq(&mistakes.to_string());
}
