//! Replies and pushes, as a client decodes them.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Empty, Raw, RawData, content, object, payload, verbatim};
use crate::protocol::items::ItemBudget;
use crate::protocol::json::value::Text;
use crate::protocol::{self as p, DecodeError, PushEvent, Reply, ReplyBody, StreamPosition};

pub(in crate::protocol::json) fn reply(
    line: &[u8],
    items: &ItemBudget,
) -> Result<Reply, DecodeError> {
    object::<RawReply<'_>>(line)?.decode(items)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawReply<'a> {
    id: u32,
    #[serde(borrow)]
    error: Option<RawError<'a>>,
    #[serde(borrow)]
    push: Option<RawPush<'a>>,
    #[serde(borrow)]
    connect: Option<RawConnectResult<'a>>,
    #[serde(borrow)]
    subscribe: Option<RawSubscribeResult<'a>>,
    unsubscribe: Option<Empty>,
    publish: Option<Empty>,
    #[serde(borrow)]
    presence: Option<RawPresence<'a>>,
    presence_stats: Option<RawStats>,
    #[serde(borrow)]
    history: Option<RawHistoryResult<'a>>,
    #[serde(borrow)]
    rpc: Option<RawData<'a>>,
    #[serde(borrow)]
    refresh: Option<RawRefreshResult<'a>>,
    sub_refresh: Option<RawLifetime>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawError<'a> {
    code: u32,
    #[serde(borrow)]
    message: Text<'a>,
    temporary: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPush<'a> {
    #[serde(borrow)]
    channel: Text<'a>,
    #[serde(borrow)]
    r#pub: Option<RawPublication<'a>>,
    #[serde(borrow)]
    join: Option<RawMember<'a>>,
    #[serde(borrow)]
    leave: Option<RawMember<'a>>,
    #[serde(borrow)]
    unsubscribe: Option<RawEnd<'a>>,
    #[serde(borrow)]
    message: Option<RawData<'a>>,
    #[serde(borrow)]
    subscribe: Option<RawSubscribeResult<'a>>,
    #[serde(borrow)]
    disconnect: Option<RawEnd<'a>>,
    refresh: Option<RawLifetime>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPublication<'a> {
    #[serde(borrow, deserialize_with = "content")]
    data: Raw<'a>,
    #[serde(borrow)]
    info: Option<RawInfo<'a>>,
    offset: u64,
    #[serde(borrow)]
    tags: Raw<'a>,
    time: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawInfo<'a> {
    #[serde(borrow)]
    user: Text<'a>,
    #[serde(borrow)]
    client: Text<'a>,
    #[serde(borrow)]
    conn_info: Raw<'a>,
    #[serde(borrow)]
    chan_info: Raw<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawMember<'a> {
    #[serde(borrow)]
    info: RawInfo<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawEnd<'a> {
    code: u32,
    #[serde(borrow)]
    reason: Text<'a>,
    reconnect: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawLifetime {
    expires: bool,
    ttl: u32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawConnectResult<'a> {
    #[serde(borrow)]
    client: Text<'a>,
    #[serde(borrow)]
    version: Text<'a>,
    expires: bool,
    ttl: u32,
    #[serde(borrow)]
    data: Raw<'a>,
    #[serde(borrow)]
    subs: Raw<'a>,
    ping: u32,
    pong: bool,
    #[serde(borrow)]
    session: Text<'a>,
    #[serde(borrow)]
    node: Text<'a>,
    time: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSubscribeResult<'a> {
    expires: bool,
    ttl: u32,
    recoverable: bool,
    #[serde(borrow)]
    epoch: Text<'a>,
    #[serde(borrow)]
    publications: Raw<'a>,
    recovered: bool,
    offset: u64,
    positioned: bool,
    #[serde(borrow)]
    data: Raw<'a>,
    was_recovering: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPresence<'a> {
    #[serde(borrow)]
    presence: Raw<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawStats {
    num_clients: u32,
    num_users: u32,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawHistoryResult<'a> {
    #[serde(borrow)]
    publications: Raw<'a>,
    #[serde(borrow)]
    epoch: Text<'a>,
    offset: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRefreshResult<'a> {
    #[serde(borrow)]
    client: Text<'a>,
    #[serde(borrow)]
    version: Text<'a>,
    expires: bool,
    ttl: u32,
}

/// A value inside a reply of which there may be many.
trait Item<'a>: Deserialize<'a> {
    type Decoded;

    fn decode(self, items: &ItemBudget) -> Result<Self::Decoded, DecodeError>;
}

/// Decodes a list or an object item by item, so that no more is kept than the budget allows.
fn read_items<'a, V>(raw: Raw<'a>, visitor: V, items: &ItemBudget) -> Result<V::Value, DecodeError>
where
    V: Visitor<'a, Value: Default>,
{
    let Some(raw) = raw else { return Ok(V::Value::default()) };
    let read = serde_json::Deserializer::from_str(raw.get()).deserialize_any(visitor);
    read.map_err(|_| items.error_or(DecodeError::Json))
}

struct ListVisitor<'b, T>(&'b ItemBudget, PhantomData<T>);

impl<'de, T: Item<'de>> Visitor<'de> for ListVisitor<'_, T> {
    type Value = Vec<T::Decoded>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut decoded = Vec::new();
        while let Some(item) = list.next_element::<T>()? {
            self.0.take().map_err(A::Error::custom)?;
            decoded.push(item.decode(self.0).map_err(A::Error::custom)?);
        }
        Ok(decoded)
    }
}

