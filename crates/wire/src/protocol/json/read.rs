//! Decoding JSON: serde structs that borrow from the line, converted to the protocol's types.

mod replies;

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::value::{Entries, Flag, JsonInteger, Text};
use crate::protocol::{self as p, Command, DecodeError, Request, StreamPosition};

pub(super) use replies::reply;

pub(super) fn command(line: &[u8]) -> Result<Command, DecodeError> {
    object::<RawCommand<'_>>(line).map(Command::from)
}

/// Deserializes an object; `None` for `null`.
fn some_object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<Object<T>>::deserialize(deserializer).map(|found| found.map(|Object(inner)| inner))
}

/// A value written as an object. Serde alone would also accept an array for a struct.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Deserializes a line that must be an object.
fn object<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, DecodeError> {
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err(DecodeError::Json);
    }
    serde_json::from_slice(line).map_err(|_| DecodeError::Json)
}

type Raw<'a> = Option<&'a RawValue>;

/// Returns a payload; `null` and absence are an empty payload.
fn payload(raw: Raw<'_>) -> Bytes {
    raw.map(RawValue::get)
        .filter(|text| *text != "null")
        .map_or_else(Bytes::new, |text| Bytes::copy_from_slice(text.as_bytes()))
}

/// Deserializes published data. `null` is kept, as a JSON value like any other.
fn content<'de: 'a, 'a, D: serde::Deserializer<'de>>(from: D) -> Result<Raw<'a>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Returns the text of published data unchanged.
fn verbatim(raw: Raw<'_>) -> Bytes {
    raw.map_or_else(Bytes::new, |text| Bytes::copy_from_slice(text.get().as_bytes()))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawCommand<'a> {
    id: JsonInteger<u32>,
    #[serde(borrow, deserialize_with = "some_object")]
    connect: Option<RawConnect<'a>>,
    #[serde(deserialize_with = "some_object")]
    ping: Option<Empty>,
    #[serde(borrow, deserialize_with = "some_object")]
    subscribe: Option<RawSubscribe<'a>>,
    #[serde(borrow, deserialize_with = "some_object")]
    unsubscribe: Option<RawChannel<'a>>,
    #[serde(borrow, deserialize_with = "some_object")]
    publish: Option<RawPublish<'a>>,
    #[serde(borrow, deserialize_with = "some_object")]
    presence: Option<RawChannel<'a>>,
    #[serde(borrow, deserialize_with = "some_object")]
    presence_stats: Option<RawChannel<'a>>,
    #[serde(borrow, deserialize_with = "some_object")]
    history: Option<RawHistory<'a>>,
    #[serde(borrow, deserialize_with = "some_object")]
    rpc: Option<RawRpc<'a>>,
    #[serde(borrow, deserialize_with = "some_object")]
    send: Option<RawData<'a>>,
    #[serde(borrow, deserialize_with = "some_object")]
    refresh: Option<RawRefresh<'a>>,
    #[serde(borrow, deserialize_with = "some_object")]
    sub_refresh: Option<RawSubRefresh<'a>>,
}

#[derive(Deserialize)]
struct Empty {}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawConnect<'a> {
    #[serde(borrow)]
    token: Text<'a>,
    #[serde(borrow)]
    data: Raw<'a>,
    #[serde(borrow)]
    subs: Entries<'a, Object<RawSubscribe<'a>>>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    version: Text<'a>,
    #[serde(borrow)]
    headers: Entries<'a, Option<Text<'a>>>,
    flag: JsonInteger<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSubscribe<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow)]
    token: Text<'a>,
    recover: Flag,
    #[serde(borrow)]
    epoch: Text<'a>,
    offset: JsonInteger<u64>,
    #[serde(borrow)]
    data: Raw<'a>,
    positioned: Flag,
    recoverable: Flag,
    join_leave: Flag,
    #[serde(borrow)]
    delta: Text<'a>,
    #[serde(borrow)]
    tf: Raw<'a>,
    flag: JsonInteger<i64>,
    r#type: JsonInteger<i32>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawChannel<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPublish<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow, deserialize_with = "content")]
    data: Raw<'a>,
    r#type: JsonInteger<i32>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawHistory<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
    limit: JsonInteger<i32>,
    #[serde(borrow, deserialize_with = "some_object")]
    since: Option<RawPosition<'a>>,
    reverse: Flag,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPosition<'a> {
    offset: JsonInteger<u64>,
    #[serde(borrow)]
    epoch: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRpc<'a> {
    #[serde(borrow)]
    data: Raw<'a>,
    #[serde(borrow)]
    method: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawData<'a> {
    #[serde(borrow)]
    data: Raw<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRefresh<'a> {
    #[serde(borrow)]
    token: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSubRefresh<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow)]
    token: Text<'a>,
    r#type: JsonInteger<i32>,
}

