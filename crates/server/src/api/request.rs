//! Parameters of the methods of the server API. Unknown fields are ignored, and
//! `null` counts as absent, except in the data of a publication.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use engine::broker::Target;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use wire::protocol::{Disconnect, StreamPosition};

use super::error::MethodFailure;
use super::unreadable::unreadable;
use crate::json::{Integer, Object, OverridesJson};
use crate::service::error::ApiError;
use crate::service::method::Method;
use crate::service::publications::PublicationOptions;
use crate::service::sessions::{SessionFilter, disconnect_advice};

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
pub(super) fn read<'p, T: Deserialize<'p>>(params: &'p [u8]) -> Result<T, MethodFailure> {
    match serde_json::from_slice(params) {
        Ok(Object(params)) => Ok(params),
        Err(error) => Err(MethodFailure::Unreadable(unreadable(params, &error))),
    }
}

/// A field that may be null, which is the same as absent.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Tags. A tag whose value is null is left out, as are headers of a connect command.
fn tags<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let tags: BTreeMap<String, Option<String>> = nullable(from)?;
    Ok(tags.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

/// An object that may be null; a list of its values in order is not one.
fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.map(|Object(value)| value))
}

/// A whole number that may be null. JSON has one kind of number, so `242.0` is a whole one too.
fn integer<'de, D: Deserializer<'de>, T: TryFrom<i128> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    let Some(Integer(number)) = Option::deserialize(deserializer)? else {
        return Ok(T::default());
    };
    T::try_from(number).map_err(|_| D::Error::custom(format!("{number} is out of range")))
}

/// Like [`integer`], for fields whose absence has a meaning.
fn some_integer<'de, D: Deserializer<'de>, T: TryFrom<i128>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let Some(Integer(number)) = Option::deserialize(deserializer)? else { return Ok(None) };
    let number = T::try_from(number);
    number.map(Some).map_err(|_| D::Error::custom("a number is out of range"))
}

/// A payload from its JSON field or its base64 field, which has precedence.
pub(super) fn payload(json: &Json, base64: &str) -> Result<Bytes, ApiError> {
    crate::service::payload::payload(json.0.clone(), base64)
}

/// Parameters of `publish`, and those that `broadcast` shares with it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Publish {
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
    /// Used by `broadcast` instead of `channel`.
    #[serde(deserialize_with = "nullable")]
    pub(super) channels: Vec<String>,
    pub(super) data: Json,
    #[serde(deserialize_with = "nullable")]
    pub(super) b64data: String,
    #[serde(deserialize_with = "nullable")]
    skip_history: bool,
    #[serde(deserialize_with = "tags")]
    tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    idempotency_key: String,
    #[serde(deserialize_with = "integer")]
    version: u64,
    #[serde(deserialize_with = "nullable")]
    version_epoch: String,
}

impl Publish {
    /// Takes the options of the publication.
    pub(super) fn take_options(&mut self) -> PublicationOptions {
        PublicationOptions {
            tags: std::mem::take(&mut self.tags),
            skip_history: self.skip_history,
            idempotency_key: std::mem::take(&mut self.idempotency_key),
            version: self.version,
            version_epoch: std::mem::take(&mut self.version_epoch),
        }
    }
}

/// Sessions that `disconnect`, `refresh`, `subscribe` or `unsubscribe` apply to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SessionParameters {
    /// Required; an empty string selects all anonymous users.
    user: Option<String>,
    #[serde(deserialize_with = "nullable")]
    client: String,
    #[serde(deserialize_with = "nullable")]
    session: String,
    #[serde(deserialize_with = "nullable")]
    whitelist: Vec<String>,
}

