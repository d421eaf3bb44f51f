//! The streams in which NATS keeps what must outlive a message: made when they are missing, grown,
//! and never shrunk.
//!
//! Invariant: a stream that is not ours is left alone, and nodes take turns to make one: servers
//! before 2.10 that are asked twice at the same time may end with two streams under one name, of
//! which one takes what is stored and the other is read.

use std::time::Duration;

use engine::broker::BrokerEvent;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::jetstream::{JetStreamError, NO_STREAM, nanoseconds};
use super::link::NatsLink;
use super::options::{JetStreamOptions, NatsError};
use crate::limits::{LIFECYCLE_TTL_MS, TRIM_EVERY};

pub(super) async fn ensure_streams(
    link: &NatsLink,
    options: &JetStreamOptions,
    turn: Duration,
) -> Result<(), NatsError> {
    let prefix = &link.names.prefix;
    // The newest message of a channel holds its offset and epoch, so that messages live as long as
    // those do.
    let max_age_ms = options.kept_ms_max.max(2 * DUPLICATES.as_secs() * 1000);
    let per_channel = 2 * u64::from(options.history_size_max) + 4 * TRIM_EVERY;
    let history = json!({
        "name": link.names.history_stream(),
        "subjects": [format!("{prefix}.stream.*")],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": options.replicas.max(1),
        "max_age": nanoseconds(Duration::from_millis(max_age_ms)),
        "max_msgs_per_subject": per_channel,
        "duplicate_window": nanoseconds(DUPLICATES),
        "republish": {
            "src": format!("{prefix}.stream.*"),
            "dest": format!("{prefix}.channel.{{{{wildcard(1)}}}}"),
        },
    });
    let presence = json!({
        "name": link.names.presence_stream(),
        "subjects": [format!("{prefix}.presence.>"), format!("{prefix}.lease.*")],
        "retention": "limits",
        "discard": "old",
        "storage": "memory",
        "num_replicas": options.replicas.max(1),
        "max_msgs_per_subject": 1,
    });
    let events = json!({
        "name": link.names.events_stream(),
        "subjects": [link.names.events()],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": options.replicas.max(1),
        "max_age": nanoseconds(Duration::from_millis(LIFECYCLE_TTL_MS)),
        "max_msgs": options.events_max,
        "duplicate_window": nanoseconds(DUPLICATES),
    });
    // The last of them holds as long as the streams do.
    let generation = json!({
        "name": link.names.generation_stream(),
        "subjects": [link.names.generation()],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": options.replicas.max(1),
        "max_msgs_per_subject": 1,
    });
    let revocations = json!({
        "name": link.names.revocation_stream(),
        "subjects": [link.names.revocation("*")],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": options.replicas.max(1),
        "max_msgs_per_subject": 1,
    });
    let mut turn = Some(turn);
    for wanted in [generation, history, presence, events, revocations] {
        ensure_stream(link, wanted, &mut turn).await?;
    }
    Ok(())
}

/// `turn` is how long this node leaves it to others to make streams, and is taken by the first that
/// is missing.
async fn ensure_stream(
    link: &NatsLink,
    mut wanted: Value,
    turn: &mut Option<Duration>,
) -> Result<(), NatsError> {
    let stream = wanted["name"].as_str().unwrap_or_default().to_owned();
    let refused = |error: JetStreamError| match error {
        JetStreamError::NoResponders
        | JetStreamError::Refused { code: NOT_ENABLED | NOT_FOR_ACCOUNT, .. } => {
            NatsError::NoJetStream
        }
        JetStreamError::Unavailable => NatsError::Stream {
            stream: stream.clone(),
            reason: "JetStream does not answer".to_owned(),
        },
        JetStreamError::Refused { text, .. } => {
            NatsError::Stream { stream: stream.clone(), reason: text }
        }
    };
    let mut found = link.api(&format!("STREAM.INFO.{stream}"), &json!({})).await;
    if matches!(found, Err(JetStreamError::Refused { code: NO_STREAM, .. }))
        && let Some(turn) = turn.take()
    {
        tokio::time::sleep(turn).await;
        found = link.api(&format!("STREAM.INFO.{stream}"), &json!({})).await;
    }
    let found = match found {
        Ok(found) => found,
        Err(JetStreamError::Refused { code: NO_STREAM, .. }) => {
            return match link.api(&format!("STREAM.CREATE.{stream}"), &wanted).await {
                Ok(_) => {
                    info!(%stream, "NATS: stream made");
                    verify_created(link, &stream).await
                }
                Err(error) => Err(refused(error)),
            };
        }
        Err(error) => return Err(refused(error)),
    };
    let found = &found["config"];
    if found["subjects"] != wanted["subjects"] || found["republish"] != wanted["republish"] {
        return Err(NatsError::ForeignStream { stream });
    }
    // Nodes with other namespaces may share it: it only grows.
    let mut grows = false;
    for key in ["max_age", "max_msgs_per_subject", "num_replicas"] {
        let (is, wants) = (found[key].as_u64().unwrap_or(0), wanted[key].as_u64().unwrap_or(0));
        grows |= is < wants;
        if wants > 0 {
            wanted[key] = is.max(wants).into();
        }
    }
    if !grows {
        return Ok(());
    }
    match link.api(&format!("STREAM.UPDATE.{stream}"), &wanted).await {
        Ok(_) => Ok(()),
        Err(JetStreamError::Refused { text, .. }) => {
            Err(NatsError::Update { stream, reason: text })
        }
        Err(error) => Err(refused(error)),
    }
}

/// Whether what is stored in a history that this node has just made can be read. One that two nodes
/// have made at the same time is removed again: nobody could read what is in it.
async fn verify_created(link: &NatsLink, stream: &str) -> Result<(), NatsError> {
    if stream == link.names.revocation_stream() {
        // It may have been deleted: nodes store again what they know.
        link.shared.endpoints.notify_all(&BrokerEvent::RevocationsStale);
    }
    if stream != link.names.history_stream() {
        return Ok(());
    }
    link.generations.handle_made();
    if link.probe().await != Ok(false) {
        return Ok(());
    }
    warn!(%stream, "NATS: what is stored in a new stream cannot be read; it is made once more");
    // Whoever looks next makes it.
    let _later = link.api(&format!("STREAM.DELETE.{stream}"), &json!({})).await;
    Err(NatsError::Stream { stream: stream.to_owned(), reason: UNREADABLE.to_owned() })
}

/// Why a stream is of no use.
pub(super) const UNREADABLE: &str =
    "what is stored there cannot be read, as when two clients have made it at the same time";

/// For how long JetStream remembers idempotency keys: longer than we do, so that its memory is
/// never the shorter.
const DUPLICATES: Duration = Duration::from_secs(330);
/// JetStream: switched off.
const NOT_ENABLED: u64 = 10076;
/// JetStream: not for this account.
const NOT_FOR_ACCOUNT: u64 = 10039;