impl From<RawCommand<'_>> for Command {
    fn from(raw: RawCommand<'_>) -> Command {
        let channel = |raw: RawChannel<'_>| raw.channel.into_owned();
        let JsonInteger(id) = raw.id;
        let request = if id == 0 {
            raw.send.map_or(Request::Pong, |send| Request::Send { data: payload(send.data) })
        } else if let Some(connect) = raw.connect {
            Request::Connect(Box::new(connect.into()))
        } else if raw.ping.is_some() {
            Request::Ping
        } else if let Some(subscribe) = raw.subscribe {
            Request::Subscribe(Box::new(subscribe.into()))
        } else if let Some(unsubscribe) = raw.unsubscribe {
            Request::Unsubscribe { channel: channel(unsubscribe) }
        } else if let Some(publish) = raw.publish {
            Request::Publish(p::PublishRequest {
                channel: publish.channel.into_owned(),
                data: verbatim(publish.data),
                kind: publish.r#type.0,
            })
        } else if let Some(presence) = raw.presence {
            Request::Presence { channel: channel(presence) }
        } else if let Some(stats) = raw.presence_stats {
            Request::PresenceStats { channel: channel(stats) }
        } else if let Some(history) = raw.history {
            Request::History(p::HistoryRequest {
                channel: history.channel.into_owned(),
                limit: history.limit.0,
                since: history.since.map(StreamPosition::from),
                reverse: history.reverse.0,
            })
        } else if let Some(rpc) = raw.rpc {
            Request::Rpc { method: rpc.method.into_owned(), data: payload(rpc.data) }
        } else if let Some(send) = raw.send {
            Request::Send { data: payload(send.data) }
        } else if let Some(refresh) = raw.refresh {
            Request::Refresh { token: refresh.token.into_owned() }
        } else if let Some(refresh) = raw.sub_refresh {
            Request::SubRefresh(p::SubRefreshRequest {
                channel: refresh.channel.into_owned(),
                token: refresh.token.into_owned(),
                kind: refresh.r#type.0,
            })
        } else {
            Request::Missing
        };
        Command { id, request }
    }
}

impl From<RawPosition<'_>> for StreamPosition {
    fn from(raw: RawPosition<'_>) -> StreamPosition {
        StreamPosition { offset: raw.offset.0, epoch: raw.epoch.into_owned() }
    }
}

impl From<RawConnect<'_>> for p::ConnectRequest {
    fn from(raw: RawConnect<'_>) -> p::ConnectRequest {
        let subs = raw.subs.into_pairs();
        // A header without a value is ignored.
        let headers = raw.headers.into_pairs();
        let headers = headers.filter_map(|(name, value)| Some((name, value?.into_owned())));
        p::ConnectRequest {
            token: raw.token.into_owned(),
            data: payload(raw.data),
            subs: subs.map(|(channel, Object(raw))| (channel, raw.into())).collect(),
            name: raw.name.into_owned(),
            version: raw.version.into_owned(),
            headers: headers.collect(),
            flag: raw.flag.0,
        }
    }
}

impl From<RawSubscribe<'_>> for p::SubscribeRequest {
    fn from(raw: RawSubscribe<'_>) -> p::SubscribeRequest {
        p::SubscribeRequest {
            channel: raw.channel.into_owned(),
            token: raw.token.into_owned(),
            recover: raw.recover.0,
            epoch: raw.epoch.into_owned(),
            offset: raw.offset.0,
            data: payload(raw.data),
            positioned: raw.positioned.0,
            recoverable: raw.recoverable.0,
            join_leave: raw.join_leave.0,
            delta: raw.delta.into_owned(),
            tags_filter: raw.tf.is_some(),
            flag: raw.flag.0,
            kind: raw.r#type.0,
        }
    }
}
