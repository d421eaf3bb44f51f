//! A server that does not answer while requests come.
//!
//! Invariant: what waits is bounded in bytes, and presence is right once the server answers.

use std::sync::Arc;

use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, PresenceRequest, PublicationsRequest, PublishOptions,
    RequestId,
};
use wire::protocol::{ClientInfo, Publication};

use super::pair::Pair;
use crate::limits::{HELD_REQUESTS_BYTES_MAX, IN_FLIGHT_BYTES_MAX};
use crate::redis::settings::RedisParts;

const PUBLICATION: usize = 1024 * 1024;

fn publish(pair: &mut Pair, id: u64) {
    let data = vec![b'x'; PUBLICATION].into();
    let publication = Publication { data, ..Publication::default() };
    let (id, channel, options) = (RequestId::new(id), "a".into(), PublishOptions::default());
    pair.submit(PublicationsRequest::Publish { id, channel, publication, options });
}

/// Submits publications until they are refused, without an answer. Returns what was sent.
fn congest(pair: &mut Pair) -> Vec<u8> {
    for id in 0..(IN_FLIGHT_BYTES_MAX / PUBLICATION) as u64 {
        publish(pair, id);
    }
    let mut sent = Vec::new();
    pair.core.flush(pair.now().time, |_, bytes| sent.append(bytes));
    sent
}

fn overloaded(pair: &mut Pair) -> usize {
    let is_refusal = |event: &BrokerEvent| {
        matches!(event, BrokerEvent::Reply(BrokerReply::Published(_, Err(BrokerError::Overloaded))))
    };
    pair.events().iter().filter(|event| is_refusal(event)).count()
}

fn client(name: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo { client: name.to_owned(), ..ClientInfo::default() })
}

#[test]
fn publications_are_refused_while_too_many_bytes_are_pending() {
    let mut pair = Pair::new(RedisParts::All);
    let sent = congest(&mut pair);
    assert!(sent.len() < IN_FLIGHT_BYTES_MAX + 2 * PUBLICATION);
    assert_eq!(overloaded(&mut pair), 0);
    publish(&mut pair, 1_000);
    assert_eq!(overloaded(&mut pair), 1);
    pair.answer(&sent);
    publish(&mut pair, 1_001);
    pair.turn();
    assert_eq!(overloaded(&mut pair), 0);
}

#[test]
fn publications_are_refused_while_too_many_bytes_wait_for_a_partition() {
    let mut pair = Pair::new(RedisParts::All);
    publish(&mut pair, 0);
    // The first one and those behind it wait until the server executes commands again.
    pair.refuse("TRYAGAIN the slot moves");
    let count = (HELD_REQUESTS_BYTES_MAX / PUBLICATION) as u64;
    (1..=count).for_each(|id| publish(&mut pair, id));
    assert_eq!(overloaded(&mut pair), 0);
    (0..10).for_each(|id| publish(&mut pair, 1_000 + id));
    assert_eq!(overloaded(&mut pair), 10);
    pair.pass(100);
    pair.turn();
    publish(&mut pair, 2_000);
    pair.turn();
    let published =
        |event: &BrokerEvent| matches!(event, BrokerEvent::Reply(BrokerReply::Published(_, Ok(_))));
    assert_eq!(pair.events().iter().filter(|event| published(event)).count() as u64, count + 2);
}

#[test]
fn joins_and_leaves_wait_as_state_and_not_as_commands() {
    let mut pair = Pair::new(RedisParts::All);
    let sent = congest(&mut pair);
    for _ in 0..10_000 {
        for name in ["gone", "stays"] {
            let (channel, info) = ("a".into(), client(name));
            pair.submit(PresenceRequest::Add { channel, info, announces: false });
        }
        let (channel, client) = ("a".into(), client("gone"));
        pair.submit(PresenceRequest::Remove { channel, client });
    }
    let mut written = 0;
    pair.core.flush(pair.now().time, |_, bytes| written += std::mem::take(bytes).len());
    assert_eq!(written, 0);
    pair.answer(&sent);
    // Long before the next renewal.
    for _ in 0..4 {
        pair.pass(50);
        pair.turn();
    }
    pair.events();
    let (id, channel) = (RequestId::new(1), "a".into());
    pair.submit(PresenceRequest::Clients { id, channel });
    pair.turn();
    let clients = |event| match event {
        BrokerEvent::Reply(BrokerReply::Presence(_, Ok(clients))) => Some(clients),
        _ => None,
    };
    let clients = pair.events().into_iter().find_map(clients).expect("a reply");
    let names: Vec<&str> = clients.iter().map(|client| &*client.client).collect();
    assert_eq!(names, ["stays"]);
}
