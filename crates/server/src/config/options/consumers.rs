//! Options of consumers.

use std::time::Duration;

use crate::config::kind::{Secret, one_of};
use crate::config::schema::{ListItem, section};

use super::nats_consumers::JetStreamConsumerSection;
use super::postgresql_consumers::{CaptureSection, OutboxSection};

section! {
    /// One of `consumers`.
    ConsumerSection titled "Consumers: `consumers[]`" {
        name: String = "", "Name of the consumer in logs and metrics, of letters, digits and underscores.";
        enabled: bool = false, "Run this consumer.";
        r#type: ConsumerType = "", "Where messages come from: kafka, postgresql (an outbox), postgresql_cdc (changes of tables) or nats_jetstream. Each type has a section of its name.";
        kafka: KafkaSection;
        postgresql: OutboxSection;
        postgresql_cdc: CaptureSection;
        nats_jetstream: JetStreamConsumerSection;
    }
}

impl ListItem for ConsumerSection {
    const EXPECTED_LIST: &'static str =
        "a list of consumers with a name each, such as [{\"name\": \"orders\"}]";
    const EXPECTED_ITEM: &'static str = "a consumer with a name and options";
    const EXAMPLE: &'static str =
        "Messages of topics of Kafka are commands of the server API; see docs/consumers.md.
name = \"orders\"
enabled = false
type = \"kafka\"
kafka = { brokers = [\"kafka:9092\"], topics = [\"orders\"], consumer_group = \"push\" }";
}

/// Where the messages of a consumer come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsumerType {
    Missing,
    Kafka,
    Postgresql,
    PostgresqlCdc,
    NatsJetStream,
    /// A type of the compatible server that is not supported.
    Unsupported(&'static str),
}

one_of!(ConsumerType {
    "" => ConsumerType::Missing,
    "kafka" => ConsumerType::Kafka,
    "postgresql" => ConsumerType::Postgresql,
    "postgresql_cdc" => ConsumerType::PostgresqlCdc,
    "nats_jetstream" => ConsumerType::NatsJetStream,
    "redis_stream" => ConsumerType::Unsupported("redis_stream"),
    "google_pub_sub" => ConsumerType::Unsupported("google_pub_sub"),
    "aws_sqs" => ConsumerType::Unsupported("aws_sqs"),
    "azure_service_bus" => ConsumerType::Unsupported("azure_service_bus"),
});

section! {
    /// `consumers[].kafka`.
    KafkaSection titled "Kafka: `consumers[].kafka`" {
        brokers: Vec<String> = [], "Addresses (host:port) of Kafka brokers to connect to first.";
        topics: Vec<String> = [], "Topics to consume.";
        consumer_group: String = "", "Consumer group whose members share the partitions. All nodes of one installation need the same.";
        instance_id: String = "", "Stable name of this node in the group (static membership), such as the name of its pod. With it, a restart causes no rebalance, and the partitions of a stopped node wait for its return. Empty hands them over at once.";
        max_poll_records: u32 = 100, "Number of records that are taken over at once.";
        fetch_max_bytes: u32 = 0, "Maximum bytes of one response of a broker. 0 means 16 MiB.";
        fetch_max_wait: Duration = "500ms", "Time that a broker waits for records before it answers without any.";
        fetch_read_uncommitted: bool = false, "Read records of transactions that are not committed.";
        partition_queue_max_size: u32 = 1000, "Number of records of one partition in memory above which the partition is paused. It is also paused above 8 MiB.";
        dial_timeout: Duration = "3s", "Timeout for a connection to a broker.";
        sasl_mechanism: SaslMechanism = "", "How to authenticate: plain, scram-sha-256 or scram-sha-512. Empty does not authenticate.";
        sasl_user: String = "", "User to authenticate as.";
        sasl_password: Secret = "", "Password of the user.";
        method_header: String = "centrifugo-method", "Header that names the method of the server API. If a record has it, its value is the payload of the method; otherwise the value is an object with method and payload.";
        dead_letter_topic: String = "", "Topic to which records are written that can never be handled. Empty drops them; they are logged and counted in any case.";
        tls: KafkaTlsSection;
        publication_data_mode: KafkaPublicationSection;
        change_events: ChangeEventsSection;
    }
}

/// How to authenticate to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SaslMechanism {
    None,
    Plain,
    ScramSha256,
    ScramSha512,
    Unsupported,
}

one_of!(SaslMechanism {
    "" => SaslMechanism::None,
    "plain" => SaslMechanism::Plain,
    "scram-sha-256" => SaslMechanism::ScramSha256,
    "scram-sha-512" => SaslMechanism::ScramSha512,
    "aws-msk-iam" => SaslMechanism::Unsupported,
});

section! {
    /// `consumers[].kafka.tls`.
    KafkaTlsSection {
        enabled: bool = false, "Use TLS for connections to Kafka.";
        server_ca_pem: String = "", "CA certificates that are trusted instead of the public ones: PEM, PEM in base64, or the path of a PEM file.";
        server_name: String = "", "Host name that the certificates of the brokers must have. Empty means the host of each address.";
        cert_pem: String = "", "Certificate chain that this node presents to Kafka: PEM, PEM in base64, or the path of a PEM file. Empty presents none.";
        key_pem: Secret = "", "Private key of that certificate: PEM, PEM in base64, or the path of a PEM file.";
    }
}

section! {
    /// `consumers[].kafka.publication_data_mode`.
    KafkaPublicationSection {
        enabled: bool = false, "Publish the value of each record to the channels that a header names, instead of reading a method from the record.";
        channels_header: String = "centrifugo-channels", "Header with the channels, separated by commas.";
        idempotency_key_header: String = "centrifugo-idempotency-key", "Header with the idempotency key of the publication.";
        delta_header: String = "centrifugo-delta", "Header that asks for delta compression; accepted without effect.";
        version_header: String = "centrifugo-version", "Header with the version of the publication.";
        version_epoch_header: String = "centrifugo-version-epoch", "Header with the epoch of the version.";
        tags_header_prefix: String = "centrifugo-tag-", "Prefix of headers that become tags of the publication.";
    }
}

section! {
    /// `consumers[].kafka.change_events`.
    ChangeEventsSection {
        enabled: bool = false, "Read records as change events of Debezium in JSON, and publish each changed row.";
        channel: String = "", "Channel of a changed row, such as \"db:{schema}.{table}\". {database}, {schema}, {table} and {operation} are replaced by those of the event, other names in braces by columns of the row.";
    }
}
