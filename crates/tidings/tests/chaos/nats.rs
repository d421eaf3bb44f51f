//! One NATS restarts, stands still, is full, or loses a stream or a right of the nodes.

use std::time::Instant;

use crate::nats_server::NatsServer;
use crate::world::{Cost, World};

fn world_on(nats: &NatsServer, name: &'static str) -> World {
    World::start(name, |_| {
        format!(
            "[broker]\nenabled = true\ntype = \"nats\"\n[broker.nats]\nurl = \"nats://tidings:secret@127.0.0.1:{}\"\n",
            nats.port
        )
    })
}

#[test]
fn a_nats_that_restarts_with_its_data_costs_nothing() {
    let mut nats = NatsServer::start();
    let mut world = world_on(&nats, "NATS restarts with its data");
    nats.kill();
    world.load(world.scale.pause / 2);
    nats.restart();
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Nothing);
}

#[test]
fn a_nats_that_restarts_without_its_data_begins_new_epochs() {
    let mut nats = NatsServer::start();
    let mut world = world_on(&nats, "NATS restarts without its data");
    nats.kill();
    world.load(world.scale.pause / 2);
    nats.restart_empty();
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::NoticesToAll);
}

#[test]
fn a_nats_that_stands_still_costs_nothing() {
    let nats = NatsServer::start();
    let mut world = world_on(&nats, "SIGSTOP of NATS");
    nats.signal("-STOP");
    world.load(world.scale.pause);
    nats.signal("-CONT");
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Nothing);
}

#[test]
fn a_node_on_nats_that_is_killed_costs_nothing() {
    let nats = NatsServer::start();
    let mut world = world_on(&nats, "NATS, kill -9 of a node");
    let killed = Instant::now();
    world.nodes[2].kill();
    world.mark(killed);
    world.nodes[2].restart();
    world.wait_settled();
    world.finish(Cost::Nothing);
}

#[test]
fn a_jetstream_that_is_full_shows_and_costs_nothing() {
    let nats = NatsServer::configured("jetstream { store_dir: STORE, max_file_store: 268435456 }");
    let mut world = world_on(&nats, "JetStream is full");
    let mut other = nats.other();
    let stream = br#"{"name":"other","subjects":["other"],"storage":"file"}"#;
    other.order("$JS.API.STREAM.CREATE.other", stream);
    for length in [900_000, 50_000, 1_000, 10] {
        while !other.ask("other", &vec![b'x'; length]).contains("\"error\"") {}
    }
    for node in &mut world.nodes {
        node.wait_unready("insufficient resources");
    }
    world.load(world.scale.pause);
    other.order("$JS.API.STREAM.DELETE.other", b"");
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Nothing);
}

#[test]
fn a_deleted_stream_is_created_again_and_clients_are_notified() {
    let nats = NatsServer::start();
    let mut world = world_on(&nats, "the history stream is deleted");
    nats.other().order("$JS.API.STREAM.DELETE.tidings_history", b"");
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::NoticesToAll);
}

#[test]
fn revoked_permissions_are_reported_and_clients_with_a_gap_are_notified() {
    let permissions = |denied: &str| {
        let publish = r#"["tidings.>", "$JS.API.>"]"#;
        let leaders = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.tidings_history";
        let subscribe =
            format!(r#"allow: ["tidings.>", "_INBOX.>", "{leaders}"], deny: [{denied}]"#);
        let permissions = format!("publish: {publish}, subscribe: {{ {subscribe} }}");
        let user = format!("user: tidings, password: secret, permissions: {{ {permissions} }}");
        let other = "user: other, password: secret";
        format!(
            "jetstream {{ store_dir: STORE }}\nauthorization {{ users = [ {{ {user} }}, {{ {other} }} ] }}"
        )
    };
    let nats = NatsServer::configured(&permissions(""));
    let mut world = world_on(&nats, "NATS, no right to subscribe");
    nats.configure(&permissions(r#""tidings.channel.>""#));
    for node in &mut world.nodes {
        node.wait_unready("allow it to subscribe to");
    }
    world.load(world.scale.pause);
    nats.configure(&permissions(""));
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Notices);
}
