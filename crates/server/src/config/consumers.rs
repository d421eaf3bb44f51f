//! Resolves the options of consumers.
//!
//! Invariant: names of consumers are unique, also those of consumers that are not enabled.

use std::collections::BTreeSet;
use std::time::Duration;

use ::consumers::debezium::ChangeEvents;
use ::consumers::decode::{PublicationHeaders, RecordForm};
use ::consumers::kafka::{KafkaForm, KafkaSasl, KafkaSaslMechanism, KafkaSettings, KafkaTls};
use ::consumers::limits::{KAFKA_FETCH_BYTES, KAFKA_SESSION_TIMEOUT};

use ::consumers::nats_jetstream::NatsConsumerSettings;
use ::consumers::postgresql::capture_settings::CaptureSettings;
use ::consumers::postgresql::outbox_settings::OutboxSettings;

use super::coerce::shown;
use super::engine::pem;
use super::mistakes::KeyedMistakes;
use super::nats_consumers::resolve_jetstream;
use super::options::consumers::{
    ConsumerSection, ConsumerType, KafkaPublicationSection, KafkaSection, KafkaTlsSection,
    SaslMechanism,
};
use super::postgresql_consumers::{resolve_capture, resolve_outbox};
use super::schema::Setting;

/// A consumer to run.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Name in logs and metrics.
    pub name: String,
    /// Where its messages come from.
    pub source: ConsumerSource,
}

/// Where the messages of a consumer come from.
#[derive(Clone, Debug)]
pub enum ConsumerSource {
    /// Topics of Kafka.
    Kafka(Box<KafkaSettings>),
    /// An outbox in PostgreSQL.
    Outbox(Box<OutboxSettings>),
    /// Changes of tables of PostgreSQL.
    Capture(Box<CaptureSettings>),
    /// A stream of NATS JetStream.
    JetStream(Box<NatsConsumerSettings>),
}

/// Checks a name that stands in logs and metrics; `names` are those before it.
pub(super) fn check_task_name<'s>(
    name: &'s Setting<String>,
    plural: &str,
    names: &mut BTreeSet<&'s str>,
    mistakes: &mut KeyedMistakes,
) {
    let is_name = name.len() >= 2 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_name {
        let text = match name.as_str() {
            "" => "is required: it stands in logs and metrics".to_owned(),
            name => format!(
                "expected at least two letters, digits or underscores, not {}",
                shown(&name.into())
            ),
        };
        mistakes.push(name.fault(text));
    } else if !names.insert(name.as_str()) {
        let text = format!("{:?} is used twice: rename one of the {plural}", **name);
        mistakes.push(name.fault(text));
    }
}

