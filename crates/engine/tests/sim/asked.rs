//! What a client waits for, and the order of the answers.

use std::collections::HashMap;

use bytes::Bytes;
use wire::protocol::{ReplyBody, StreamPosition};

use super::oracle::{Oracle, Violation};

/// A command without an answer.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Connect,
    Subscribe(&'static str, Option<StreamPosition>),
    Unsubscribe(&'static str),
    History(&'static str),
    Publish(Bytes),
    /// A backend returns the same data.
    Rpc(Bytes),
    /// A command about an invalid channel name.
    NoName,
    Other,
}

impl Asked {
    /// The channel that it joins or leaves.
    pub(crate) fn membership(&self) -> Option<&'static str> {
        match self {
            Asked::Subscribe(channel, _) | Asked::Unsubscribe(channel) => Some(channel),
            _ => None,
        }
    }
}

/// Checks that subscribes and unsubscribes of one channel are answered in their order, unless a
/// rate limit refuses one before its turn.
pub(crate) fn check_order(
    waiting: &HashMap<u32, Asked>,
    (id, asked): (u32, &Asked),
    body: &ReplyBody,
) -> Result<(), Violation> {
    let is_refused = matches!(body, ReplyBody::Error(error) if error.code == 111);
    let Some(channel) = asked.membership().filter(|_| !is_refused) else { return Ok(()) };
    let is_earlier =
        |(other, asked): &(&u32, &Asked)| **other < id && asked.membership() == Some(channel);
    let earlier = waiting.iter().find(is_earlier);
    Oracle::Order.check(earlier.is_none(), || format!("{id} is answered before {earlier:?}"))
}