struct EntriesVisitor<'b, T>(&'b ItemBudget, PhantomData<T>);

impl<'de, T: Item<'de>> Visitor<'de> for EntriesVisitor<'_, T> {
    type Value = BTreeMap<String, T::Decoded>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut decoded = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<Text<'de>, T>()? {
            self.0.take().map_err(A::Error::custom)?;
            let value = value.decode(self.0).map_err(A::Error::custom)?;
            decoded.insert(name.into_owned(), value);
        }
        Ok(decoded)
    }
}

impl RawReply<'_> {
    fn decode(self, items: &ItemBudget) -> Result<Reply, DecodeError> {
        let raw = self;
        let body = if let Some(error) = raw.error {
            ReplyBody::Error(p::ErrorReply {
                code: error.code,
                message: error.message.into_owned(),
                temporary: error.temporary,
            })
        } else if let Some(push) = raw.push {
            ReplyBody::Push(push.decode(items)?)
        } else if let Some(result) = raw.connect {
            ReplyBody::Connect(Box::new(result.decode(items)?))
        } else if let Some(result) = raw.subscribe {
            ReplyBody::Subscribe(Box::new(result.decode(items)?))
        } else if raw.unsubscribe.is_some() {
            ReplyBody::Unsubscribe
        } else if raw.publish.is_some() {
            ReplyBody::Publish
        } else if let Some(presence) = raw.presence {
            ReplyBody::Presence(entries::<RawInfo<'_>>(presence.presence, items)?)
        } else if let Some(RawStats { num_clients, num_users }) = raw.presence_stats {
            ReplyBody::PresenceStats(p::PresenceStats { num_clients, num_users })
        } else if let Some(result) = raw.history {
            ReplyBody::History(p::HistoryResult {
                publications: publications(result.publications, items)?,
                epoch: result.epoch.into_owned(),
                offset: result.offset,
            })
        } else if let Some(rpc) = raw.rpc {
            ReplyBody::Rpc { data: payload(rpc.data) }
        } else if let Some(result) = raw.refresh {
            ReplyBody::Refresh(p::RefreshResult {
                client: result.client.into_owned(),
                version: result.version.into_owned(),
                expires: result.expires,
                ttl: result.ttl,
            })
        } else if let Some(RawLifetime { expires, ttl }) = raw.sub_refresh {
            ReplyBody::SubRefresh { expires, ttl }
        } else {
            ReplyBody::Ping
        };
        Ok(Reply { id: raw.id, body })
    }
}

