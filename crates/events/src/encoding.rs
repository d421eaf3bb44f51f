//! Events as JSON.
//!
//! Invariant: the fields of `online` and `offline` are those of the channel `sys:presence`, beside
//! the id.

use bytes::Bytes;
use serde::Serialize;

use crate::occurrence::{EventClient, EventKind, NodeLoad};

/// An event before it is encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventBody<'e> {
    pub(crate) kind: EventKind,
    pub(crate) at_ms: i64,
    pub(crate) client: Option<EventClient<'e>>,
    pub(crate) channel: Option<&'e str>,
    pub(crate) reason: Option<&'e str>,
    pub(crate) loss: Option<EventLoss>,
    pub(crate) load: Option<NodeLoad>,
}

/// Events that are missing in the place of a `lost` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventLoss {
    pub(crate) count: u64,
    /// Unix time in milliseconds of the first one.
    pub(crate) since_ms: i64,
}

#[derive(Serialize)]
struct EventJson<'e> {
    id: &'e str,
    event: &'static str,
    node_id: &'e str,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
    #[serde(flatten)]
    load: Option<NodeLoad>,
}

impl<'e> EventBody<'e> {
    pub(crate) fn new(kind: EventKind, at_ms: i64) -> EventBody<'e> {
        EventBody { kind, at_ms, client: None, channel: None, reason: None, loss: None, load: None }
    }

    /// The JSON of an event.
    pub(crate) fn encode(&self, id: &str, node_id: &str) -> Bytes {
        let json = EventJson {
            id,
            event: self.kind.name(),
            node_id,
            timestamp: self.at_ms,
            client_id: self.client.map(|client| client.client),
            user_id: self.client.map(|client| client.user),
            channel: self.channel,
            reason: self.reason,
            count: self.loss.map(|loss| loss.count),
            since: self.loss.map(|loss| loss.since_ms),
            load: self.load,
        };
        serde_json::to_vec(&json).expect("texts and numbers are JSON").into()
    }
}