/// Resolves all consumers; those that are not enabled are left out.
pub(super) fn resolve_consumers(
    sections: &[ConsumerSection],
    mistakes: &mut KeyedMistakes,
) -> Vec<ConsumerConfig> {
    let mut names = BTreeSet::new();
    let mut consumers = Vec::new();
    for section in sections {
        check_task_name(&section.name, "consumers", &mut names, mistakes);
        if !*section.enabled {
            continue;
        }
        let source = match *section.r#type {
            ConsumerType::Kafka => {
                ConsumerSource::Kafka(Box::new(resolve_kafka(&section.kafka, mistakes)))
            }
            ConsumerType::Postgresql => {
                let Some(settings) = resolve_outbox(&section.postgresql, mistakes) else {
                    continue;
                };
                ConsumerSource::Outbox(Box::new(settings))
            }
            ConsumerType::PostgresqlCdc => {
                let Some(settings) = resolve_capture(&section.postgresql_cdc, mistakes) else {
                    continue;
                };
                ConsumerSource::Capture(Box::new(settings))
            }
            ConsumerType::NatsJetStream => {
                let settings = resolve_jetstream(&section.nats_jetstream, mistakes);
                ConsumerSource::JetStream(Box::new(settings))
            }
            ConsumerType::Missing => {
                mistakes.push(section.r#type.fault("is required, such as \"kafka\""));
                continue;
            }
            ConsumerType::Unsupported(named) => {
                let text = format!(
                    "{named}: consumers of this type are not supported yet; switch it off (publish through the server API)"
                );
                mistakes.push(section.r#type.fault(text));
                continue;
            }
        };
        consumers.push(ConsumerConfig { name: section.name.to_string(), source });
    }
    consumers
}

fn resolve_kafka(kafka: &KafkaSection, mistakes: &mut KeyedMistakes) -> KafkaSettings {
    if kafka.brokers.is_empty() {
        mistakes.push(kafka.brokers.fault("is required, such as [\"kafka:9092\"]"));
    }
    if kafka.topics.is_empty() {
        mistakes.push(kafka.topics.fault("is required: the topics to consume"));
    }
    if kafka.consumer_group.is_empty() {
        mistakes
            .push(kafka.consumer_group.fault("is required: nodes of one group share the topics"));
    }
    if kafka.topics.contains(&*kafka.dead_letter_topic) {
        let text = "is one of the topics: dead letters would be consumed again";
        mistakes.push(kafka.dead_letter_topic.fault(text));
    }
    KafkaSettings {
        brokers: kafka.brokers.clone(),
        topics: kafka.topics.clone(),
        consumer_group: kafka.consumer_group.clone(),
        instance_id: kafka.instance_id.clone(),
        session_timeout: KAFKA_SESSION_TIMEOUT,
        max_poll_records: or(&kafka.max_poll_records, 100),
        fetch_max_bytes: or(&kafka.fetch_max_bytes, KAFKA_FETCH_BYTES),
        fetch_max_wait: match *kafka.fetch_max_wait {
            Duration::ZERO => Duration::from_millis(500),
            wait => wait,
        },
        fetch_read_uncommitted: *kafka.fetch_read_uncommitted,
        partition_queue_max_size: or(&kafka.partition_queue_max_size, 1_000) as usize,
        dial_timeout: match *kafka.dial_timeout {
            Duration::ZERO => Duration::from_secs(3),
            timeout => timeout,
        },
        sasl: resolve_sasl(kafka, mistakes),
        tls: kafka.tls.enabled.then(|| resolve_tls(&kafka.tls, mistakes)),
        form: resolve_form(kafka, mistakes),
        dead_letter_topic: kafka.dead_letter_topic.clone(),
    }
}

/// The value of a setting of which 0 means the default.
fn or(setting: &Setting<u32>, default: u32) -> u32 {
    match **setting {
        0 => default,
        value => value,
    }
}

fn resolve_sasl(kafka: &KafkaSection, mistakes: &mut KeyedMistakes) -> Option<KafkaSasl> {
    let mechanism = match *kafka.sasl_mechanism {
        SaslMechanism::None => {
            if !kafka.sasl_user.is_empty() {
                let text = "has no effect without sasl_mechanism: name plain, scram-sha-256 or scram-sha-512";
                mistakes.push(kafka.sasl_user.fault(text));
            }
            return None;
        }
        SaslMechanism::Plain => KafkaSaslMechanism::Plain,
        SaslMechanism::ScramSha256 => KafkaSaslMechanism::ScramSha256,
        SaslMechanism::ScramSha512 => KafkaSaslMechanism::ScramSha512,
        SaslMechanism::Unsupported => {
            let text =
                "aws-msk-iam is not supported yet: use scram-sha-512, which MSK also supports";
            mistakes.push(kafka.sasl_mechanism.fault(text));
            return None;
        }
    };
    if kafka.sasl_user.is_empty() {
        mistakes.push(kafka.sasl_user.fault("is required with sasl_mechanism"));
    }
    let (user, password) = (kafka.sasl_user.clone(), kafka.sasl_password.to_string());
    Some(KafkaSasl { mechanism, user, password })
}

fn resolve_tls(tls: &KafkaTlsSection, mistakes: &mut KeyedMistakes) -> KafkaTls {
    if tls.cert_pem.is_empty() != tls.key_pem.is_empty() {
        mistakes.push(tls.key_pem.fault("cert_pem and key_pem belong together: set both, or none"));
    }
    KafkaTls {
        server_ca_pem: pem(&tls.server_ca_pem, mistakes).unwrap_or_default(),
        server_name: tls.server_name.clone(),
        cert_pem: pem(&tls.cert_pem, mistakes).unwrap_or_default(),
        key_pem: pem(&tls.key_pem, mistakes).unwrap_or_default(),
    }
}

fn resolve_form(kafka: &KafkaSection, mistakes: &mut KeyedMistakes) -> KafkaForm {
    let (mode, events) = (&kafka.publication_data_mode, &kafka.change_events);
    if *mode.enabled && *events.enabled {
        let text = "excludes publication_data_mode: a record has one form";
        mistakes.push(events.enabled.fault(text));
    }
    if *events.enabled {
        match events.channel.parse() {
            Ok(channel) => return KafkaForm::ChangeEvents(ChangeEvents { channel }),
            Err(fault) => mistakes.push(events.channel.fault(fault.to_string())),
        }
    }
    if *mode.enabled {
        return KafkaForm::Records(RecordForm::PublicationData(resolve_headers(mode, mistakes)));
    }
    KafkaForm::Records(RecordForm::Command { method_header: kafka.method_header.clone() })
}

fn resolve_headers(
    mode: &KafkaPublicationSection,
    mistakes: &mut KeyedMistakes,
) -> PublicationHeaders {
    if mode.channels_header.is_empty() {
        mistakes.push(mode.channels_header.fault("is required: records name their channels in it"));
    }
    PublicationHeaders {
        channels: mode.channels_header.clone(),
        idempotency_key: mode.idempotency_key_header.clone(),
        delta: mode.delta_header.clone(),
        version: mode.version_header.clone(),
        version_epoch: mode.version_epoch_header.clone(),
        tags_prefix: mode.tags_header_prefix.clone(),
    }
}
