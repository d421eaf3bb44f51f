//! A model of the history stream of JetStream: sequences, conditions, identifiers, removal.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::nats::stored_message::{Ack, StoredMessage};

/// Milliseconds for which the stream finds a repeated identifier.
const DUPLICATES_MS: u64 = 330_000;

/// The messages of all channels, by sequence; a channel is its number.
#[derive(Clone, Default)]
pub(super) struct ModelStore {
    last: u64,
    messages: BTreeMap<u64, (usize, Bytes)>,
    identifiers: HashMap<String, (u64, u64)>,
}

/// A stored message as the stream republishes it.
pub(super) struct Republished {
    pub(super) sequence: u64,
    /// Sequence of the channel's message before it; zero for none.
    pub(super) after: u64,
}

impl ModelStore {
    pub(super) fn store(
        &mut self,
        now_ms: u64,
        channel: usize,
        after: u64,
        (identifier, payload): (&str, &Bytes),
    ) -> (Ack, Option<Republished>) {
        let known = self.identifiers.get(identifier).filter(|_| !identifier.is_empty());
        if let Some((sequence, at_ms)) = known
            && at_ms + DUPLICATES_MS > now_ms
        {
            return (Ack::Duplicate(*sequence), None);
        }
        let newest = self.newest(channel).map_or(0, |newest| newest.sequence);
        if newest != after {
            return (Ack::Conflict, None);
        }
        self.last += 1;
        self.messages.insert(self.last, (channel, payload.clone()));
        if !identifier.is_empty() {
            self.identifiers.insert(identifier.to_owned(), (self.last, now_ms));
        }
        (Ack::Stored(self.last), Some(Republished { sequence: self.last, after: newest }))
    }

    pub(super) fn newest(&self, channel: usize) -> Option<StoredMessage> {
        let of_channel = self.messages.iter().rev().find(|(_, message)| message.0 == channel);
        of_channel.map(|(sequence, message)| stored(*sequence, &message.1))
    }

    pub(super) fn numbered(&self, sequence: u64) -> Option<StoredMessage> {
        self.messages.get(&sequence).map(|message| stored(sequence, &message.1))
    }

    pub(super) fn all(&self, channel: usize) -> Vec<StoredMessage> {
        let of_channel = self.messages.iter().filter(|(_, message)| message.0 == channel);
        of_channel.map(|(sequence, message)| stored(*sequence, &message.1)).collect()
    }

    pub(super) fn remove_before(&mut self, channel: usize, sequence: u64) {
        self.messages.retain(|number, message| message.0 != channel || *number >= sequence);
    }

    pub(super) fn keep(&mut self, channel: usize, newest: u64) {
        let kept = self.all(channel);
        let first = kept.len().saturating_sub(usize::try_from(newest).unwrap());
        if let Some(first) = kept.get(first) {
            self.remove_before(channel, first.sequence);
        }
    }
}

fn stored(sequence: u64, payload: &Bytes) -> StoredMessage {
    StoredMessage { subject: String::new(), sequence, payload: payload.clone(), at_ms: 0 }
}
