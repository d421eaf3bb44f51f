//! The streams of an installation: created when they are missing, and enlarged, but never reduced.
//!
//! Invariant: a stream of another application is not changed, and nodes create a stream one after
//! the other: servers before 2.10 that receive two requests at the same time may create two streams
//! of one name, and store messages in one of them and read from the other.

use std::time::Duration;

use engine::broker::BrokerEvent;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::jetstream::{JetStreamError, NO_STREAM, nanoseconds};
use super::link::NatsLink;
use super::options::{JetStreamOptions, NatsError};
use super::store_check;
use crate::limits::{LIFECYCLE_TTL_MS, TRIM_EVERY};

/// Creates missing streams, after `delay`, and enlarges existing ones.
pub(super) async fn ensure_streams(
    link: &NatsLink,
    options: &JetStreamOptions,
    delay: Duration,
) -> Result<(), NatsError> {
    let prefix = &link.names.prefix;
    // The newest message of a channel holds its offset and epoch, so that messages are kept as long
    // as these.
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
    // The newest generation has no maximum age.
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
    let mut delay = Some(delay);
    for wanted in [generation, history, presence, events, revocations] {
        ensure_stream(link, wanted, &mut delay).await?;
    }
    Ok(())
}

/// Creates or enlarges one stream. `delay` is taken by the first missing stream: in that time
/// another node may create it.
async fn ensure_stream(
    link: &NatsLink,
    mut wanted: Value,
    delay: &mut Option<Duration>,
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
        && let Some(delay) = delay.take()
    {
        tokio::time::sleep(delay).await;
        found = link.api(&format!("STREAM.INFO.{stream}"), &json!({})).await;
    }
    let found = match found {
        Ok(found) => found,
        Err(JetStreamError::Refused { code: NO_STREAM, .. }) => {
            return match link.api(&format!("STREAM.CREATE.{stream}"), &wanted).await {
                Ok(_) => {
                    info!(%stream, "NATS: stream created");
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
    // Nodes with other namespaces may share the stream: limits are only raised.
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

/// Checks that a history stream that this node has just created returns what it stores. A stream
/// that two nodes have created at the same time does not, and is removed.
async fn verify_created(link: &NatsLink, stream: &str) -> Result<(), NatsError> {
    if stream == link.names.revocation_stream() {
        // The stream may have been deleted: nodes store the revocations they hold again.
        link.shared.endpoints.notify_all(&BrokerEvent::RevocationsStale);
    }
    if stream != link.names.history_stream() {
        return Ok(());
    }
    link.set_started();
    if store_check::probe(link).await != Ok(false) {
        return Ok(());
    }
    warn!(%stream, "NATS: messages stored in a new stream cannot be read; it is created once more");
    // The next check creates it.
    let _later = link.api(&format!("STREAM.DELETE.{stream}"), &json!({})).await;
    Err(NatsError::Stream { stream: stream.to_owned(), reason: UNREADABLE.to_owned() })
}

/// Reason of [`NatsError::Stream`] for a stream that does not return what it stores.
pub(super) const UNREADABLE: &str =
    "messages stored there cannot be read, as when two clients have created it at the same time";

/// Duplicate window of the streams: longer than the lifetime of our idempotency keys.
const DUPLICATES: Duration = Duration::from_secs(330);
/// JetStream error: JetStream is not enabled.
const NOT_ENABLED: u64 = 10076;
/// JetStream error: JetStream is not enabled for the account.
const NOT_FOR_ACCOUNT: u64 = 10039;
