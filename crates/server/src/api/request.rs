//! What callers send, field by field (§3.3). Fields that we do not know are ignored, as everywhere in the protocol.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::claims::Overrides;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use wire::protocol::StreamPosition;

use super::error::ApiError;

/// A JSON value as it was written, `null` included; empty when the field is absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Json(Bytes);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Json(String::from(Box::<str>::from(raw)).into()))
    }
}

/// A payload, as JSON or as bytes in base64, which wins.
pub(super) fn payload(json: &Json, base64: &str) -> Result<Bytes, ApiError> {
    if base64.is_empty() {
        return Ok(json.0.clone());
    }
    let bytes = STANDARD.decode(base64).map_err(|_| ApiError::bad("a b64 field is not base64"))?;
    Ok(bytes.into())
}

/// What publish and broadcast take.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Publish {
    pub(super) channel: String,
    /// Of broadcast, instead of `channel`.
    pub(super) channels: Vec<String>,
    pub(super) data: Json,
    pub(super) b64data: String,
    pub(super) skip_history: bool,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) idempotency_key: String,
    pub(super) version: u64,
    pub(super) version_epoch: String,
}

/// Whose sessions an order is for; of disconnect, refresh, subscribe and unsubscribe.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Whom {
    pub(super) user: String,
    pub(super) client: String,
    pub(super) session: String,
    pub(super) whitelist: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subscribe {
    pub(super) channel: String,
    pub(super) expire_at: i64,
    pub(super) info: Json,
    pub(super) b64info: String,
    pub(super) data: Json,
    pub(super) b64data: String,
    pub(super) recover_since: Option<Position>,
    #[serde(rename = "override")]
    pub(super) overrides: Override,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Override {
    presence: Option<Flag>,
    join_leave: Option<Flag>,
    force_push_join_leave: Option<Flag>,
    force_recovery: Option<Flag>,
    force_positioning: Option<Flag>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Flag {
    value: bool,
}

impl From<Override> for Overrides {
    fn from(from: Override) -> Overrides {
        let value = |flag: Option<Flag>| flag.map(|flag| flag.value);
        Overrides {
            presence: value(from.presence),
            join_leave: value(from.join_leave),
            force_push_join_leave: value(from.force_push_join_leave),
            force_recovery: value(from.force_recovery),
            force_positioning: value(from.force_positioning),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Position {
    offset: u64,
    epoch: String,
}

impl From<Position> for StreamPosition {
    fn from(Position { offset, epoch }: Position) -> StreamPosition {
        StreamPosition { offset, epoch }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Disconnect {
    pub(super) disconnect: Option<Goodbye>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Goodbye {
    pub(super) code: u16,
    pub(super) reason: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refresh {
    pub(super) expired: bool,
    pub(super) expire_at: i64,
}

/// What presence, presence_stats, history_remove and unsubscribe take.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InChannel {
    pub(super) channel: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    pub(super) channel: String,
    pub(super) limit: i64,
    pub(super) since: Option<Position>,
    pub(super) reverse: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Channels {
    pub(super) pattern: String,
}

/// A method's name with its parameters.
pub(super) type BatchCommand = BTreeMap<String, Box<RawValue>>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Batch {
    pub(super) commands: Vec<Option<BatchCommand>>,
    pub(super) parallel: bool,
}