impl SessionParameters {
    /// The selected sessions.
    pub(super) fn target(self) -> Result<Option<Target>, ApiError> {
        let SessionParameters { user, client, session, whitelist } = self;
        let user = user.ok_or_else(|| {
            ApiError::bad("user is missing: name a user, or all anonymous users with an empty text")
        })?;
        Ok(SessionFilter { user, client, session, whitelist }.target())
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subscribe {
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
    #[serde(deserialize_with = "integer")]
    pub(super) expire_at: i64,
    #[serde(deserialize_with = "nullable")]
    pub(super) info: Json,
    #[serde(deserialize_with = "nullable")]
    pub(super) b64info: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) data: Json,
    #[serde(deserialize_with = "nullable")]
    pub(super) b64data: String,
    #[serde(deserialize_with = "object")]
    pub(super) recover_since: Option<Position>,
    #[serde(rename = "override", deserialize_with = "object")]
    pub(super) overrides: Option<OverridesJson>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Position {
    #[serde(deserialize_with = "integer")]
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
pub(super) struct DisconnectCall {
    #[serde(deserialize_with = "object")]
    pub(super) disconnect: Option<DisconnectAdvice>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DisconnectAdvice {
    #[serde(deserialize_with = "integer")]
    code: u16,
    #[serde(deserialize_with = "nullable")]
    reason: String,
}

impl DisconnectAdvice {
    pub(super) fn disconnect(self) -> Result<Disconnect, ApiError> {
        disconnect_advice(self.code, self.reason)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refresh {
    #[serde(deserialize_with = "nullable")]
    pub(super) info: Json,
    #[serde(deserialize_with = "nullable")]
    pub(super) expired: bool,
    #[serde(deserialize_with = "integer")]
    pub(super) expire_at: i64,
}

/// Parameters of `presence`, `presence_stats`, `history_remove`, `channel` and `unsubscribe`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OneChannel {
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
    #[serde(deserialize_with = "integer")]
    pub(super) limit: i64,
    #[serde(deserialize_with = "object")]
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

/// Parameters of `clients`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Clients {
    pub(super) user: Option<String>,
    pub(super) client: Option<String>,
}

/// Parameters of `subscribers`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SubscribersRequest {
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
    #[serde(deserialize_with = "integer")]
    pub(super) limit: i64,
    #[serde(deserialize_with = "nullable")]
    pub(super) cursor: String,
}

/// Parameters of `revoke` and `unrevoke`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Revoke {
    pub(super) user: Option<String>,
    pub(super) token_id: Option<String>,
    /// Unix time in seconds.
    #[serde(deserialize_with = "some_integer")]
    pub(super) issued_before: Option<i64>,
    #[serde(deserialize_with = "nullable")]
    pub(super) all_users: bool,
    #[serde(deserialize_with = "integer")]
    pub(super) expire_at: i64,
}

/// Parameters of `revocations`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RevocationsRequest {
    #[serde(deserialize_with = "integer")]
    pub(super) limit: i64,
    #[serde(deserialize_with = "nullable")]
    pub(super) cursor: String,
}

/// Parameters of `block_user` and `unblock_user`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct BlockUser {
    #[serde(deserialize_with = "nullable")]
    pub(super) user: String,
    #[serde(deserialize_with = "integer")]
    pub(super) expire_at: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RevokeToken {
    #[serde(deserialize_with = "nullable")]
    pub(super) uid: String,
    #[serde(deserialize_with = "integer")]
    pub(super) expire_at: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InvalidateUserTokens {
    #[serde(deserialize_with = "nullable")]
    pub(super) user: String,
    #[serde(deserialize_with = "integer")]
    pub(super) issued_before: i64,
    #[serde(deserialize_with = "integer")]
    pub(super) expire_at: i64,
    #[serde(deserialize_with = "nullable")]
    pub(super) channel: String,
}

/// Parameters of methods that have none.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Nothing {}

/// One command of a batch: its methods with their parameters, in the order written. Members that
/// are null count as absent, and members whose name is not a method are ignored.
#[derive(Clone, Debug, Default)]
pub(super) struct BatchCommand(pub(super) Vec<(Method, Box<RawValue>)>);

impl<'de> Deserialize<'de> for BatchCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BatchCommand, D::Error> {
        deserializer.deserialize_map(BatchCommandVisitor)
    }
}

struct BatchCommandVisitor;

impl<'de> Visitor<'de> for BatchCommandVisitor {
    type Value = BatchCommand;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with a method's name and its parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BatchCommand, A::Error> {
        let mut command = BatchCommand::default();
        while let Some(name) = map.next_key::<String>()? {
            match Method::named(&name) {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(method) => {
                    let params = map.next_value::<Box<RawValue>>()?;
                    if params.get() != "null" {
                        command.0.push((method, params));
                    }
                }
            }
        }
        Ok(command)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Batch {
    pub(super) commands: Option<Vec<Option<BatchCommand>>>,
    #[serde(deserialize_with = "nullable")]
    pub(super) parallel: bool,
}
