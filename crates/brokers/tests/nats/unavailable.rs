//! JetStream that fails while the connection to NATS stays.

use crate::conformance::World as _;
use engine::channel::LIFECYCLE;
use serde_json::{Value, json};
use wire::protocol::{ClientInfo, Codec, Push, PushEvent, Reply, ReplyBody};

use crate::comeback::{ROOM, RawClient, enter, join, present};
use crate::lifecycle::reported;
use crate::pair::LONG;
use crate::server::Server;
use crate::world::NatsWorld;

fn set_subjects(raw: &RawClient, stream: &str, subjects: &Value) {
    let mut config = raw.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "")["config"].clone();
    config["subjects"] = subjects.clone();
    raw.ask(&format!("$JS.API.STREAM.UPDATE.{stream}"), config.to_string());
}

#[test]
fn clients_of_a_failed_node_are_reported_as_soon_as_possible() {
    let server = Server::start();
    let mut world = NatsWorld::new(&server.with_short_lease(), 1);
    let listener = world.attach();
    join(&mut world, listener, LIFECYCLE);
    let raw = RawClient::new(&server);
    // No stream stores events.
    set_subjects(&raw, "tidings_events", &json!(["elsewhere"]));
    let chan_info = b"0 far".as_slice().into();
    let info = ClientInfo { client: "ghost".into(), chan_info, ..ClientInfo::default() };
    let event = PushEvent::Join(info.into());
    let reply = Reply { id: 0, body: ReplyBody::Push(Push { channel: LIFECYCLE.into(), event }) };
    let mut entry = b"t1 plain\n".to_vec();
    wire::protocol::encode_reply(Codec::Protobuf, &reply, &mut entry);
    raw.ask("tidings.presence.dead.4294967295.sys:presence.ghost", entry);
    let lease = raw.ask("tidings.lease.dead", "t1 lease dead\n")["seq"].as_u64().unwrap();
    let newest = json!({ "last_by_subj": "tidings.lease.dead" }).to_string();
    // A node has claimed the cleanup.
    loop {
        let found = raw.ask("$JS.API.STREAM.MSG.GET.tidings_presence", newest.clone());
        if found["message"]["seq"].as_u64().unwrap() > lease {
            break;
        }
    }
    // One tick later the cleanup has failed.
    assert!(world.next_within(listener, std::time::Duration::from_secs(1)).is_none());
    set_subjects(&raw, "tidings_events", &json!(["tidings.events"]));
    assert_eq!(reported(&mut world, listener), ("offline".into(), "ghost".into()));
    assert_eq!(server.messages("tidings_events"), 1);
}

#[test]
fn an_entry_that_could_not_be_stored_is_stored_later() {
    let server = Server::start();
    let mut world = NatsWorld::new(&server.options(), 1);
    let endpoint = world.attach();
    let raw = RawClient::new(&server);
    set_subjects(&raw, "tidings_presence", &json!(["tidings.lease.*"]));
    enter(&mut world, endpoint, "comes");
    // Its reply comes after the entry.
    join(&mut world, endpoint, ROOM);
    set_subjects(&raw, "tidings_presence", &json!(["tidings.presence.>", "tidings.lease.*"]));
    let until = std::time::Instant::now() + LONG;
    while present(&mut world, endpoint) != 1 {
        assert!(std::time::Instant::now() < until);
    }
}
