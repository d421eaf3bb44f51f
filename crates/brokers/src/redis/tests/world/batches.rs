//! Publications of one turn: they share commands, and each has a result of its own.
//!
//! Invariant: a node and a server without a network between them; every turn is answered at once.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, JoinRead, PublicationsRequest, PublishOptions, RequestId,
};
use wire::protocol::{Publication, StreamPosition};

use super::server::SimServer;
use crate::Endpoint;
use crate::limits::{BATCH_BYTES_MAX, BATCH_MAX};
use crate::redis::clock::{ClockReading, MonotonicTime};
use crate::redis::core::RedisCore;
use crate::redis::driver_messages::{ConnectionId, DriverEvent, Job, LinkCommand, LinkEvent};
use crate::redis::outputs::{CoreOutput, EndpointStates};
use crate::redis::resp::{Frame, RespDecoder};
use crate::redis::settings::{Deployment, Login, RedisParts, RedisSettings, ServerLocation};
use crate::redis::tests::model::scripts::Interpreter;

type Results = BTreeMap<u64, Result<StreamPosition, BrokerError>>;

/// A node that is connected to a server.
struct Pair {
    core: RedisCore,
    server: SimServer,
    connection_id: ConnectionId,
    results: Results,
    /// Contents of the received publications, with their offsets.
    received: Vec<(u64, String)>,
    next_id: u64,
}

/// All endpoints are attached and none is behind.
struct Attached;

impl EndpointStates for Attached {
    fn is_attached(&self, _: Endpoint) -> bool {
        true
    }

    fn is_full(&self, _: Endpoint) -> bool {
        false
    }
}

fn now() -> ClockReading {
    let time = MonotonicTime::after_start(Duration::from_secs(1));
    ClockReading { time, unix_ms: 1_700_000_000_000 }
}

impl Pair {
    fn new() -> Pair {
        let mut server = SimServer::new(0, &Rc::new(Interpreter::new()), 64);
        let settings = RedisSettings {
            deployment: Deployment::Servers(vec![ServerLocation::At(server.address.clone())]),
            login: Login::default(),
            database: 0,
            tls: None,
            prefix: "sim".to_owned(),
            node: "n1".to_owned(),
            name: "n1".to_owned(),
            lease: Duration::from_secs(4),
            events_max: 100,
            seed: 1,
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(1),
            presence_ttl: Duration::from_secs(12),
            parts: RedisParts::All,
        };
        let mut core = RedisCore::new(now().time, &settings);
        let connection_id = loop {
            match core.poll_command() {
                Some(LinkCommand::Connect { connection_id, .. }) => break connection_id,
                Some(_) => {}
                None => panic!("the node does not connect"),
            }
        };
        let up = LinkEvent::Up(Box::new(server.open(1)));
        core.handle_event(now(), DriverEvent::Link(connection_id, up));
        let (results, received) = (Results::new(), Vec::new());
        let mut pair = Pair { core, server, connection_id, results, received, next_id: 0 };
        pair.turn();
        pair
    }

    fn submit(&mut self, request: PublicationsRequest) {
        let job = Job::Request { endpoint: Endpoint(0), request: request.into() };
        self.core.handle_job(now(), job, &Attached);
    }

    fn subscribe(&mut self, channel: &str) {
        let (id, channel) = (RequestId::new(0), channel.into());
        self.submit(PublicationsRequest::Subscribe { id, channel, read: JoinRead::Nothing });
    }

    /// Submits a publication; returns the number of its request.
    fn publish(&mut self, channel: &str, data: &str, options: PublishOptions) -> u64 {
        self.next_id += 1;
        let (id, channel) = (RequestId::new(self.next_id), channel.into());
        let data = data.to_owned().into();
        let publication = Publication { data, ..Publication::default() };
        self.submit(PublicationsRequest::Publish { id, channel, publication, options });
        self.next_id
    }

