//! Connects to Kafka, and says what went wrong.

use krafka::Kafka;
use krafka::auth::{AuthConfig, TlsConfig};
use krafka::consumer::{
    AutoOffsetReset, Consumer, ConsumerRebalanceListener, IsolationLevel,
    PartitionAssignmentStrategy,
};
use krafka::error::{ErrorCode, KrafkaError};

use super::settings::{KafkaSaslMechanism, KafkaSettings, KafkaTls};
use crate::error::ConsumerError;
use crate::limits::{
    KAFKA_BUFFERED_RECORDS, KAFKA_IDLE_POLL, KAFKA_REBALANCE_TIMEOUT, KAFKA_REQUEST_TIMEOUT,
};

const CLIENT_ID: &str = "tidings";

/// Connects, and checks that all topics exist.
pub(super) async fn connect(settings: &KafkaSettings) -> Result<Kafka, ConsumerError> {
    let brokers = settings.brokers.join(",");
    let builder = Kafka::builder(&brokers)
        .client_id(CLIENT_ID)
        .connect_timeout(settings.dial_timeout)
        .request_timeout(KAFKA_REQUEST_TIMEOUT)
        .allow_auto_create_topics(false)
        .security(security(settings));
    let kafka = builder.connect().await.map_err(|error| failure(settings, &error))?;
    let probe = kafka.consumer_without_group().build().await;
    let probe = probe.map_err(|error| failure(settings, &error))?;
    let dead_letters = Some(&settings.dead_letter_topic).filter(|topic| !topic.is_empty());
    for topic in settings.topics.iter().chain(dead_letters) {
        match probe.fetch_metadata(Some(topic)).await {
            Ok(found) if found.topics.iter().any(|known| known.name == *topic) => {}
            Ok(_) => return Err(missing(topic)),
            Err(KrafkaError::UnknownTopic { .. }) => return Err(missing(topic)),
            Err(error) => return Err(failure(settings, &error)),
        }
    }
    let _closed = probe.close().await;
    Ok(kafka)
}

/// Makes the member of the group.
pub(super) async fn member(
    kafka: &Kafka,
    settings: &KafkaSettings,
    listener: impl ConsumerRebalanceListener + 'static,
) -> Result<Consumer, ConsumerError> {
    let isolation = match settings.fetch_read_uncommitted {
        true => IsolationLevel::ReadUncommitted,
        false => IsolationLevel::ReadCommitted,
    };
    let mut builder = kafka
        .consumer(&settings.consumer_group)
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .enable_auto_commit(false)
        .partition_assignment_strategy(PartitionAssignmentStrategy::CooperativeSticky)
        .isolation_level(isolation)
        .session_timeout(settings.session_timeout)
        .heartbeat_interval(settings.session_timeout / 4)
        .max_poll_interval(KAFKA_REBALANCE_TIMEOUT)
        .max_poll_records(settings.max_poll_records as i32)
        .max_buffered_records(KAFKA_BUFFERED_RECORDS)
        .fetch_max_bytes(i32::try_from(settings.fetch_max_bytes).unwrap_or(i32::MAX))
        .fetch_max_wait(settings.fetch_max_wait)
        .idle_poll_backoff(KAFKA_IDLE_POLL)
        .rebalance_listener(listener);
    if !settings.instance_id.is_empty() {
        builder = builder.group_instance_id(&settings.instance_id);
    }
    let consumer = builder.build().await.map_err(|error| failure(settings, &error))?;
    let subscribed = consumer.subscribe(settings.topics.iter().map(String::as_str)).await;
    subscribed.map_err(|error| failure(settings, &error))?;
    Ok(consumer)
}

fn security(settings: &KafkaSettings) -> AuthConfig {
    let config = match &settings.sasl {
        None => match &settings.tls {
            Some(tls) => return AuthConfig::ssl(tls_config(tls)),
            None => return AuthConfig::plaintext(),
        },
        Some(sasl) => {
            let (user, password) = (sasl.user.as_str(), sasl.password.as_str());
            match sasl.mechanism {
                KafkaSaslMechanism::Plain => AuthConfig::sasl_plain(user, password),
                KafkaSaslMechanism::ScramSha256 => AuthConfig::sasl_scram_sha256(user, password),
                KafkaSaslMechanism::ScramSha512 => AuthConfig::sasl_scram_sha512(user, password),
            }
        }
    };
    match &settings.tls {
        Some(tls) => config.with_tls(tls_config(tls)),
        None => config,
    }
}

fn tls_config(tls: &KafkaTls) -> TlsConfig {
    let mut config = TlsConfig::new();
    if !tls.server_ca_pem.is_empty() {
        config = config.with_ca_cert_pem(tls.server_ca_pem.as_bytes());
    }
    if !tls.cert_pem.is_empty() {
        config =
            config.with_client_cert_pem(tls.cert_pem.as_bytes(), tls.key_pem.clone().into_bytes());
    }
    match tls.server_name.as_str() {
        "" => config,
        name => config.with_sni_hostname(name),
    }
}

/// What an error of the library means for the operator.
pub(super) fn failure(settings: &KafkaSettings, error: &KrafkaError) -> ConsumerError {
    let source_name = format!("Kafka at {}", settings.brokers.join(","));
    let reason = error.to_string();
    match error {
        KrafkaError::UnknownTopic { topic } => missing(topic),
        KrafkaError::Config { .. } => ConsumerError::Settings { reason },
        KrafkaError::Auth { .. } => ConsumerError::Unauthorized { source_name, reason },
        KrafkaError::Broker { code, .. } if is_denied(*code) => {
            ConsumerError::Unauthorized { source_name, reason }
        }
        _ => ConsumerError::Unavailable { source_name, reason },
    }
}

fn is_denied(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::SaslAuthenticationFailed
            | ErrorCode::TopicAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed
    )
}

fn missing(topic: &str) -> ConsumerError {
    ConsumerError::Missing { missing: format!("Kafka topic {topic:?}") }
}
