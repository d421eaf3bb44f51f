//! Replies and pushes, as a client decodes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::{Empty, Raw, RawData, content, object, payload, verbatim};
use crate::protocol::json::value::Text;
use crate::protocol::{self as p, DecodeError, PushEvent, Reply, ReplyBody, StreamPosition};

pub(in crate::protocol::json) fn reply(line: &[u8]) -> Result<Reply, DecodeError> {
    object::<RawReply<'_>>(line).map(Reply::from)
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
    tags: Option<BTreeMap<Text<'a>, Text<'a>>>,
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
    subs: Option<BTreeMap<Text<'a>, RawSubscribeResult<'a>>>,
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
    publications: Vec<RawPublication<'a>>,
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
    presence: BTreeMap<Text<'a>, RawInfo<'a>>,
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
    publications: Vec<RawPublication<'a>>,
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

impl From<RawReply<'_>> for Reply {
    fn from(raw: RawReply<'_>) -> Reply {
        let body = if let Some(error) = raw.error {
            ReplyBody::Error(p::ErrorReply {
                code: error.code,
                message: error.message.into_owned(),
                temporary: error.temporary,
            })
        } else if let Some(push) = raw.push {
            ReplyBody::Push(push.into())
        } else if let Some(result) = raw.connect {
            ReplyBody::Connect(Box::new(result.into()))
        } else if let Some(result) = raw.subscribe {
            ReplyBody::Subscribe(Box::new(result.into()))
        } else if raw.unsubscribe.is_some() {
            ReplyBody::Unsubscribe
        } else if raw.publish.is_some() {
            ReplyBody::Publish
        } else if let Some(presence) = raw.presence {
            let clients = presence.presence.into_iter();
            ReplyBody::Presence(clients.map(|(id, info)| (id.into_owned(), info.into())).collect())
        } else if let Some(RawStats { num_clients, num_users }) = raw.presence_stats {
            ReplyBody::PresenceStats(p::PresenceStats { num_clients, num_users })
        } else if let Some(result) = raw.history {
            ReplyBody::History(p::HistoryResult {
                publications: publications(result.publications),
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
        Reply { id: raw.id, body }
    }
}

impl From<RawPush<'_>> for p::Push {
    fn from(raw: RawPush<'_>) -> p::Push {
        let event = if let Some(publication) = raw.r#pub {
            PushEvent::Publication(Arc::new(publication.into()))
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
        p::Push { channel: raw.channel.as_str().into(), event }
    }
}

fn publications(raw: Vec<RawPublication<'_>>) -> Vec<Arc<p::Publication>> {
    raw.into_iter().map(|publication| Arc::new(publication.into())).collect()
}

impl From<RawPublication<'_>> for p::Publication {
    fn from(raw: RawPublication<'_>) -> p::Publication {
        p::Publication {
            data: verbatim(raw.data),
            info: raw.info.map(p::ClientInfo::from),
            offset: raw.offset,
            tags: pairs(raw.tags),
            time: raw.time,
        }
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

impl From<RawConnectResult<'_>> for p::ConnectResult {
    fn from(raw: RawConnectResult<'_>) -> p::ConnectResult {
        let subs = raw.subs.unwrap_or_default().into_iter();
        p::ConnectResult {
            client: raw.client.into_owned(),
            version: raw.version.into_owned(),
            expires: raw.expires,
            ttl: raw.ttl,
            data: payload(raw.data),
            subs: subs.map(|(channel, result)| (channel.into_owned(), result.into())).collect(),
            ping: raw.ping,
            pong: raw.pong,
            session: raw.session.into_owned(),
            node: raw.node.into_owned(),
            time: raw.time,
        }
    }
}

impl From<RawSubscribeResult<'_>> for p::SubscribeResult {
    fn from(raw: RawSubscribeResult<'_>) -> p::SubscribeResult {
        p::SubscribeResult {
            expires: raw.expires,
            ttl: raw.ttl,
            recoverable: raw.recoverable,
            epoch: raw.epoch.into_owned(),
            publications: publications(raw.publications),
            recovered: raw.recovered,
            offset: raw.offset,
            positioned: raw.positioned,
            data: payload(raw.data),
            was_recovering: raw.was_recovering,
        }
    }
}

fn pairs(raw: Option<BTreeMap<Text<'_>, Text<'_>>>) -> Vec<(String, String)> {
    let owned = |(key, value): (Text<'_>, Text<'_>)| (key.into_owned(), value.into_owned());
    raw.unwrap_or_default().into_iter().map(owned).collect()
}
