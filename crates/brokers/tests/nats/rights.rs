//! Rights of a node at NATS: each missing right is named, at start and at run time.

use std::fmt::Write as _;

use brokers::nats::{NatsError, NatsOptions};
use engine::broker::BrokerError;

use crate::pair::{LONG, Pair};
use crate::server::Server;
use crate::start::refusal;
use crate::world::NatsWorld;

/// The subjects of a right in `docs/clustering.md`.
fn documented(right: &str) -> Vec<String> {
    let docs = include_str!("../../../../docs/clustering.md");
    let list = docs.split(&format!("{right}: [")).nth(1).expect("the rights are documented");
    let list = list.split(']').next().unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Configuration of a server on which the node's user has the documented rights, except those
/// denied.
fn configuration(right: &str, denied: &[&str]) -> String {
    let mut text =
        "jetstream { store_dir: STORE }\nauthorization { users = [{ user: tidings, password: secret, permissions: {\n".to_owned();
    for each in ["publish", "subscribe"] {
        let denied = if each == right { denied } else { &[] };
        writeln!(text, "{each}: {{ allow: {:?}, deny: {denied:?} }}", documented(each)).unwrap();
    }
    text + "}}, { user: other, password: secret }] }\n"
}

fn options(server: &Server) -> NatsOptions {
    let options = server.options();
    let url = options.url.replace("//", "//tidings:secret@");
    NatsOptions { url, ..options }
}

#[test]
fn the_documented_rights_are_enough_and_each_of_them_is_needed() {
    let mut server = Server::configured(&configuration("", &[]));
    let options = options(&server);
    let world = NatsWorld::new(&options, 2);
    let mut pair = Pair::of(world);
    pair.subscribe().unwrap();
    assert_eq!(pair.publish(10).unwrap().offset, 1);
    assert_eq!(pair.received_offset(), 1);
    pair.publish(0).unwrap();
    pair.world.wait_health(0, "ready");
    drop(pair);
    let needed: [(&str, &[&str]); 2] = [
        (
            "publish",
            &[
                "tidings.channel.>",
                "tidings.stream.>",
                "tidings.control",
                "tidings.control.>",
                "tidings.node.>",
                "tidings.presence.>",
                "tidings.lease.>",
                "tidings.events",
                "tidings.era",
                "tidings.revocation.>",
                "$JS.API.>",
                "$JS.API.STREAM.MSG.DELETE.tidings_revocations",
                "$JS.API.STREAM.PURGE.tidings_presence",
            ],
        ),
        (
            "subscribe",
            &[
                "tidings.channel.>",
                "tidings.control",
                "tidings.control.>",
                "tidings.node.>",
                "tidings.era",
                "_INBOX.>",
                "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.tidings_history",
            ],
        ),
    ];
    for (right, subjects) in needed {
        for subject in subjects {
            server.kill();
            server.configure_stopped(&configuration(right, &[subject]));
            server.run();
            let error = refusal(options.clone());
            assert!(matches!(error, NatsError::Right(_)), "{right} {subject}: {error}");
            let text = error.to_string();
            let expected = format!("{right} to");
            let start = subject.trim_end_matches('>');
            assert!(text.contains(&expected) && text.contains(start), "{right} {subject}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }
}

#[test]
fn a_node_without_jetstream_needs_no_rights_for_it() {
    let denied = ["$JS.API.>", "tidings.stream.>", "tidings.era", "tidings.events"];
    let server = Server::configured(&configuration("publish", &denied));
    let options = NatsOptions { jetstream: None, ..options(&server) };
    NatsWorld::new(&options, 1).wait_health(0, "ready");
}

#[test]
fn a_revoked_right_makes_the_node_unready_until_it_is_granted_again() {
    std::thread::scope(|scope| {
        for (right, subject) in [
            ("subscribe", "tidings.channel.>"),
            ("publish", "tidings.channel.>"),
            ("publish", "tidings.stream.>"),
            ("publish", "$JS.API.>"),
            ("publish", "tidings.lease.>"),
        ] {
            scope.spawn(move || take_and_give_back(right, subject));
        }
    });
}

fn take_and_give_back(right: &str, subject: &str) {
    let server = Server::configured(&configuration("", &[]));
    let mut pair = Pair::of(NatsWorld::new(&options(&server), 2));
    pair.subscribe().unwrap();
    assert_eq!(pair.publish(10).unwrap().offset, 1);
    assert_eq!(pair.received_offset(), 1);
    server.configure(&configuration(right, &[subject]));
    if right == "subscribe" {
        // A subscription now fails.
        pair.world.wait_health(0, "subscribe to");
        assert_eq!(pair.subscribe(), Err(BrokerError::Unavailable));
    } else {
        let until = std::time::Instant::now() + LONG;
        while pair.publish(0).is_ok() && subject == "tidings.channel.>" {
            assert!(std::time::Instant::now() < until, "no refusal in time");
        }
        let _refused = pair.publish(10);
    }
    let node = usize::from(right == "publish");
    pair.world.wait_health(node, &format!("{right} to"));
    pair.world.wait_health(node, subject.trim_end_matches('>'));
    server.configure(&configuration("", &[]));
    pair.world.wait_health(node, "ready");
    let position = pair.publish_at_last(10);
    pair.subscribe().unwrap();
    let next = pair.publish_at_last(10);
    assert!(next.offset > position.offset, "{right} {subject}");
    while pair.received_offset() != next.offset {}
}

#[test]
fn subscriptions_beyond_the_limit_of_nats_make_the_node_unready() {
    let server = Server::configured("jetstream { store_dir: STORE }\nmax_subscriptions: 20");
    let mut pair = Pair::of(NatsWorld::new(&server.options(), 1));
    let mut refused = None;
    for number in 0..20 {
        pair.channel = format!("room-{number}").into();
        refused = refused.or(pair.subscribe().err());
    }
    assert_eq!(refused, Some(BrokerError::Unavailable));
    pair.world.wait_health(0, "max_subscriptions");
}
