//! The streams in which NATS keeps what must outlive a message: made when they are missing, grown, and never shrunk.
//!
//! Invariant: a stream that is not ours is left alone.

use std::time::Duration;

use serde_json::{Value, json};
use tracing::info;

use super::jetstream::{ApiError, NO_STREAM, nanoseconds};
use super::link::Link;
use super::options::{JetStreamOptions, NatsError};
use crate::limits::{LIFECYCLE_TTL_MS, TRIM_EVERY};

pub(super) async fn ensure_streams(
    link: &Link,
    options: &JetStreamOptions,
) -> Result<(), NatsError> {
    let prefix = &link.names.prefix;
    // The newest message of a channel holds its offset and epoch, so that messages live as long as those do.
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
    let era = json!({
        "name": link.names.era_stream(),
        "subjects": [link.names.era()],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": options.replicas.max(1),
        "max_msgs_per_subject": 1,
    });
    ensure_stream(link, era).await?;
    ensure_stream(link, history).await?;
    ensure_stream(link, presence).await?;
    ensure_stream(link, events).await
}

pub(super) async fn ensure_stream(link: &Link, mut wanted: Value) -> Result<(), NatsError> {
    let stream = wanted["name"].as_str().unwrap_or_default().to_owned();
    let refused = |error: ApiError| match error {
        ApiError::Unheard | ApiError::Refused { code: NOT_ENABLED | NOT_FOR_ACCOUNT, .. } => {
            NatsError::NoJetStream
        }
        ApiError::Unavailable => NatsError::Stream {
            stream: stream.clone(),
            reason: "JetStream does not answer".to_owned(),
        },
        ApiError::Refused { text, .. } => {
            NatsError::Stream { stream: stream.clone(), reason: text }
        }
    };
    let found = match link.api(&format!("STREAM.INFO.{stream}"), &json!({})).await {
        Ok(found) => found,
        Err(ApiError::Refused { code: NO_STREAM, .. }) => {
            return match link.api(&format!("STREAM.CREATE.{stream}"), &wanted).await {
                Ok(_) => {
                    info!(%stream, "NATS: stream made");
                    Ok(())
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
        Err(ApiError::Refused { text, .. }) => Err(NatsError::Update { stream, reason: text }),
        Err(error) => Err(refused(error)),
    }
}

/// For how long JetStream remembers idempotency keys: longer than we do, so that its memory is never the shorter.
const DUPLICATES: Duration = Duration::from_secs(330);
/// JetStream: switched off.
const NOT_ENABLED: u64 = 10076;
/// JetStream: not for this account.
const NOT_FOR_ACCOUNT: u64 = 10039;
