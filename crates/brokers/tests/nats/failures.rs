//! Panics in parts of the broker: the node becomes unready and continues, or its process aborts
//! with a message.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use std::sync::Arc;
use std::time::Instant;

use crate::conformance::World as _;
use brokers::nats::{FaultPoint, NatsOptions};
use engine::broker::{
    BrokerError, JoinRead, Membership, PresenceRequest, PublicationsRequest, PublishOptions,
    RequestId,
};
use engine::channel::LIFECYCLE;
use wire::protocol::{ClientInfo, Publication};

use crate::comeback::join;
use crate::lifecycle::{reported, tell};
use crate::pair::{LONG, Pair};
use crate::server::Server;
use crate::world::NatsWorld;

#[test]
fn a_channel_whose_task_fails_is_subscribed_again_and_verified() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let epoch = pair.subscribe().unwrap().top.epoch;
    assert_eq!(pair.publish(10).unwrap().offset, 1);
    pair.world.nodes[0].break_part(FaultPoint::Channel(pair.channel.clone()));
    pair.world.wait_health(0, "(channel) has failed and was started again: broken on purpose");
    // The position shows publications that were missed.
    assert_eq!(pair.publish(10).unwrap().offset, 2);
    let position = pair.next_position();
    assert_eq!(position.epoch, epoch);
    assert!((1..=2).contains(&position.offset), "{position:?}");
    assert_eq!(pair.publish(10).unwrap().offset, 3);
    while pair.received_offset() != 3 {}
    pair.world.wait_health(0, "ready");
}

#[test]
fn a_request_to_a_channel_task_that_fails_gets_a_reply() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    pair.world.nodes[1].break_part(FaultPoint::Channel(pair.channel.clone()));
    // The request is queued behind the failure.
    assert_eq!(pair.publish(10).unwrap().offset, 1);
}

#[test]
fn every_other_task_that_fails_is_logged_and_restarted() {
    let server = Server::start();
    let parts = [
        (FaultPoint::Node, "node"),
        (FaultPoint::Echo, "echo"),
        (FaultPoint::Lifecycle, "lifecycle"),
        (FaultPoint::Task, "task"),
    ];
    let mut pairs = parts.map(|(part, name)| {
        let mut pair = Pair::of(NatsWorld::named(&server.options(), 2, name));
        pair.channel = format!("room of {name}").into();
        pair.subscribe().unwrap();
        pair.world.nodes[0].break_part(part);
        (pair, name)
    });
    for (pair, name) in &pairs {
        pair.world.wait_health(0, &format!("({name}) has failed and was started again"));
    }
    for (pair, _) in &mut pairs {
        pair.world.wait_health(0, "ready");
        let position = pair.publish(10).unwrap();
        while pair.received_offset() != position.offset {}
        pair.subscribe().unwrap();
    }
}

#[test]
fn lifecycle_events_in_flight_are_sent_after_a_failure() {
    let server = Server::start();
    let mut world = NatsWorld::new(&server.options(), 1);
    let (listener, endpoint) = (world.attach(), world.attach());
    join(&mut world, listener, LIFECYCLE);
    world.nodes[0].break_part(FaultPoint::Lifecycle);
    tell(&mut world, endpoint, "comes", true);
    assert_eq!(reported(&mut world, listener), ("online".into(), "comes".into()));
}

/// Parts that cannot be restarted abort the process; this test runs itself in a child process for
/// that.
#[test]
fn without_its_client_or_its_thread_the_process_ends_with_a_message() {
    const NAME: &str = "failures::without_its_client_or_its_thread_the_process_ends_with_a_message";
    if let (Ok(part), Ok(url)) = (std::env::var("BREAK"), std::env::var("BREAK_URL")) {
        let options = NatsOptions { url, ..NatsOptions::default() };
        let world = NatsWorld::new(&options, 1);
        world.nodes[0].break_part(if part == "client" {
            FaultPoint::Client
        } else {
            FaultPoint::Thread
        });
        loop {
            std::thread::park();
        }
    }
    let server = Server::start();
    for (part, words) in
        [("client", "the client has ended"), ("thread", "the thread of the broker has panicked")]
    {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([NAME, "--exact", "--nocapture"]).env("BREAK", part);
        let output = command.env("BREAK_URL", server.options().url).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(6), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
}

/// Adds a client to the presence of the channel.
fn add(channel: &Arc<str>) -> PresenceRequest {
    let info = Arc::new(ClientInfo { client: "client".into(), ..ClientInfo::default() });
    PresenceRequest::Add { channel: channel.clone(), info, announces: false }
}

/// Waits until the other node sees this number of clients in the channel.
fn wait_for_clients(pair: &mut Pair, count: usize) {
    let until = Instant::now() + LONG;
    loop {
        let read = |id, channel| PresenceRequest::Clients { id, channel };
        let clients = pair.answer(pair.publisher, read);
        if clients.as_ref().is_ok_and(|clients| clients.len() == count) {
            return;
        }
        assert!(Instant::now() < until, "{clients:?}");
    }
}

#[test]
fn a_client_is_present_though_the_task_that_stores_it_fails() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    pair.subscribe().unwrap();
    let worker = pair.world.attach();
    pair.world.fill_inbox(pair.listener);
    server.signal("-STOP");
    let present: Arc<str> = "another room".into();
    // The node is busy, so that the channel's task finds the next two requests together, and keeps
    // the client until the subscription is answered.
    for _ in 0..2_000 {
        let info = Arc::new(ClientInfo::default());
        let (channel, change) = ("noise".into(), Membership::Join);
        pair.world.submit(worker, PublicationsRequest::Announce { channel, info, change });
    }
    let (id, channel, read) = (RequestId::new(0), present.clone(), JoinRead::Nothing);
    pair.world.submit(worker, PublicationsRequest::Subscribe { id, channel, read });
    pair.world.submit(worker, add(&present));
    // It is refused at once, behind the requests before.
    let refused = pair.answer(worker, |id, channel| PublicationsRequest::Publish {
        id,
        channel,
        publication: Publication::default(),
        options: PublishOptions::default(),
    });
    assert_eq!(refused, Err(BrokerError::Overloaded));
    pair.world.nodes[0].break_part(FaultPoint::Channel(present.clone()));
    pair.world.wait_health(0, "(channel) has failed");
    server.signal("-CONT");
    pair.channel = present;
    wait_for_clients(&mut pair, 1);
}

#[test]
fn a_client_whose_endpoint_ends_before_it_is_stored_is_not_present() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let (worker, _) = (pair.world.attach(), pair.world.attach());
    let other = pair.world.attach();
    server.signal("-STOP");
    let channel = pair.channel.clone();
    let (id, read) = (RequestId::new(1), JoinRead::Nothing);
    pair.world.submit(worker, PublicationsRequest::Subscribe { id, channel, read });
    pair.world.submit(worker, add(&pair.channel));
    pair.world.detach(worker);
    server.signal("-CONT");
    // The reply to another endpoint of that node stands behind the entry.
    pair.join(other, JoinRead::Nothing).unwrap();
    wait_for_clients(&mut pair, 0);
}