impl RawPush<'_> {
    fn decode(self, items: &ItemBudget) -> Result<p::Push, DecodeError> {
        let raw = self;
        let event = if let Some(publication) = raw.r#pub {
            PushEvent::Publication(Arc::new(publication.decode(items)?))
        } else if let Some(join) = raw.join {
            PushEvent::Join(Arc::new(join.info.into()))
        } else if let Some(leave) = raw.leave {
            PushEvent::Leave(Arc::new(leave.info.into()))
        } else if let Some(end) = raw.unsubscribe {
            PushEvent::Unsubscribe { code: end.code, reason: end.reason.into_owned() }
        } else if let Some(message) = raw.message {
            PushEvent::Message { data: payload(message.data) }
        } else if let Some(result) = raw.subscribe {
            PushEvent::Subscribe {
                recoverable: result.recoverable,
                positioned: result.positioned,
                position: StreamPosition {
                    offset: result.offset,
                    epoch: result.epoch.into_owned(),
                },
                data: payload(result.data),
            }
        } else if let Some(end) = raw.disconnect {
            let (code, reconnect) = (end.code, end.reconnect);
            PushEvent::Disconnect { code, reason: end.reason.into_owned(), reconnect }
        } else if let Some(RawLifetime { expires, ttl }) = raw.refresh {
            PushEvent::Refresh { expires, ttl }
        } else {
            PushEvent::Unknown
        };
        Ok(p::Push { channel: raw.channel.as_str().into(), event })
    }
}

impl<'a> Item<'a> for RawPublication<'a> {
    type Decoded = p::Publication;

    fn decode(self, items: &ItemBudget) -> Result<p::Publication, DecodeError> {
        Ok(p::Publication {
            data: verbatim(self.data),
            info: self.info.map(p::ClientInfo::from),
            offset: self.offset,
            tags: entries::<Text<'_>>(self.tags, items)?,
            time: self.time,
        })
    }
}

impl From<RawInfo<'_>> for p::ClientInfo {
    fn from(raw: RawInfo<'_>) -> p::ClientInfo {
        p::ClientInfo {
            user: raw.user.into_owned(),
            client: raw.client.into_owned(),
            conn_info: payload(raw.conn_info),
            chan_info: payload(raw.chan_info),
        }
    }
}

impl RawConnectResult<'_> {
    fn decode(self, items: &ItemBudget) -> Result<p::ConnectResult, DecodeError> {
        let raw = self;
        Ok(p::ConnectResult {
            client: raw.client.into_owned(),
            version: raw.version.into_owned(),
            expires: raw.expires,
            ttl: raw.ttl,
            data: payload(raw.data),
            subs: entries::<RawSubscribeResult<'_>>(raw.subs, items)?,
            ping: raw.ping,
            pong: raw.pong,
            session: raw.session.into_owned(),
            node: raw.node.into_owned(),
            time: raw.time,
        })
    }
}

impl<'a> Item<'a> for RawSubscribeResult<'a> {
    type Decoded = p::SubscribeResult;

    fn decode(self, items: &ItemBudget) -> Result<p::SubscribeResult, DecodeError> {
        let raw = self;
        Ok(p::SubscribeResult {
            expires: raw.expires,
            ttl: raw.ttl,
            recoverable: raw.recoverable,
            epoch: raw.epoch.into_owned(),
            publications: publications(raw.publications, items)?,
            recovered: raw.recovered,
            offset: raw.offset,
            positioned: raw.positioned,
            data: payload(raw.data),
            was_recovering: raw.was_recovering,
        })
    }
}

impl<'a> Item<'a> for RawInfo<'a> {
    type Decoded = p::ClientInfo;

    fn decode(self, _: &ItemBudget) -> Result<p::ClientInfo, DecodeError> {
        Ok(self.into())
    }
}

impl<'a> Item<'a> for Text<'a> {
    type Decoded = String;

    fn decode(self, _: &ItemBudget) -> Result<String, DecodeError> {
        Ok(self.into_owned())
    }
}

fn publications(raw: Raw<'_>, items: &ItemBudget) -> Result<Vec<Arc<p::Publication>>, DecodeError> {
    let list = read_items(raw, ListVisitor::<RawPublication<'_>>(items, PhantomData), items)?;
    Ok(list.into_iter().map(Arc::new).collect())
}

/// The entries of an object, in the order of their names.
fn entries<'a, T: Item<'a>>(
    raw: Raw<'a>,
    items: &ItemBudget,
) -> Result<Vec<(String, T::Decoded)>, DecodeError> {
    let entries = read_items(raw, EntriesVisitor::<T>(items, PhantomData), items)?;
    Ok(entries.into_iter().collect())
}