    /// Ends the turn: sends what was submitted, and handles what the server answers. Returns the
    /// names of the commands.
    fn turn(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        self.core.flush(now().time, |_, bytes| sent.append(bytes));
        let mut decoder = RespDecoder::default();
        decoder.buffer().extend_from_slice(&sent);
        let mut commands = Vec::new();
        while let Some(Frame::List(words)) = decoder.next().expect("the node speaks RESP") {
            commands.push(words[0].str().expect("a name").to_owned());
        }
        self.server.model.receive(1, &sent, now().unix_ms * 1000);
        let mut decoder = RespDecoder::default();
        decoder.buffer().extend_from_slice(&self.server.model.take_output(1));
        let frames: Vec<_> =
            std::iter::from_fn(|| decoder.next().expect("the model speaks RESP")).collect();
        let event = DriverEvent::Link(self.connection_id, LinkEvent::Frames(frames));
        self.core.handle_event(now(), event);
        while let Some(output) = self.core.poll_output() {
            match output {
                CoreOutput::Deliver(_, BrokerEvent::Reply(BrokerReply::Published(id, result))) => {
                    let before = self.results.insert(id.number(), result);
                    assert_eq!(before, None, "a second reply");
                }
                CoreOutput::Deliver(_, BrokerEvent::Publication { publication, .. }) => {
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
    let mut pair = Pair::new();
    pair.subscribe("a");
    pair.subscribe("b");
    pair.turn();
    let channels = ["a", "a", "b", "b", "a", "plain", "b"];
    let ids: Vec<u64> = (0..)
        .zip(channels)
        .map(|(index, channel)| {
            let options = if channel == "plain" { PublishOptions::default() } else { kept() };
            pair.publish(channel, &format!("{channel}{index}"), options)
        })
        .collect();
    assert_eq!(pair.turn(), ["EVALSHA"]);
    let offsets: Vec<u64> = ids.iter().map(|id| pair.offset(*id)).collect();
    assert_eq!(offsets, [1, 2, 1, 2, 3, 0, 3]);
    let received = pair.received.iter().map(|(offset, data)| (*offset, &**data));
    let expected = [(1, "a0"), (2, "a1"), (1, "b2"), (2, "b3"), (3, "a4"), (3, "b6")];
    assert!(received.eq(expected), "{:?}", pair.received);
    // Without another publication in the turn, one without history needs no script.
    pair.publish("plain", "x", PublishOptions::default());
    assert_eq!(pair.turn(), ["PUBLISH"]);
}

#[test]
fn another_command_follows_the_publications_before_it() {
    let mut pair = Pair::new();
    pair.publish("a", "1", kept());
    pair.subscribe("a");
    pair.publish("a", "2", kept());
    assert_eq!(pair.turn(), ["EVALSHA", "SUBSCRIBE", "ECHO", "ECHO", "EVALSHA"]);
    assert_eq!(pair.received, [(2, "2".to_owned())]);
}

#[test]
fn keys_and_versions_hold_within_a_command() {
    let mut pair = Pair::new();
    let keyed = || PublishOptions { idempotency_key: "k".to_owned(), ..kept() };
    let version = |version| PublishOptions { version, ..kept() };
    let first = pair.publish("a", "1", keyed());
    let again = pair.publish("a", "1", keyed());
    let other = pair.publish("a", "2", kept());
    let newer = pair.publish("a", "3", version(9));
    let older = pair.publish("a", "4", version(8));
    let last = pair.publish("a", "5", version(10));
    assert_eq!(pair.turn(), ["EVALSHA"]);
    let offsets = [first, again, other, newer, older, last].map(|id| pair.offset(id));
    assert_eq!(offsets, [1, 1, 2, 3, 3, 4]);
}

#[test]
fn a_refused_publication_affects_no_other() {
    let mut pair = Pair::new();
    let before = pair.publish("a", "1", kept());
    let bad = pair.publish("foreign", "1", kept());
    pair.turn();
    // Another application writes where the stream of a channel lies.
    let store = &mut pair.server.model.store;
    let mut keys = store.keys().into_iter();
    let key = keys.find(|key| key.ends_with(b":stream:foreign")).expect("a stream");
    store.execute(&[b"DEL".to_vec(), key.clone()]);
    store.execute(&[b"SET".to_vec(), key, b"x".to_vec()]);
    let good = pair.publish("a", "2", kept());
    let refused = [pair.publish("foreign", "2", kept()), pair.publish("foreign", "3", kept())];
    let last = pair.publish("a", "3", kept());
    assert_eq!(pair.turn(), ["EVALSHA"]);
    assert_eq!([before, bad, good, last].map(|id| pair.offset(id)), [1, 1, 2, 3]);
    for id in refused {
        assert_eq!(pair.results[&id], Err(BrokerError::Unavailable));
    }
}

#[test]
fn a_server_without_the_script_executes_none_and_gets_all_again() {
    let mut pair = Pair::new();
    pair.server.model.flush_scripts();
    let ids: Vec<u64> = (0..5).map(|index| pair.publish("a", &index.to_string(), kept())).collect();
    pair.turn();
    assert!(pair.results.is_empty());
    let later = ClockReading { time: now().time + Duration::from_millis(500), ..now() };
    pair.core.handle_timeout(later);
    pair.turn();
    let offsets: Vec<u64> = ids.iter().map(|id| pair.offset(*id)).collect();
    assert_eq!(offsets, [1, 2, 3, 4, 5]);
}

#[test]
fn a_command_is_bounded_in_publications_and_bytes() {
    let mut pair = Pair::new();
    let count = 2 * BATCH_MAX + 1;
    for _ in 0..count {
        pair.publish("a", "x", kept());
    }
    assert_eq!(pair.turn().len(), 3);
    assert_eq!(pair.results.len(), count);
    let large = "x".repeat(BATCH_BYTES_MAX / 3);
    for _ in 0..5 {
        pair.publish("a", &large, kept());
    }
    assert_eq!(pair.turn().len(), 3);
    let huge = "x".repeat(2 * BATCH_BYTES_MAX);
    let id = pair.publish("a", &huge, kept());
    pair.publish("a", "x", kept());
    assert_eq!(pair.turn().len(), 2);
    assert_eq!(pair.offset(id), count as u64 + 6);
}
