//! What callers send, field by field (§3.3). Fields that we do not know are ignored, as everywhere in the protocol, and null
//! is the same as absent, but for the data of a publication.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::claims::Overrides;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use wire::protocol::StreamPosition;

use super::error::{ApiError, Failure};
use crate::token::Object;

/// A JSON value as it was written, `null` included; empty when the field is absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Json(Bytes);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Json(String::from(Box::<str>::from(raw)).into()))
    }
}

/// Reads the parameters of a method.
pub(super) fn read<'p, T: Deserialize<'p>>(params: &'p [u8]) -> Result<T, Failure> {
    let Object(params) = serde_json::from_slice(params)?;
    Ok(params)
}

/// A field that may be null, which is the same as absent.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
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
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
    /// Of broadcast, instead of `channel`.
    #[serde(deserialize_with = "nullable")]
    pub(super) channels: Vec<String>,
    pub(super) data: Json,
    #[serde(deserialize_with = "nullable")]
    pub(super) b64data: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) skip_history: bool,
    #[serde(deserialize_with = "nullable")]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) idempotency_key: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) version: u64,
    #[serde(deserialize_with = "nullable")]
    pub(super) version_epoch: String,
}

/// Whose sessions an order is for; of disconnect, refresh, subscribe and unsubscribe.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Whom {
    #[serde(deserialize_with = "nullable")]
    pub(super) user: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) client: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) session: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) whitelist: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subscribe {
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) expire_at: i64,
    #[serde(deserialize_with = "nullable")]
    pub(super) info: Json,
    #[serde(deserialize_with = "nullable")]
    pub(super) b64info: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) data: Json,
    #[serde(deserialize_with = "nullable")]
    pub(super) b64data: String,
    pub(super) recover_since: Option<Position>,
    #[serde(rename = "override", deserialize_with = "nullable")]
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
    #[serde(deserialize_with = "nullable")]
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
    #[serde(deserialize_with = "nullable")]
    offset: u64,
    #[serde(deserialize_with = "nullable")]
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
    #[serde(deserialize_with = "nullable")]
    pub(super) code: u16,
    #[serde(deserialize_with = "nullable")]
    pub(super) reason: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refresh {
    pub(super) info: Json,
    #[serde(deserialize_with = "nullable")]
    pub(super) expired: bool,
    #[serde(deserialize_with = "nullable")]
    pub(super) expire_at: i64,
}

/// What presence, presence_stats, history_remove and unsubscribe take.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InChannel {
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) limit: i64,
    pub(super) since: Option<Position>,
    #[serde(deserialize_with = "nullable")]
    pub(super) reverse: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Channels {
    #[serde(deserialize_with = "nullable")]
    pub(super) pattern: String,
}

/// Whom `clients` looks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Clients {
    pub(super) user: Option<String>,
    pub(super) client: Option<String>,
}

/// A method's name with its parameters.
pub(super) type BatchCommand = BTreeMap<String, Box<RawValue>>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Batch {
    #[serde(deserialize_with = "nullable")]
    pub(super) commands: Vec<Option<BatchCommand>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) parallel: bool,
}
