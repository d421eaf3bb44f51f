//! Results of the methods of the server API.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use wire::protocol::{HistoryResult, StreamPosition};

use crate::cluster::questions::{ClientPlace, NodeInfo};
use crate::service::subscribers::SubscriberPlace;

#[derive(Serialize)]
pub(super) struct PresenceResponse<'a> {
    presence: BTreeMap<&'a str, ClientInfo<'a>>,
}

#[derive(Serialize)]
struct ClientInfo<'a> {
    user: &'a str,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<&'a RawValue>,
}

#[derive(Serialize)]
pub(super) struct PresenceStatsResponse {
    pub(super) num_clients: u32,
    pub(super) num_users: u32,
}

#[derive(Serialize)]
pub(super) struct HistoryResponse<'a> {
    publications: Vec<Publication<'a>>,
    epoch: &'a str,
    offset: u64,
}

#[derive(Serialize)]
struct Publication<'a> {
    /// Null if `b64data` is present: API clients rely on this member.
    data: Option<&'a RawValue>,
    /// Payload in base64, if it is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<ClientInfo<'a>>,
    offset: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
pub(super) struct ChannelsResponse {
    pub(super) channels: BTreeMap<String, ChannelCount>,
    #[serde(flatten)]
    pub(super) incomplete: Incomplete,
}

#[derive(Default, Serialize)]
pub(super) struct ChannelCount {
    pub(super) num_clients: usize,
}

#[derive(Serialize)]
pub(super) struct ChannelResponse<'a> {
    pub(super) channel: &'a str,
    pub(super) tier: &'static str,
    /// Unix time in milliseconds at which a temporary channel was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<i64>,
    /// Seconds until a temporary channel expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<u64>,
    pub(super) num_clients: usize,
    pub(super) num_nodes: usize,
    #[serde(flatten)]
    pub(super) incomplete: Incomplete,
}

#[derive(Serialize)]
pub(super) struct ClientsResponse {
    pub(super) clients: Vec<ClientPlace>,
    #[serde(flatten)]
    pub(super) incomplete: Incomplete,
}

#[derive(Serialize)]
pub(super) struct SubscribersResponse {
    pub(super) subscribers: Vec<SubscriberPlace>,
    /// Start of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
    #[serde(flatten)]
    pub(super) incomplete: Incomplete,
}

#[derive(Serialize)]
pub(super) struct Info {
    pub(super) nodes: Vec<NodeInfo>,
    #[serde(flatten)]
    pub(super) incomplete: Incomplete,
}

/// What a result about all nodes lacks. Both members are left out of a complete result.
#[derive(Serialize)]
pub(super) struct Incomplete {
    /// Nodes that did not answer.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) missing_nodes: usize,
    /// At least one node has more entries than its answer could hold.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) truncated: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Position of a publication; an empty object if the channel has no history.
pub(super) fn published(position: &StreamPosition) -> String {
    #[derive(Serialize)]
    struct Published<'a> {
        offset: u64,
        epoch: &'a str,
    }
    if position.epoch.is_empty() {
        return "{}".to_owned();
    }
    let published = Published { offset: position.offset, epoch: &position.epoch };
    serde_json::to_string(&published).expect("a number and a text are JSON")
}

impl<'a> PresenceResponse<'a> {
    pub(super) fn of(clients: &'a [Arc<wire::protocol::ClientInfo>]) -> PresenceResponse<'a> {
        let presence = clients.iter().map(|info| (&*info.client, ClientInfo::of(info))).collect();
        PresenceResponse { presence }
    }
}

impl<'a> ClientInfo<'a> {
    fn of(info: &'a wire::protocol::ClientInfo) -> ClientInfo<'a> {
        ClientInfo {
            user: &info.user,
            client: &info.client,
            conn_info: raw(&info.conn_info),
            chan_info: raw(&info.chan_info),
        }
    }
}

impl<'a> HistoryResponse<'a> {
    pub(super) fn of(history: &'a HistoryResult) -> HistoryResponse<'a> {
        let publications = history.publications.iter().map(|publication| {
            let data = raw(&publication.data);
            Publication {
                data,
                b64data: data.is_none().then(|| STANDARD.encode(&publication.data)),
                info: publication.info.as_ref().map(ClientInfo::of),
                offset: publication.offset,
                tags: publication.tags.iter().map(|(key, tag)| (&**key, &**tag)).collect(),
            }
        });
        HistoryResponse {
            publications: publications.collect(),
            epoch: &history.epoch,
            offset: history.offset,
        }
    }
}

/// The bytes unchanged, if they are JSON.
fn raw(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}
