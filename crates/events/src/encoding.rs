//! Events as JSON.
//!
//! Invariant: the fields of `online` and `offline` are those of the channel `sys:presence`, beside
//! the ids of event and process.

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

/// Whose events they are.
#[derive(Clone, Debug)]
pub(crate) struct EventOrigin {
    /// Name of the node.
    pub(crate) node_id: Box<str>,
    /// The same for no two processes, also of one node.
    pub(crate) process_id: Box<str>,
}

#[derive(Serialize)]
struct EventJson<'e> {
    id: &'e str,
    event: &'static str,
    node_id: &'e str,
    process_id: &'e str,
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
    pub(crate) fn encode(&self, id: &str, origin: &EventOrigin) -> Bytes {
        let json = EventJson {
            id,
            event: self.kind.name(),
            node_id: &origin.node_id,
            process_id: &origin.process_id,
            timestamp: self.at_ms,
            client_id: self.client.map(|client| client.client),
            user_id: self.client.map(|client| client.user),
            channel: self.channel,
            reason: self.reason,
            count: self.loss.map(|loss| loss.count),
            since: self.loss.map(|loss| loss.since_ms),
            load: self.load,
        };
        // Without the spare capacity, which would stay allocated while the event waits.
        serde_json::to_vec(&json).expect("texts and numbers are JSON").into_boxed_slice().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_no_spare_capacity() {
        let origin = EventOrigin { node_id: "node".into(), process_id: "process".into() };
        let json = EventBody::new(EventKind::NodeJoined, 1).encode("process-1", &origin);
        let (length, json) = (json.len(), Vec::from(json));
        assert_eq!(json.capacity(), length);
    }
}
