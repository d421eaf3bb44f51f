//! How sessions start, are kept alive, expire and end, and what other clients see of it.

use engine::SessionChange;
use engine::broker::{BrokerError, BrokerEvent, Order};
use engine::claims::{ConnectionClaims, SubscriptionClaims, TokenRefusal};
use engine::rules::{PersonalChannel, ReportedEvents};
use wire::protocol::DisconnectCode;

use crate::world::{BEGIN, World, claims, rules, subscribed_to};

#[test]
fn commands_behind_a_token_wait_for_its_verdict_and_keep_their_order() {
    let mut world = World::new();
    let key = world.open();
    world.says(
        key,
        "{\"id\":1,\"connect\":{\"token\":\"t\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n{\"id\":3,\"rpc\":{\"method\":\"m\"}}",
    );
    assert!(world.received(key).is_empty());
    world.verify(Ok(claims("ann")));
    world.settle();
    let received = world.received(key).join("\n");
    let at = |id: u32| {
        received.find(&format!(r#"{{"id":{id},"#)).unwrap_or_else(|| panic!("{received}"))
    };
    assert!(at(1) < at(2) && at(1) < at(3), "{received}");
    assert!(received.contains(r#""id":3,"error":{"code":108"#), "{received}");
}

#[test]
fn lifecycle_events_reach_clients_with_a_token_for_them() {
    let mut world = World::new();
    let watcher = world.user(subscribed_to("eve", &["sys:presence"]));
    world.received(watcher);
    let ann = world.user(claims("ann"));
    let bob = world.user(claims("bob"));
    world.cut(ann);
    world.order("bob", Order::Disconnect(DisconnectCode::ForceDisconnect.into()));
    world.cut(bob);
    let received = world.received(watcher).join("\n");
    for (event, user, reason) in [
        ("online", "ann", ""),
        ("online", "bob", ""),
        ("offline", "ann", "connection closed"),
        ("offline", "bob", "force disconnect"),
    ] {
        let is_reported = received.lines().filter(|line| {
            let has = |key: &str, value: &str| line.contains(&format!(r#""{key}":"{value}""#));
            has("event", event) && has("user_id", user) && has("reason", reason)
        });
        assert_eq!(is_reported.count(), 1, "{event} {user}: {received}");
    }
    let stranger = world.user(claims("mallory"));
    world.says(stranger, r#"{"id":2,"subscribe":{"channel":"sys:presence"}}"#);
    world.settle();
    assert!(world.received(stranger).join("").contains(r#""code":103"#));
    let mut open = rules();
    open.client.insecure = true;
    let mut world = World::with(open);
    let anybody = world.anonymous();
    world.says(anybody, r#"{"id":2,"subscribe":{"channel":"sys:presence"}}"#);
    world.says(anybody, r#"{"id":3,"publish":{"channel":"sys:config","data":{}}}"#);
    world.says(anybody, r#"{"id":4,"history":{"channel":"sys:config"}}"#);
    world.settle();
    let received = world.received(anybody).join("");
    assert_eq!(received.matches(r#""code":103"#).count(), 3, "{received}");
}

#[test]
fn a_client_that_reconnects_within_the_grace_period_joins_before_its_leave() {
    let mut rules = rules();
    rules.client.leave_grace_ms = 5_000;
    let mut world = World::with(rules);
    let watcher = world.user(claims("eve"));
    let join = r#"{"id":2,"subscribe":{"channel":"people:x"}}"#;
    world.says(watcher, join);
    world.settle();
    let first = world.user(claims("ann"));
    world.says(first, join);
    world.settle();
    world.received(watcher);
    world.cut(first);
    assert!(world.present("people:x").contains("num_clients: 2, num_users: 2"));
    let second = world.user(claims("ann"));
    world.says(second, join);
    world.settle();
    assert!(world.present("people:x").contains("num_clients: 3, num_users: 2"));
    world.pass(6);
    assert!(world.present("people:x").contains("num_clients: 2, num_users: 2"));
    let received = world.received(watcher).join("");
    let (joined, left) = (received.find("\"join\""), received.find("\"leave\""));
    assert!(joined.is_some() && left > joined, "{received}");
    // A client that unsubscribes leaves at once.
    world.says(second, r#"{"id":3,"unsubscribe":{"channel":"people:x"}}"#);
    world.settle();
    assert!(world.received(watcher).join("").contains("\"leave\""));
    assert!(world.present("people:x").contains("num_clients: 1, num_users: 1"));
}

#[test]
fn a_temporary_channel_expires_and_notifies_its_subscribers() {
    let mut rules = rules();
    let room = rules.channels.namespaces["people"].clone();
    let room = engine::rules::Namespace { channel_ttl_ms: 60_000, ..room };
    rules.channels.namespaces.insert("room".to_owned(), room);
    let mut world = World::with(rules);
    let (ann, bob) = (world.user(claims("ann")), world.user(subscribed_to("bob", &["room:x"])));
    let join = r#"{"id":2,"subscribe":{"channel":"room:x"}}"#;
    world.says(ann, join);
    world.settle();
    world.live(&[ann, bob], 59);
    world.received(ann);
    let received = world.live(&[ann, bob], 2).join("");
    let reported =
        received.matches(r#""unsubscribe":{"code":2100,"reason":"channel expired"}"#).count();
    assert_eq!(reported, 1, "{received}");
    assert!(world.present("room:x").contains("num_clients: 0"));
    // It starts again with the next subscriber.
    world.says(ann, r#"{"id":3,"subscribe":{"channel":"room:x"}}"#);
    world.settle();
    assert!(world.received(ann).join("").contains(r#""id":3,"subscribe""#));
    world.assert_no_state_remains();
}

#[test]
fn a_refused_token_has_its_code() {
    let mut world = World::new();
    let refused = |world: &mut World, refusal: TokenRefusal| {
        let key = world.open();
        world.says(key, r#"{"id":1,"connect":{"token":"t"}}"#);
        world.verify(Err(refusal));
        key
    };
    let key = refused(&mut world, TokenRefusal::Invalid);
    assert_eq!(world.code(key), 3500);
    let key = refused(&mut world, TokenRefusal::Expired);
    assert!(world.received(key)[0].contains(r#""code":109"#));
    world.says(key, r#"{"id":2,"connect":{"token":"t"}}"#);
    assert_eq!(world.code(key), 3501, "after a refusal the connection is of no use");
    let key = refused(&mut world, TokenRefusal::Unavailable);
    assert!(world.received(key)[0].contains(r#""code":100,"#), "temporary: the client comes back");
    world.assert_no_state_remains();
}

#[test]
fn whoever_was_refused_and_does_not_go_is_sent_away() {
    let mut world = World::new();
    let key = world.open();
    world.says(key, r#"{"id":1,"connect":{"token":"t"}}"#);
    world.verify(Ok(subscribed_to("ann", &["kept:a"])));
    // The broker cannot report the channel's position.
    match world.lose() {
        Some(BrokerEvent::Reply(mut reply)) => {
            reply.refuse(BrokerError::Unavailable);
            world.happens(BrokerEvent::Reply(reply));
        }
        other => panic!("{other:?}"),
    }
    assert!(world.received(key)[0].contains(r#""id":1,"error":{"code":100"#));
    world.pass(12);
    assert_eq!(world.code(key), 3502);
}

#[test]
fn a_session_without_connect_is_stale_and_one_without_pongs_is_closed() {
    let mut world = World::new();
    let silent = world.open();
    let dead = world.anonymous();
    let alive = world.anonymous();
    world.live(&[alive], 60);
    assert_eq!((world.code(silent), world.code(dead)), (3502, 3012));
    assert!(world.closes.iter().all(|(key, _)| *key != alive));
    world.says(alive, "{}");
    assert_eq!(world.code(alive), 3501, "a pong that nobody asked for");
}

#[test]
fn a_connection_expires_after_its_grace_unless_it_is_refreshed() {
    let mut world = World::new();
    let expiring = |world: &mut World, user: &str| {
        world.user(engine::claims::ConnectionClaims { expire_at: Some(BEGIN + 15), ..claims(user) })
    };
    let lazy = expiring(&mut world, "ann");
    let eager = expiring(&mut world, "bob");
    assert!(world.received(lazy)[0].contains(r#""expires":true,"ttl":15"#));
    world.says(eager, r#"{"id":2,"refresh":{"token":"new"}}"#);
    world.verify(Ok(engine::claims::ConnectionClaims {
        expire_at: Some(BEGIN + 900),
        ..claims("bob")
    }));
    assert!(world.received(eager).last().unwrap().contains(r#""refresh":{"#));
    world.live(&[lazy, eager], 38);
    assert!(world.closes.is_empty(), "15 s and a grace of 25 s");
    world.live(&[lazy, eager], 20);
    assert_eq!(world.code(lazy), 3005);
    assert_eq!(world.closes.len(), 1);
}

#[test]
fn a_refresh_with_the_token_of_another_user_is_refused() {
    for (verdict, code) in [
        (Ok(claims("bob")), 3500),
        (Err(TokenRefusal::Invalid), 3500),
        (Err(TokenRefusal::Expired), 3005),
    ] {
        let mut world = World::new();
        let key = world.user(claims("ann"));
        world.says(key, r#"{"id":2,"refresh":{"token":"new"}}"#);
        world.verify(verdict);
        assert_eq!(world.code(key), code);
    }
}

fn grant(user: &str, channel: &str, expire_at: Option<i64>) -> SubscriptionClaims {
    SubscriptionClaims {
        user: user.to_owned(),
        channel: channel.to_owned(),
        grant: engine::claims::SubscriptionGrant { expire_at, ..Default::default() },
        ..SubscriptionClaims::default()
    }
}

#[test]
fn a_subscription_expires_with_2501_unless_its_token_is_refreshed() {
    let mut world = World::new();
    let key = world.user(claims("ann"));
    for (id, channel) in [(2, "closed:a"), (3, "closed:b")] {
        world.says(
            key,
            &format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}","token":"t"}}}}"#),
        );
        world.verify_subscription(Ok(grant("ann", channel, Some(BEGIN + 5))));
        world.settle();
    }
    assert!(world.received(key).last().unwrap().contains(r#""expires":true,"ttl":5"#));
    world.says(key, r#"{"id":5,"sub_refresh":{"channel":"closed:b","token":"t"}}"#);
    world.verify_subscription(Ok(grant("ann", "closed:b", Some(BEGIN + 900))));
    let received = world.live(&[key], 35);
    let received = received.join("\n");
    assert!(
        received.contains(r#"{"push":{"channel":"closed:a","unsubscribe":{"code":2501"#),
        "{received}"
    );
    assert!(!received.contains(r#""channel":"closed:b""#), "{received}");
    assert!(world.closes.is_empty());
}

#[test]
fn a_subscription_that_expires_before_the_broker_answers_is_refused() {
    let mut world = World::new();
    let key = world.user(claims("ann"));
    world.says(key, r#"{"id":2,"subscribe":{"channel":"closed:a","token":"t"}}"#);
    world.verify_subscription(Ok(grant("ann", "closed:a", Some(BEGIN + 5))));
    world.says(
        key,
        "{\"id\":3,\"unsubscribe\":{\"channel\":\"closed:a\"}}\n{\"id\":4,\"rpc\":{\"method\":\"m\"}}",
    );
    let answer = world.lose().expect("the broker's answer");
    let received = world.live(&[key], 40).join("\n");
    let at = |text: &str| received.find(text).unwrap_or_else(|| panic!("{received}"));
    let refused = at(r#"{"id":2,"error":{"code":110,"#);
    assert!(refused < at(r#"{"id":3,"unsubscribe":{}}"#), "{received}");
    assert!(received.contains(r#"{"id":4,"error""#) && !received.contains("push"), "{received}");
    world.happens(answer);
    assert!(world.received(key).is_empty() && world.closes.is_empty());
    world.assert_no_state_remains();
}

#[test]
fn an_expired_token_extends_nothing_and_makes_the_client_fetch_another() {
    let mut world = World::new();
    let key = world.user(claims("ann"));
    world.says(key, r#"{"id":2,"subscribe":{"channel":"closed:a","token":"t"}}"#);
    world.verify_subscription(Ok(grant("ann", "closed:a", Some(BEGIN + 5))));
    world.settle();
    world.received(key);
    world.says(key, r#"{"id":3,"sub_refresh":{"channel":"closed:a","token":"t"}}"#);
    world.verify_subscription(Err(TokenRefusal::Expired));
    let received = world.received(key);
    assert!(received[0].contains(r#""unsubscribe":{"code":2501"#), "{received:?}");
    assert!(received[1].contains(r#""id":3,"error":{"code":109"#), "{received:?}");
    assert_eq!(world.worker.subscription_count(), 0);
}

#[test]
fn an_order_and_a_token_for_one_channel_make_one_subscription() {
    let mut world = World::new();
    let key = world.user(claims("ann"));
    world.received(key);
    world.says(key, r#"{"id":2,"subscribe":{"channel":"closed:a","token":"t"}}"#);
    let order = Order::Subscribe {
        channel: "closed:a".to_owned(),
        grant: engine::claims::SubscriptionGrant::default(),
        recover_since: None,
    };
    world.order("ann", order);
    world.verify_subscription(Ok(grant("ann", "closed:a", None)));
    world.settle();
    assert!(world.received(key)[1].contains(r#""id":2,"error":{"code":105"#));
    world.publish("closed:a", 1);
    world.settle();
    assert_eq!(world.received(key).len(), 1);
}

#[test]
fn a_refresh_replaces_information_and_keeps_it_when_the_new_one_is_empty() {
    let mut world = World::new();
    let with_info = |info: &str| ConnectionClaims { info: info.to_owned().into(), ..claims("ann") };
    let key = world.user(with_info(r#"{"name":"Ann"}"#));
    world.says(key, r#"{"id":2,"subscribe":{"channel":"kept:a"}}"#);
    world.settle();
    world.received(key);
    for (info, seen) in [("", "Ann"), (r#"{"name":"Anna"}"#, "Anna")] {
        world.says(key, r#"{"id":3,"refresh":{"token":"t"}}"#);
        world.verify(Ok(with_info(info)));
        world.says(key, r#"{"id":4,"publish":{"channel":"kept:a","data":1}}"#);
        world.settle();
        let received = world.received(key).join("\n");
        assert!(received.contains(&format!(r#""conn_info":{{"name":"{seen}"}}"#)), "{received}");
    }
}

#[test]
fn an_order_can_replace_information_and_close_expired_connections() {
    let mut world = World::new();
    let key = world.user(claims("ann"));
    world.says(key, r#"{"id":2,"subscribe":{"channel":"kept:a"}}"#);
    world.settle();
    world.received(key);
    let refresh = |info: &'static str, expire_at| Order::Refresh {
        info: info.into(),
        expire_at,
        expired: false,
    };
    world.order("ann", refresh(r#"{"name":"Ann"}"#, Some(BEGIN + 100)));
    assert!(world.received(key)[0].contains(r#""refresh":{"expires":true,"ttl":100}"#));
    world.says(key, r#"{"id":4,"publish":{"channel":"kept:a","data":1}}"#);
    world.settle();
    assert!(world.received(key)[0].contains(r#""conn_info":{"name":"Ann"}"#));
    world.order("ann", refresh("", Some(BEGIN - 1)));
    assert_eq!(world.code(key), 3005);
}

#[test]
fn a_pong_does_not_wait_for_a_verdict() {
    let mut world = World::new();
    let key = world.user(claims("ann"));
    world.received(key);
    world.says(key, r#"{"id":2,"refresh":{"token":"slow"}}"#);
    world.live(&[key], 60);
    assert!(world.closes.is_empty(), "{:?}", world.closes);
}

#[test]
fn a_name_chosen_by_the_server_may_have_any_form() {
    let mut rules = rules();
    rules.client.personal_channel =
        Some(PersonalChannel { namespace: "people".to_owned(), single_connection: false });
    let mut world = World::with(rules);
    let key = world.user(claims("zoë"));
    assert!(world.received(key)[0].contains("people:#zoë"));
}

#[test]
fn a_subscription_token_must_be_for_this_user_and_channel() {
    for (user, channel) in [("bob", "closed:a"), ("ann", "closed:b")] {
        let mut world = World::new();
        let key = world.user(claims("ann"));
        world.says(key, r#"{"id":2,"subscribe":{"channel":"closed:a","token":"t"}}"#);
        world.verify_subscription(Ok(grant(user, channel, None)));
        assert_eq!(world.code(key), 3500);
        world.assert_no_state_remains();
    }
}

#[test]
fn presence_ends_and_a_leave_is_sent_when_a_session_closes() {
    let mut world = World::new();
    let watching = world.user(claims("ann"));
    let leaving = world.user(claims("bob"));
    for key in [watching, leaving] {
        world.says(key, r#"{"id":2,"subscribe":{"channel":"people:x"}}"#);
        world.settle();
    }
    assert!(world.present("people:x").contains("num_clients: 2"), "{}", world.present("people:x"));
    world.received(watching);
    world.cut(leaving);
    let received = world.received(watching).join("\n");
    assert!(received.contains(r#""leave":{"info":{"user":"bob""#), "{received}");
    assert!(world.present("people:x").contains("num_clients: 1"));
    world.assert_no_state_remains();
    assert!(world.present("people:x").contains("num_clients: 0"));
}

#[test]
fn presence_is_what_the_commands_before_it_made_it() {
    let mut world = World::new();
    let key = world.user(claims("ann"));
    world.received(key);
    let stats = r#"{"id":9,"presence_stats":{"channel":"people:x"}}"#;
    let (join, leave) = (
        r#"{"id":2,"subscribe":{"channel":"people:x"}}"#,
        r#"{"id":3,"unsubscribe":{"channel":"people:x"}}"#,
    );
    for (commands, expected) in [
        (vec![join, stats], r#""num_clients":1"#),
        (vec![leave, stats], r#""num_clients":0"#),
        (vec![join, leave, stats], r#""num_clients":0"#),
        (vec![join, leave, join, stats], r#""num_clients":1"#),
    ] {
        world.says(key, &commands.join("\n"));
        world.settle();
        let received = world.received(key).join("\n");
        assert!(received.contains(expected), "{commands:?}: {received}");
    }
    world.assert_no_state_remains();
    assert!(world.present("people:x").contains("num_clients: 0"));
}

#[test]
fn a_failed_subscription_leaves_no_presence() {
    let mut world = World::new();
    let key = world.user(claims("ann"));
    let subscribe = r#"{"id":2,"subscribe":{"channel":"people:x"}}"#;
    world.says(key, subscribe);
    world.cut(key);
    assert!(world.present("people:x").contains("num_clients: 0"));
    let key = world.user(claims("ann"));
    world.says(key, subscribe);
    let Some(BrokerEvent::Reply(mut reply)) = world.lose() else { panic!("the broker answers") };
    reply.refuse(BrokerError::Unavailable);
    world.happens(BrokerEvent::Reply(reply));
    let received = world.received(key).join("\n");
    assert!(received.contains(r#""id":2,"error":{"code":100"#), "{received}");
    assert!(world.present("people:x").contains("num_clients: 0"));
}

#[test]
fn a_session_closes_for_one_reason() {
    let mut world = World::new();
    let key = world.user(claims("ann"));
    // Both in one message: the command after the invalid one is not executed.
    world.says(key, "{\"id\":2,\"connect\":{}}\n{\"send\":{\"data\":1}}");
    world.order("ann", Order::Disconnect(wire::protocol::DisconnectCode::ForceDisconnect.into()));
    world.says(key, "nonsense");
    world.pass(120);
    assert_eq!(world.code(key), 3501);
}

#[test]
fn with_single_connection_the_newest_stays() {
    let mut rules = rules();
    rules.client.personal_channel =
        Some(PersonalChannel { namespace: "people".to_owned(), single_connection: true });
    let mut world = World::with(rules);
    let first = world.user(claims("ann"));
    assert!(world.received(first)[0].contains(r#""people:#ann":"#));
    let bystander = world.user(claims("bob"));
    let second = world.user(claims("ann"));
    world.settle();
    assert_eq!(world.code(first), 3504);
    assert!(world.closes.iter().all(|(key, _)| *key != second && *key != bystander));
}

#[test]
fn a_server_side_subscription_that_is_ordered_again_gets_new_data_and_keeps_its_place() {
    let mut world = World::new();
    let ann = world.user(claims("ann"));
    let order = |seat: &'static [u8], expire_at| Order::Subscribe {
        channel: "people:x".to_owned(),
        grant: engine::claims::SubscriptionGrant {
            expire_at,
            info: bytes::Bytes::from_static(seat),
            data: bytes::Bytes::from_static(seat),
            ..Default::default()
        },
        recover_since: None,
    };
    for (seat, number) in [("1", 1), ("2", 2)] {
        world.order("ann", order(seat.as_bytes(), None));
        world.settle();
        let received = world.received(ann).join("\n");
        assert!(received.contains(r#""subscribe":{"#), "{received}");
        assert!(received.contains(&format!(r#""data":{seat}"#)), "{received}");
        let present = world.present("people:x");
        assert!(present.contains("num_clients: 1"), "{present}");
        world.publish("people:x", number);
        world.settle();
        assert_eq!(world.received(ann).len(), 1, "nothing twice, nothing lost");
    }
    // An expiry that has passed by this node's clock changes nothing.
    world.order("ann", order(b"3", Some(BEGIN - 1)));
    world.settle();
    assert!(world.received(ann).is_empty());
    world.live(&[ann], 40);
    assert!(world.closes.is_empty(), "the connection lives");
}

#[test]
fn orders_reach_the_sessions_they_name_and_no_others() {
    let mut world = World::new();
    let ann = world.user(claims("ann"));
    let nobody = world.anonymous();
    world.received(ann);
    let order = Order::Subscribe {
        channel: "closed:x".to_owned(),
        grant: engine::claims::SubscriptionGrant::default(),
        recover_since: None,
    };
    world.order("ann", order);
    assert!(world.received(ann)[0].contains(r#"{"push":{"channel":"closed:x","subscribe":{"#));
    world.publish("closed:x", 1);
    world.settle();
    assert!(world.received(ann)[0].contains(r#""data":1"#));
    assert!(world.received(nobody).is_empty());
    world.order("", Order::Disconnect(wire::protocol::DisconnectCode::ForceReconnect.into()));
    assert_eq!(world.code(nobody), 3011);
    assert_eq!(world.closes.len(), 1);
}

#[test]
fn a_removed_session_receives_nothing() {
    let mut world = World::new();
    let key = world.user(claims("ann"));
    world.says(key, r#"{"id":2,"subscribe":{"channel":"closed:a","token":"t"}}"#);
    world.cut(key);
    // Its slot is reused by another session before the verdict arrives.
    let other = world.anonymous();
    world.verify_subscription(Ok(grant("ann", "closed:a", None)));
    world.settle();
    assert!(world.received(other).is_empty() && world.worker.outbox(key).is_none());
    world.says(key, r#"{"id":3,"rpc":{"method":"m"}}"#);
    assert!(world.received(other).is_empty());
    world.assert_no_state_remains();
}

#[test]
fn clients_and_subscriptions_are_reported_in_pairs_where_the_rules_ask_for_it() {
    let happen = |reports| {
        let mut rules = rules();
        rules.client.reports = reports;
        rules.client.sends_lifecycle = false;
        let mut world = World::with(rules);
        let ann = world.user(subscribed_to("ann", &["news"]));
        world.says(ann, r#"{"id":2,"subscribe":{"channel":"kept:x"}}"#);
        world.settle();
        world.says(ann, r#"{"id":3,"subscribe":{"channel":"closed:x"}}"#);
        world.says(ann, r#"{"id":4,"unsubscribe":{"channel":"kept:x"}}"#);
        world.settle();
        world.cut(ann);
        let events = world.events.iter();
        let events = events.map(|event| match &event.what {
            SessionChange::Client(change) => change.words().0.to_owned(),
            SessionChange::Subscribed(channel) => format!("+{channel}"),
            SessionChange::Unsubscribed(channel) => format!("-{channel}"),
        });
        events.collect::<Vec<_>>().join(" ")
    };
    let (clients, subscriptions) = (true, true);
    assert_eq!(happen(ReportedEvents::default()), "");
    assert_eq!(happen(ReportedEvents { clients, ..ReportedEvents::default() }), "online offline");
    assert_eq!(
        happen(ReportedEvents { clients, subscriptions }),
        "online +news +kept:x -kept:x -news offline"
    );
}
