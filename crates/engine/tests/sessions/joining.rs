//! Subscribing, recovery and loss: order, no duplicates, no gap without notice.

use engine::SessionKey;
use engine::broker::{BrokerEvent, Order};
use expect_test::{Expect, expect};
use wire::protocol::StreamPosition;

use crate::world::{World, claims, rules, subscribed_to};

fn check(received: &[String], expected: &Expect) {
    expected.assert_eq(&(received.join("\n") + "\n"));
}

const JOIN: &str = r#"{"id":2,"subscribe":{"channel":"kept:x"}}"#;

fn recover(offset: u64, epoch: &str) -> String {
    format!(
        r#"{{"id":2,"subscribe":{{"channel":"kept:x","recover":true,"offset":{offset},"epoch":"{epoch}"}}}}"#
    )
}

#[test]
fn the_reply_precedes_publications_and_none_is_lost_or_duplicated() {
    let mut world = World::new();
    world.publish("kept:x", 1);
    let key = world.anonymous();
    // Another session is subscribed already: events of the channel are in flight while this one
    // joins.
    let other = world.anonymous();
    world.says(other, JOIN);
    world.settle();
    world.publish("kept:x", 2);
    world.says(key, JOIN);
    world.publish("kept:x", 3);
    world.settle();
    check(
        &world.received(key),
        &expect![[r#"
            {"id":2,"subscribe":{"recoverable":true,"epoch":"epoch0","offset":2,"positioned":true}}
            {"push":{"channel":"kept:x","pub":{"data":3,"offset":3}}}
        "#]],
    );
    world.assert_no_state_remains();
}

#[test]
fn a_recovery_brings_everything_missed_once() {
    let mut world = World::new();
    let other = world.anonymous();
    world.says(other, JOIN);
    world.settle();
    (1..=4).for_each(|number| world.publish("kept:x", number));
    let key = world.anonymous();
    (5..=6).for_each(|number| world.publish("kept:x", number));
    world.says(key, &recover(2, "epoch0"));
    world.publish("kept:x", 7);
    world.settle();
    check(
        &world.received(key),
        &expect![[r#"
            {"id":2,"subscribe":{"recoverable":true,"epoch":"epoch0","publications":[{"data":3,"offset":3},{"data":4,"offset":4},{"data":5,"offset":5},{"data":6,"offset":6}],"recovered":true,"offset":2,"positioned":true,"was_recovering":true}}
            {"push":{"channel":"kept:x","pub":{"data":7,"offset":7}}}
        "#]],
    );
}

#[test]
fn an_incomplete_recovery_is_refused() {
    let refused = |offset: u64, epoch: &str, count: u32| {
        let mut world = World::new();
        (1..=count).for_each(|number| world.publish("kept:x", number));
        let key = world.anonymous();
        world.says(key, &recover(offset, epoch));
        world.settle();
        let reply = world.received(key).remove(0);
        assert!(reply.contains(r#""was_recovering":true"#), "{reply}");
        assert!(reply.contains(&format!(r#""offset":{count}"#)), "{reply}");
        !reply.contains(r#""recovered":true"#) && !reply.contains("publications")
    };
    assert!(!refused(5, "epoch0", 10), "five missed: as many as may be recovered");
    assert!(refused(4, "epoch0", 10), "six missed: one more than may be recovered");
    assert!(refused(1, "epoch0", 15), "the history keeps ten");
    assert!(refused(9, "another", 10), "another epoch");
    assert!(refused(12, "epoch0", 10), "a position that is not there yet");
    assert!(!refused(10, "epoch0", 10), "nothing missed");
}

#[test]
fn a_client_that_rejects_incomplete_recoveries_gets_an_error() {
    let mut world = World::new();
    (1..=15).for_each(|number| world.publish("kept:x", number));
    let key = world.anonymous();
    world.says(key, &recover(1, "epoch0").replace(r#""offset""#, r#""flag":2,"offset""#));
    world.settle();
    assert!(world.received(key)[0].contains(r#""code":112"#));
    world.assert_no_state_remains();
}

#[test]
fn a_gap_ends_the_subscription_with_2500_and_recovery_closes_it() {
    let mut world = World::new();
    let key = world.anonymous();
    world.says(key, JOIN);
    world.settle();
    world.publish("kept:x", 1);
    world.settle();
    world.publish("kept:x", 2);
    assert!(matches!(world.lose(), Some(BrokerEvent::Publication { .. })));
    world.publish("kept:x", 3);
    world.settle();
    world.says(key, &recover(1, "epoch0"));
    world.settle();
    check(
        &world.received(key),
        &expect![[r#"
            {"id":2,"subscribe":{"recoverable":true,"epoch":"epoch0","positioned":true}}
            {"push":{"channel":"kept:x","pub":{"data":1,"offset":1}}}
            {"push":{"channel":"kept:x","unsubscribe":{"code":2500,"reason":"insufficient state"}}}
            {"id":2,"subscribe":{"recoverable":true,"epoch":"epoch0","publications":[{"data":2,"offset":2},{"data":3,"offset":3}],"recovered":true,"offset":1,"positioned":true,"was_recovering":true}}
        "#]],
    );
    world.assert_no_state_remains();
}

#[test]
fn a_gap_of_a_server_side_subscription_ends_the_connection_with_3010() {
    let mut world = World::new();
    let key = world.user(subscribed_to("ann", &["kept:x"]));
    world.publish("kept:x", 1);
    world.lose().unwrap();
    world.publish("kept:x", 2);
    world.settle();
    assert_eq!(world.code(key), 3010);
    world.assert_no_state_remains();
}

#[test]
fn a_loss_that_nothing_follows_is_found_by_the_check() {
    let mut world = World::new();
    let key = world.anonymous();
    world.says(key, JOIN);
    world.settle();
    world.received(key);
    world.publish("kept:x", 1);
    world.lose().unwrap();
    let received = world.live(&[key], 60);
    assert!(received.iter().any(|line| line.contains(r#""code":2500"#)), "not noticed in a minute");
}

#[test]
fn an_unsolicited_position_shows_a_loss_at_once_and_only_a_loss() {
    let mut world = World::new();
    let key = world.anonymous();
    world.says(key, JOIN);
    world.settle();
    world.publish("kept:x", 1);
    world.settle();
    world.received(key);
    let reported = |world: &mut World, epoch: &str, offset| {
        let top = StreamPosition { offset, epoch: epoch.to_owned() };
        world.happens(BrokerEvent::Position { channel: "kept:x".into(), top });
        world.received(key)
    };
    assert_eq!(reported(&mut world, "epoch0", 1), [""; 0], "nothing is missing");
    let received = reported(&mut world, "epoch0", 2);
    assert!(received[0].contains(r#""unsubscribe":{"code":2500"#), "{received:?}");
    world.says(key, JOIN);
    world.settle();
    world.received(key);
    let received = reported(&mut world, "another", 0);
    assert!(received[0].contains(r#""unsubscribe":{"code":2500"#), "{received:?}");
    assert_eq!(reported(&mut world, "a third", 9), [""; 0], "nobody holds a position any more");
}

#[test]
fn a_repeated_publication_is_delivered_once() {
    let mut world = World::new();
    let key = world.anonymous();
    world.says(key, JOIN);
    world.settle();
    world.publish("kept:x", 1);
    let event = world.lose().unwrap();
    world.happens(event.clone());
    world.happens(event);
    let pushes = world.received(key).iter().filter(|line| line.contains("pub")).count();
    assert_eq!(pushes, 1);
}

#[test]
fn leaving_while_joining_leaves_nothing() {
    let mut world = World::new();
    let key = world.anonymous();
    world.says(key, JOIN);
    world.says(key, r#"{"id":3,"unsubscribe":{"channel":"kept:x"}}"#);
    world.settle();
    let received = world.received(key);
    assert!(received.iter().any(|line| line.contains(r#""id":3,"unsubscribe""#)), "{received:?}");
    assert_eq!(world.worker.subscription_count(), 0);
    world.says(key, JOIN);
    world.settle();
    assert!(world.received(key)[0].contains(r#""subscribe""#));
    world.says(key, JOIN);
    world.cut(key);
    world.assert_no_state_remains();
}

#[test]
fn publications_of_others_arrive_while_some_join_and_some_leave() {
    let mut world = World::new();
    let keys: Vec<_> = (0..5).map(|_| world.anonymous()).collect();
    for (round, key) in keys.iter().enumerate() {
        world.says(*key, JOIN);
        world.publish("kept:x", round as u32);
        if round % 2 == 1 {
            world.step();
        }
    }
    world.settle();
    world.publish("kept:x", 99);
    world.settle();
    for key in &keys {
        let received = world.received(*key);
        assert!(received[0].contains(r#""subscribe""#), "{received:?}");
        let offset: u64 = received[0]
            .split(r#""offset":"#)
            .nth(1)
            .map_or(0, |rest| rest.split([',', '}']).next().unwrap().parse().unwrap());
        let numbers = received[1..].iter().enumerate().map(|(index, line)| {
            let expected = format!(r#""offset":{}}}"#, offset + 1 + index as u64);
            assert!(line.contains(&expected), "{line} is not {expected}");
        });
        assert_eq!(offset + numbers.count() as u64, 6);
    }
}

#[test]
fn subscriptions_of_the_token_stand_in_the_connect_reply() {
    let mut world = World::new();
    world.publish("kept:x", 1);
    let key = world.user(subscribed_to("ann", &["kept:x", "plain"]));
    let received = world.received(key);
    assert_eq!(received.len(), 1);
    assert!(received[0].contains(r#""subs":{"kept:x":{"recoverable":true,"epoch":"epoch0","offset":1,"positioned":true},"plain":{}}"#), "{received:?}");
    world.order("ann", Order::Unsubscribe { channel: String::new() });
    assert_eq!(world.worker.subscription_count(), 0);
}

#[test]
fn more_channels_than_allowed_end_the_connection() {
    let mut world = World::new();
    let key = world.user(subscribed_to("ann", &["a", "b", "c", "d", "e"]));
    assert_eq!(world.code(key), 3505);
    let key = world.open();
    let wishes: Vec<String> = (0..2000).map(|n| format!(r#""c{n}":{{}}"#)).collect();
    world.says(key, &format!(r#"{{"id":1,"connect":{{"subs":{{{}}}}}}}"#, wishes.join(",")));
    assert_eq!(world.code(key), 3505);
    world.assert_no_state_remains();
}

#[test]
fn a_burst_within_one_turn_is_not_slow_and_is_written_early() {
    let mut rules = rules();
    rules.client.queue_max_size = 2_000;
    let mut world = World::with(rules);
    let key = world.anonymous();
    world.says(key, r#"{"id":2,"subscribe":{"channel":"plain"}}"#);
    world.settle();
    world.received(key);
    (0..100).for_each(|number| world.publish("plain", number));
    world.settle();
    assert_eq!(world.worker.poll_pressed(), Some(key));
    assert_eq!(world.worker.poll_pressed(), None);
    assert_eq!(world.received(key).len(), 100);
    assert!(world.closes.is_empty());
}

#[test]
fn a_client_that_leaves_before_it_is_answered_may_come_back_at_once() {
    let mut world = World::new();
    let key = world.anonymous();
    world.says(key, r#"{"id":2,"subscribe":{"channel":"people:a"}}"#);
    world.says(key, r#"{"id":3,"unsubscribe":{"channel":"people:a"}}"#);
    world.says(key, r#"{"id":4,"subscribe":{"channel":"people:a"}}"#);
    world.settle();
    let lines = world.received(key);
    let replies: Vec<&str> =
        lines.iter().filter(|line| !line.contains("push")).map(String::as_str).collect();
    assert_eq!(
        replies,
        [
            r#"{"id":2,"subscribe":{}}"#,
            r#"{"id":3,"unsubscribe":{}}"#,
            r#"{"id":4,"subscribe":{}}"#
        ]
    );
    assert_eq!(world.worker.subscription_count(), 1);
    world.assert_no_state_remains();
}

#[test]
fn a_slow_session_is_closed_and_removed() {
    let mut rules = rules();
    rules.client.queue_max_size = 2_000;
    let mut world = World::with(rules);
    let slow = world.user(claims("ann"));
    let quick = world.user(claims("bob"));
    for key in [slow, quick] {
        world.says(key, r#"{"id":2,"subscribe":{"channel":"plain"}}"#);
        world.settle();
        world.received(key);
    }
    world.worker.outbox(slow).unwrap().mark_blocked();
    for number in 0..100 {
        world.publish("plain", number);
        world.settle();
        world.received(quick);
    }
    assert_eq!(world.code(slow), 3008);
    assert_eq!(world.worker.subscription_count(), 1);
    assert!(world.worker.outbox(slow).is_none_or(|outbox| outbox.queued() <= 2_000));
    world.assert_no_state_remains();
}

/// A session of ann, whose token has subscribed it to `kept:x` and `kept:y`, and the last answer
/// that its connect reply waits for; the stream of `kept:x` has begun anew meanwhile.
fn connecting_with_a_gap() -> (World, SessionKey, BrokerEvent) {
    let mut rules = rules();
    let kept = rules.channels.namespaces.get_mut("kept").unwrap();
    (kept.history_ttl_ms, kept.history_meta_ttl_ms) = (2_000, 2_000);
    let mut world = World::with(rules);
    world.publish("kept:x", 1);
    let key = world.open();
    world.says(key, r#"{"id":1,"connect":{"token":"t"}}"#);
    world.verify(Ok(subscribed_to("ann", &["kept:x", "kept:y"])));
    assert!(world.step(), "kept:x is answered, kept:y is not");
    let answer = world.lose().expect("the answer about kept:y");
    world.pass(3);
    world.publish("kept:x", 2);
    world.publish("kept:x", 3);
    world.settle();
    (world, key, answer)
}

#[test]
fn a_stream_that_begins_anew_while_the_connect_reply_waits_is_a_gap() {
    let (mut world, key, answer) = connecting_with_a_gap();
    world.happens(answer);
    assert_eq!(world.code(key), 3010, "{:?}", world.received(key));
    let received = world.received(key).join("\n");
    assert!(!received.contains("\"push\""), "of another epoch than the reply: {received}");
    world.assert_no_state_remains();
}

#[test]
fn a_gap_ends_with_its_subscription_and_does_not_meet_the_next_one() {
    let (mut world, key, answer) = connecting_with_a_gap();
    world.order("ann", Order::Unsubscribe { channel: "kept:x".to_owned() });
    world.says(key, r#"{"id":2,"subscribe":{"channel":"kept:z"}}"#);
    world.happens(answer);
    world.settle();
    let received = world.received(key);
    let is_unsubscribed =
        |line: &String| line.contains(r#""channel":"kept:x","unsubscribe":{"code":2000"#);
    assert!(received.iter().any(is_unsubscribed), "{received:?}");
    assert!(received.last().unwrap().starts_with(r#"{"id":2,"subscribe":"#), "{received:?}");
    assert!(!received.join("\n").contains("2500"), "kept:z misses nothing: {received:?}");
    assert!(world.closes.is_empty(), "{:?}", world.closes);
    assert_eq!(world.worker.subscription_count(), 2);
}
