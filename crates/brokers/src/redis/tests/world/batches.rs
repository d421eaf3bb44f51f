//! Publications of one turn: they share commands, and each has a result of its own.
//!
//! Invariant: a node and a server without a network between them; every turn is answered at once.

use std::collections::BTreeMap;

use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, JoinRead, PublicationsRequest, PublishOptions, RequestId,
};
use wire::protocol::{Publication, StreamPosition};

use super::pair::Pair;
use crate::limits::{BATCH_BYTES_MAX, BATCH_MAX};
use crate::redis::settings::RedisParts;

type Results = BTreeMap<u64, Result<StreamPosition, BrokerError>>;

/// A node and a server, and what the node's endpoint has received.
struct Publisher {
    pair: Pair,
    results: Results,
    /// Contents of the received publications, with their offsets.
    received: Vec<(u64, String)>,
    next_id: u64,
}

impl Publisher {
    fn new() -> Publisher {
        let (results, received) = (Results::new(), Vec::new());
        Publisher { pair: Pair::new(RedisParts::All), results, received, next_id: 0 }
    }

    fn subscribe(&mut self, channel: &str) {
        let (id, channel) = (RequestId::new(0), channel.into());
        self.pair.submit(PublicationsRequest::Subscribe { id, channel, read: JoinRead::Nothing });
    }

    /// Submits a publication; returns the number of its request.
    fn publish(&mut self, channel: &str, data: &str, options: PublishOptions) -> u64 {
        self.next_id += 1;
        let (id, channel) = (RequestId::new(self.next_id), channel.into());
        let data = data.to_owned().into();
        let publication = Publication { data, ..Publication::default() };
        self.pair.submit(PublicationsRequest::Publish { id, channel, publication, options });
        self.next_id
    }

    /// Ends the turn. Returns the names of the commands.
    fn turn(&mut self) -> Vec<String> {
        let commands = self.pair.turn();
        for event in self.pair.events() {
            match event {
                BrokerEvent::Reply(BrokerReply::Published(id, result)) => {
                    let before = self.results.insert(id.number(), result);
                    assert_eq!(before, None, "a second reply");
                }
                BrokerEvent::Publication { publication, .. } => {
                    let data = String::from_utf8_lossy(&publication.data).into_owned();
                    self.received.push((publication.offset, data));
                }
                _ => {}
            }
        }
        commands
    }

    fn offset(&self, id: u64) -> u64 {
        self.results[&id].as_ref().expect("it succeeded").offset
    }
}

fn kept() -> PublishOptions {
    let (history_size, history_ttl_ms) = (500, 600_000);
    PublishOptions { history_size, history_ttl_ms, ..PublishOptions::default() }
}

#[test]
fn publications_of_a_turn_share_a_command_and_keep_their_order() {
    let mut publisher = Publisher::new();
    publisher.subscribe("a");
    publisher.subscribe("b");
    publisher.turn();
    let channels = ["a", "a", "b", "b", "a", "plain", "b"];
    let ids: Vec<u64> = (0..)
        .zip(channels)
        .map(|(index, channel)| {
            let options = if channel == "plain" { PublishOptions::default() } else { kept() };
            publisher.publish(channel, &format!("{channel}{index}"), options)
        })
        .collect();
    assert_eq!(publisher.turn(), ["EVALSHA"]);
    let offsets: Vec<u64> = ids.iter().map(|id| publisher.offset(*id)).collect();
    assert_eq!(offsets, [1, 2, 1, 2, 3, 0, 3]);
    let received = publisher.received.iter().map(|(offset, data)| (*offset, &**data));
    let expected = [(1, "a0"), (2, "a1"), (1, "b2"), (2, "b3"), (3, "a4"), (3, "b6")];
    assert!(received.eq(expected), "{:?}", publisher.received);
    // Without another publication in the turn, one without history needs no script.
    publisher.publish("plain", "x", PublishOptions::default());
    assert_eq!(publisher.turn(), ["PUBLISH"]);
}

