//! Calls of the application: commands with one result each, which wait for the connection and then
//! for a reply.
//!
//! Invariant: every call ends once, with a result or an error; the bytes of those that have not
//! ended are bounded.

use std::collections::{BTreeMap, VecDeque};

use wire::protocol::Request;

use super::event::CallId;
use crate::error::CallError;
use crate::limits::COMMAND_OVERHEAD;

/// Commands of the application that wait for the connection or for a reply.
#[derive(Debug)]
pub(super) struct Calls {
    bytes_max: usize,
    bytes: usize,
    next: u64,
    weights: BTreeMap<CallId, usize>,
    /// Calls that were not sent; some may have ended since.
    waiting: VecDeque<(CallId, Request)>,
}

impl Calls {
    pub(super) fn new(bytes_max: usize) -> Calls {
        Calls { bytes_max, bytes: 0, next: 1, weights: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Whether another call may be made. One that is larger than the bound may be made alone.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < self.bytes_max
    }

    /// Takes a call in, to be sent.
    pub(super) fn add(&mut self, request: Request) -> Result<CallId, CallError> {
        if !self.has_room() {
            return Err(CallError::QueueFull);
        }
        let id = CallId(self.next);
        self.next += 1;
        let weight = weight(&request);
        self.bytes += weight;
        self.weights.insert(id, weight);
        self.waiting.push_back((id, request));
        Ok(id)
    }

    /// The next call to send.
    pub(super) fn next_waiting(&mut self) -> Option<(CallId, Request)> {
        self.waiting.pop_front()
    }

    /// A call ends; `false` when it has ended before.
    pub(super) fn end(&mut self, call: CallId) -> bool {
        let Some(weight) = self.weights.remove(&call) else { return false };
        self.bytes -= weight;
        self.waiting.retain(|(id, _)| *id != call);
        true
    }

    /// All calls that have not ended, each of which ends now.
    pub(super) fn end_all(&mut self) -> Vec<CallId> {
        self.waiting.clear();
        self.bytes = 0;
        std::mem::take(&mut self.weights).into_keys().collect()
    }
}

fn weight(request: &Request) -> usize {
    let channel = match request {
        Request::Publish(request) => request.channel.len(),
        Request::History(request) => request.channel.len(),
        Request::Presence { channel } | Request::PresenceStats { channel } => channel.len(),
        Request::Rpc { method, .. } => method.len(),
        _ => 0,
    };
    let payloads: usize = request.payloads().map(|payload| payload.len()).sum();
    COMMAND_OVERHEAD + channel + payloads
}
