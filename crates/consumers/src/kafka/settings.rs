//! Settings of a Kafka consumer.
//!
//! Invariant: `Debug` prints no credentials.

use std::fmt;
use std::time::Duration;

use crate::debezium::ChangeEvents;
use crate::decode::RecordForm;

/// Settings of a Kafka consumer.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Addresses (`host:port`) of brokers to ask first.
    pub brokers: Vec<String>,
    /// Topics to read.
    pub topics: Vec<String>,
    /// Group whose members share the partitions.
    pub consumer_group: String,
    /// Name of this member, with which a restarted process takes its partitions back; empty for
    /// none.
    pub instance_id: String,
    /// Time after which a member that is gone loses its partitions.
    pub session_timeout: Duration,
    /// Records that are taken over at once.
    pub max_poll_records: u32,
    /// Bytes of one response of a broker.
    pub fetch_max_bytes: u32,
    /// Time that a broker waits for records.
    pub fetch_max_wait: Duration,
    /// Whether records of open transactions are read.
    pub fetch_read_uncommitted: bool,
    /// Records of one partition in memory above which the partition is paused.
    pub partition_queue_max_size: usize,
    /// Timeout for a connection to a broker.
    pub dial_timeout: Duration,
    /// Credentials; `None` uses none.
    pub sasl: Option<KafkaSasl>,
    /// TLS; `None` uses none.
    pub tls: Option<KafkaTls>,
    /// How records are written.
    pub form: KafkaForm,
    /// Topic for records that can never be handled; empty drops them.
    pub dead_letter_topic: String,
}

/// How the records of topics are written.
#[derive(Clone, Debug)]
pub enum KafkaForm {
    /// As commands or publications.
    Records(RecordForm),
    /// As events of Debezium.
    ChangeEvents(ChangeEvents),
}

/// Credentials for SASL.
#[derive(Clone)]
pub struct KafkaSasl {
    /// SASL mechanism.
    pub mechanism: KafkaSaslMechanism,
    /// Name of the user.
    pub user: String,
    /// Password of the user.
    pub password: String,
}

/// SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaSaslMechanism {
    /// PLAIN: sent unencrypted, so that TLS is required outside of private networks.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

/// TLS of connections to brokers. All certificates and keys are PEM.
#[derive(Clone, Default)]
pub struct KafkaTls {
    /// CA certificates that are trusted instead of the public ones; empty for these.
    pub server_ca_pem: String,
    /// Name that the certificate of the broker must have; empty for the host.
    pub server_name: String,
    /// Certificate chain of this client; empty for none.
    pub cert_pem: String,
    /// Private key of that certificate.
    pub key_pem: String,
}

impl fmt::Debug for KafkaSasl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KafkaSasl")
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KafkaTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_certificate = !self.cert_pem.is_empty();
        formatter
            .debug_struct("KafkaTls")
            .field("server_name", &self.server_name)
            .field("has_certificate", &has_certificate)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_printed() {
        let (user, password) = ("alice".to_owned(), "hidden".to_owned());
        let sasl = KafkaSasl { mechanism: KafkaSaslMechanism::Plain, user, password };
        let tls = KafkaTls { key_pem: "hidden".to_owned(), ..KafkaTls::default() };
        assert!(!format!("{sasl:?} {tls:?}").contains("hidden"));
    }
}