#[test]
fn another_command_follows_the_publications_before_it() {
    let mut publisher = Publisher::new();
    publisher.publish("a", "1", kept());
    publisher.subscribe("a");
    publisher.publish("a", "2", kept());
    assert_eq!(publisher.turn(), ["EVALSHA", "SUBSCRIBE", "ECHO", "ECHO", "EVALSHA"]);
    assert_eq!(publisher.received, [(2, "2".to_owned())]);
}

#[test]
fn keys_and_versions_hold_within_a_command() {
    let mut publisher = Publisher::new();
    let keyed = || PublishOptions { idempotency_key: "k".to_owned(), ..kept() };
    let version = |version| PublishOptions { version, ..kept() };
    let first = publisher.publish("a", "1", keyed());
    let again = publisher.publish("a", "1", keyed());
    let other = publisher.publish("a", "2", kept());
    let newer = publisher.publish("a", "3", version(9));
    let older = publisher.publish("a", "4", version(8));
    let last = publisher.publish("a", "5", version(10));
    assert_eq!(publisher.turn(), ["EVALSHA"]);
    let offsets = [first, again, other, newer, older, last].map(|id| publisher.offset(id));
    assert_eq!(offsets, [1, 1, 2, 3, 3, 4]);
}

#[test]
fn a_refused_publication_affects_no_other() {
    let mut publisher = Publisher::new();
    let before = publisher.publish("a", "1", kept());
    let bad = publisher.publish("foreign", "1", kept());
    publisher.turn();
    // Another application writes where the stream of a channel lies.
    let store = &mut publisher.pair.server.model.store;
    let mut keys = store.keys().into_iter();
    let key = keys.find(|key| key.ends_with(b":stream:foreign")).expect("a stream");
    store.execute(&[b"DEL".to_vec(), key.clone()]);
    store.execute(&[b"SET".to_vec(), key, b"x".to_vec()]);
    let good = publisher.publish("a", "2", kept());
    let refused =
        [publisher.publish("foreign", "2", kept()), publisher.publish("foreign", "3", kept())];
    let last = publisher.publish("a", "3", kept());
    assert_eq!(publisher.turn(), ["EVALSHA"]);
    assert_eq!([before, bad, good, last].map(|id| publisher.offset(id)), [1, 1, 2, 3]);
    for id in refused {
        assert_eq!(publisher.results[&id], Err(BrokerError::Unavailable));
    }
}

#[test]
fn a_server_without_the_script_executes_none_and_gets_all_again() {
    let mut publisher = Publisher::new();
    publisher.pair.server.model.flush_scripts();
    let ids: Vec<u64> =
        (0..5).map(|index| publisher.publish("a", &index.to_string(), kept())).collect();
    publisher.turn();
    assert!(publisher.results.is_empty());
    publisher.pair.pass(500);
    publisher.turn();
    let offsets: Vec<u64> = ids.iter().map(|id| publisher.offset(*id)).collect();
    assert_eq!(offsets, [1, 2, 3, 4, 5]);
}

#[test]
fn a_command_is_bounded_in_publications_and_bytes() {
    let mut publisher = Publisher::new();
    let count = 2 * BATCH_MAX + 1;
    for _ in 0..count {
        publisher.publish("a", "x", kept());
    }
    assert_eq!(publisher.turn().len(), 3);
    assert_eq!(publisher.results.len(), count);
    let large = "x".repeat(BATCH_BYTES_MAX / 3);
    for _ in 0..5 {
        publisher.publish("a", &large, kept());
    }
    assert_eq!(publisher.turn().len(), 3);
    let huge = "x".repeat(2 * BATCH_BYTES_MAX);
    let id = publisher.publish("a", &huge, kept());
    publisher.publish("a", "x", kept());
    assert_eq!(publisher.turn().len(), 2);
    assert_eq!(publisher.offset(id), count as u64 + 6);
}
