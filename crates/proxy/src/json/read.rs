//! Reads replies.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::failure::{BackendError, FailureKind};
use crate::reply::{
    BackendConnect, BackendPublish, BackendRenewal, BackendSubscribe, ProxyReply, ProxyResult,
    SubscribeOverrides,
};
use crate::request::ProxyMethod;

/// Reads the reply to a request of this kind.
pub(crate) fn read_reply(method: ProxyMethod, json: &[u8]) -> Result<ProxyReply, BackendError> {
    match method {
        ProxyMethod::Connect => read(json, |result: Option<ConnectMembers>| {
            let result = result.map(|members| members.read().map(Box::new));
            Ok(ProxyResult::Connect(result.transpose()?))
        }),
        ProxyMethod::Refresh => read(json, |result: Option<RenewalMembers>| {
            Ok(ProxyResult::Refresh(result.map(RenewalMembers::read).transpose()?))
        }),
        ProxyMethod::Subscribe => read(json, |result: Option<SubscribeMembers>| {
            Ok(ProxyResult::Subscribe(result.map(SubscribeMembers::read).transpose()?))
        }),
        ProxyMethod::Publish => read(json, |result: Option<PublishMembers>| {
            let result = result.map(|members| members.read().map(Box::new));
            Ok(ProxyResult::Publish(result.transpose()?))
        }),
        ProxyMethod::SubRefresh => read(json, |result: Option<RenewalMembers>| {
            Ok(ProxyResult::SubRefresh(result.map(RenewalMembers::read).transpose()?))
        }),
        ProxyMethod::Rpc => read(json, |result: Option<RpcMembers>| {
            let result = result.unwrap_or_default();
            Ok(ProxyResult::Rpc(bytes(result.data, &result.b64data)?))
        }),
    }
}

fn read<T: DeserializeOwned>(
    json: &[u8],
    result: impl FnOnce(Option<T>) -> Result<ProxyResult, BackendError>,
) -> Result<ProxyReply, BackendError> {
    let envelope: Envelope<T> = serde_json::from_slice(json).map_err(|error| malformed(&error))?;
    Ok(match envelope {
        Envelope { disconnect: Some(DisconnectMembers { code, reason }), .. } => {
            ProxyReply::Disconnect { code, reason }
        }
        Envelope { error: Some(ErrorMembers { code, message, temporary }), .. } => {
            ProxyReply::Error { code, message, temporary }
        }
        Envelope { result: value, .. } => ProxyReply::Result(result(value)?),
    })
}

/// An error of the parser, which names a place and no content.
fn malformed(error: &serde_json::Error) -> BackendError {
    let (line, column) = (error.line(), error.column());
    let detail = match error.classify() {
        serde_json::error::Category::Data => {
            format!("a member of the reply has another type, at line {line} column {column}")
        }
        _ => format!("the reply is not JSON, at line {line} column {column}"),
    };
    BackendError::new(FailureKind::Malformed, detail)
}

fn bytes(json: Option<Box<RawValue>>, base64: &str) -> Result<Bytes, BackendError> {
    match (json, base64) {
        (None, "") => Ok(Bytes::new()),
        (Some(json), "") => Ok(Bytes::from(Box::<str>::from(json).into_string())),
        (_, base64) => STANDARD.decode(base64).map(Bytes::from).map_err(|_| {
            BackendError::new(FailureKind::Malformed, "a member of the reply is not base64")
        }),
    }
}

#[derive(Deserialize)]
struct Envelope<T> {
    result: Option<T>,
    error: Option<ErrorMembers>,
    disconnect: Option<DisconnectMembers>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct ErrorMembers {
    code: u32,
    message: String,
    temporary: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DisconnectMembers {
    code: u32,
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConnectMembers {
    user: String,
    expire_at: i64,
    info: Option<Box<RawValue>>,
    b64info: String,
    data: Option<Box<RawValue>>,
    b64data: String,
    channels: Option<Vec<String>>,
    subs: Option<BTreeMap<String, SubscribeMembers>>,
    meta: Option<Box<RawValue>>,
}

impl ConnectMembers {
    fn read(self) -> Result<BackendConnect, BackendError> {
        let subs = self.subs.unwrap_or_default().into_iter();
        let subs = subs.map(|(channel, members)| Ok((channel, members.read()?)));
        Ok(BackendConnect {
            user: self.user,
            expire_at: self.expire_at,
            info: bytes(self.info, &self.b64info)?,
            data: bytes(self.data, &self.b64data)?,
            channels: self.channels.unwrap_or_default(),
            subs: subs.collect::<Result<_, BackendError>>()?,
            meta: bytes(self.meta, "")?,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RenewalMembers {
    expired: bool,
    expire_at: i64,
    info: Option<Box<RawValue>>,
    b64info: String,
    meta: Option<Box<RawValue>>,
}

impl RenewalMembers {
    fn read(self) -> Result<BackendRenewal, BackendError> {
        Ok(BackendRenewal {
            expired: self.expired,
            expire_at: self.expire_at,
            info: bytes(self.info, &self.b64info)?,
            meta: bytes(self.meta, "")?,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SubscribeMembers {
    expire_at: i64,
    info: Option<Box<RawValue>>,
    b64info: String,
    data: Option<Box<RawValue>>,
    b64data: String,
    r#override: Option<OverrideMembers>,
}

impl SubscribeMembers {
    fn read(self) -> Result<BackendSubscribe, BackendError> {
        Ok(BackendSubscribe {
            expire_at: self.expire_at,
            info: bytes(self.info, &self.b64info)?,
            data: bytes(self.data, &self.b64data)?,
            overrides: self.r#override.map_or_else(Default::default, OverrideMembers::read),
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OverrideMembers {
    presence: Option<Wrapped>,
    join_leave: Option<Wrapped>,
    force_recovery: Option<Wrapped>,
    force_positioning: Option<Wrapped>,
    force_push_join_leave: Option<Wrapped>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wrapped {
    value: bool,
}

impl OverrideMembers {
    fn read(self) -> SubscribeOverrides {
        let value = |wrapped: Option<Wrapped>| wrapped.map(|wrapped| wrapped.value);
        SubscribeOverrides {
            presence: value(self.presence),
            join_leave: value(self.join_leave),
            force_recovery: value(self.force_recovery),
            force_positioning: value(self.force_positioning),
            force_push_join_leave: value(self.force_push_join_leave),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PublishMembers {
    data: Option<Box<RawValue>>,
    b64data: String,
    skip_history: bool,
    tags: Option<BTreeMap<String, String>>,
    idempotency_key: String,
    delta: bool,
    version: u64,
    version_epoch: String,
}

impl PublishMembers {
    fn read(self) -> Result<BackendPublish, BackendError> {
        let data = match (&self.data, &*self.b64data) {
            (None, "") => None,
            _ => Some(bytes(self.data, &self.b64data)?),
        };
        Ok(BackendPublish {
            data,
            skip_history: self.skip_history,
            tags: self.tags.unwrap_or_default().into_iter().collect(),
            idempotency_key: self.idempotency_key,
            delta: self.delta,
            version: self.version,
            version_epoch: self.version_epoch,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RpcMembers {
    data: Option<Box<RawValue>>,
    b64data: String,
}
