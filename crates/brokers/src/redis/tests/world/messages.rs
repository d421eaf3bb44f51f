//! Messages without an offset: plain publications, joins and leaves, as servers have published them
//! and as subscribers receive them.
//!
//! Invariant: a subscriber receives the messages of a server in their order, each once, and misses
//! some only while its node was not subscribed at the server.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::broker::Membership;

/// A message without an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PlainMessage {
    Publication(Vec<u8>),
    Membership(String, Membership),
}

/// What one server has published in one channel.
#[derive(Debug, Default)]
struct ChannelLog {
    messages: Vec<PlainMessage>,
    /// Numbers of the messages before which a node has subscribed, by its name.
    begins: BTreeMap<String, Vec<usize>>,
}

/// All messages without an offset, by channel and server.
#[derive(Debug, Default)]
pub(super) struct MessageLog {
    channels: BTreeMap<Arc<str>, BTreeMap<usize, ChannelLog>>,
    /// The server that has published last, by channel.
    last: BTreeMap<Arc<str>, usize>,
}

/// The next message that a subscriber expects from each server.
#[derive(Debug, Default)]
pub(super) struct MessageCursor {
    next: BTreeMap<usize, usize>,
}

impl MessageLog {
    fn channel(&mut self, channel: &Arc<str>, server: usize) -> &mut ChannelLog {
        self.channels.entry(channel.clone()).or_default().entry(server).or_default()
    }

    pub(super) fn add(&mut self, channel: &Arc<str>, server: usize, message: PlainMessage) {
        self.channel(channel, server).messages.push(message);
        self.last.insert(channel.clone(), server);
    }

    /// A server has executed a node's subscription.
    pub(super) fn begin(&mut self, channel: &Arc<str>, server: usize, node: &str) {
        let log = self.channel(channel, server);
        log.begins.entry(node.to_owned()).or_default().push(log.messages.len());
    }

    /// The places of a message in a channel, over all servers.
    pub(super) fn places(&self, channel: &str, message: &PlainMessage) -> Vec<(usize, usize)> {
        let servers = self.channels.get(channel).into_iter().flatten();
        let places = servers.flat_map(|(server, log)| {
            let messages = log.messages.iter().enumerate();
            let same = messages.filter(|(_, one)| *one == message);
            same.map(|(index, _)| (*server, index))
        });
        places.collect()
    }
}

impl MessageCursor {
    /// Receives a message at a subscriber of a node.
    pub(super) fn advance(
        &mut self,
        log: &MessageLog,
        (node, channel): (&str, &str),
        message: &PlainMessage,
    ) {
        let is_new =
            |(server, index): &(usize, usize)| self.next.get(server).is_none_or(|it| it <= index);
        let places = log.places(channel, message).into_iter().filter(is_new);
        let allowed: Vec<(usize, usize)> =
            places.filter(|place| self.is_allowed(log, (node, channel), *place)).collect();
        let [(server, index), ..] = allowed[..] else {
            panic!(
                "{node} in {channel}: {message:?} is delivered twice, out of order or behind a gap"
            );
        };
        self.next.insert(server, index + 1);
        if allowed.len() > 1 {
            // Which of several equal leaves it is remains open.
            self.next.clear();
        }
    }

    /// Whether nothing is missing before this message.
    fn is_allowed(
        &self,
        log: &MessageLog,
        (node, channel): (&str, &str),
        (server, index): (usize, usize),
    ) -> bool {
        let begins = log.channels[channel][&server].begins.get(node);
        let Some(next) = self.next.get(&server) else { return true };
        *next == index || begins.is_some_and(|begins| begins.contains(&index))
    }

    /// Everything that was published has arrived, the last message over a connection that is open.
    pub(super) fn expect_end(&self, log: &MessageLog, (node, channel): (&str, &str)) {
        let Some(server) = log.last.get(channel) else { return };
        let end = log.channels[channel][server].messages.len();
        let next = self.next.get(server);
        assert_eq!(next, Some(&end), "{node} in {channel}: the last messages are missing");
    }
}
