//! What one peer can make a worker do and store.

use std::sync::Arc;

use engine::hash_keys::HashKeys;
use engine::rates::{Bucket, Rate, Rates};
use engine::rules::Rules;
use engine::shared_buckets::SharedBuckets;

use crate::world::{World, claims, rules};

fn history(count: u32) -> String {
    let command = |id| format!(r#"{{"id":{id},"history":{{"channel":"kept:a","limit":-1}}}}"#);
    (1..=count).map(command).collect::<Vec<_>>().join("\n")
}

#[test]
fn many_commands_are_answered_in_order_but_not_at_once() {
    let mut world = World::new();
    let key = world.anonymous();
    world.says(key, &history(1_000));
    assert!(world.worker.is_congested(key), "its peer is not to be read for now");
    world.settle();
    let received = world.received(key);
    assert_eq!(received.len(), 1_000);
    for (index, line) in received.iter().enumerate() {
        assert!(line.starts_with(&format!(r#"{{"id":{},"history":"#, index + 1)), "{line}");
    }
    assert!(!world.worker.is_congested(key));
}

#[test]
fn nothing_is_encoded_for_a_session_that_is_closed() {
    let mut rules = rules();
    rules.client.queue_max_size = 2_000;
    let mut world = World::with(rules);
    let key = world.anonymous();
    (0..10).for_each(|number| world.publish("kept:a", number));
    world.worker.outbox(key).unwrap().mark_blocked();
    world.says(key, &history(1_000));
    world.settle();
    assert_eq!(world.code(key), 3008);
    assert!(world.worker.outbox(key).is_some_and(|outbox| outbox.queued() <= 2_000));
    world.assert_no_state_remains();
}

#[test]
fn commands_beyond_the_backlog_are_a_flood() {
    let mut world = World::new();
    let key = world.open();
    world.says(key, r#"{"id":1,"connect":{"token":"t"}}"#);
    let data = "x".repeat(60_000);
    for id in 2..40 {
        world.says(key, &format!(r#"{{"id":{id},"rpc":{{"data":"{data}"}}}}"#));
    }
    assert_eq!(world.code(key), 3013);
    world.verify(Ok(claims("ann")));
    world.assert_no_state_remains();
}

#[test]
fn the_queue_of_a_join_is_bounded_and_its_overflow_reported() {
    let mut rules = rules();
    rules.client.queue_max_size = 10_000;
    let mut world = World::with(rules);
    let first = world.anonymous();
    world.says(first, r#"{"id":2,"subscribe":{"channel":"kept:a"}}"#);
    world.settle();
    let key = world.anonymous();
    world.says(key, r#"{"id":2,"subscribe":{"channel":"kept:a"}}"#);
    // Its reply is in flight while far more is published than its queue holds.
    let answer = world.lose().expect("an answer");
    (0..1_000).for_each(|number| world.publish("kept:a", number));
    world.settle();
    world.happens(answer);
    let received = world.received(key);
    assert_eq!(received.len(), 2, "{received:?}");
    assert!(received[0].contains(r#"{"id":2,"subscribe":{"#), "{received:?}");
    assert!(received[1].contains(r#""unsubscribe":{"code":2500"#), "{received:?}");
}

/// Rules with one limited bucket, and one for refusals.
fn limited(bucket: Bucket, rate: Rate) -> Rules {
    Rules {
        rates: Rates::new(|one| match one {
            Bucket::ConnectionRefusals => Rate::new(1, 1_000, 5),
            one => Some(rate).filter(|_| one == bucket),
        }),
        ..rules()
    }
}

fn publish(channel: &str) -> String {
    format!(r#"{{"id":9,"publish":{{"channel":"{channel}","data":1}}}}"#)
}

/// The error with this delay to retry.
fn refusal(wait_ms: u64) -> String {
    let text = format!("too many requests; retry after {wait_ms} ms");
    format!(r#"{{"id":9,"error":{{"code":111,"message":"{text}","temporary":true}}}}"#)
}

#[test]
fn a_publish_above_the_rate_is_refused_with_the_time_to_retry() {
    let rate = Rate::new(10, 1_000, 2).unwrap();
    let mut world = World::with(limited(Bucket::ConnectionPublishes, rate));
    let (key, other) = (world.anonymous(), world.anonymous());
    for _ in 0..3 {
        world.says(key, &publish("kept:a"));
        world.settle();
    }
    let received = world.received(key);
    assert_eq!(received[..2], [r#"{"id":9,"publish":{}}"#; 2]);
    assert_eq!(received[2..], [refusal(100)]);
    world.says(other, &publish("kept:a"));
    world.settle();
    assert_eq!(world.received(other), [r#"{"id":9,"publish":{}}"#], "others go on");
    world.says(other, r#"{"id":9,"history":{"channel":"kept:a","limit":0}}"#);
    world.settle();
    assert!(world.received(other)[0].contains(r#""offset":3"#), "nothing was published");
    world.pass(1);
    world.says(key, &publish("kept:a"));
    world.settle();
    assert_eq!(world.received(key), [r#"{"id":9,"publish":{}}"#]);
    assert_eq!(world.worker.counters().limited[Bucket::ConnectionPublishes as usize], 1);
}

#[test]
fn a_subscribe_that_comes_too_soon_changes_nothing() {
    for bucket in [Bucket::ConnectionSubscribes, Bucket::ConnectionNewChannels] {
        let mut world = World::with(limited(bucket, Rate::new(1, 1_000, 1).unwrap()));
        let key = world.anonymous();
        world.says(key, r#"{"id":8,"subscribe":{"channel":"people:a"}}"#);
        world.settle();
        world.received(key);
        world.says(key, r#"{"id":9,"subscribe":{"channel":"people:b"}}"#);
        world.settle();
        let received = world.received(key);
        assert!(received[0].contains(r#""code":111"#) && received.len() == 1, "{received:?}");
        assert_eq!(world.worker.subscription_count(), 1);
        world.says(key, r#"{"id":9,"presence_stats":{"channel":"people:b"}}"#);
        world.settle();
        assert!(!world.received(key)[0].contains(r#""num_clients":1"#), "nobody is there");
    }
}

#[test]
fn channels_that_are_known_are_not_new() {
    let bucket = Bucket::ConnectionNewChannels;
    let mut world = World::with(limited(bucket, Rate::new(1, 60_000, 2).unwrap()));
    let (key, other) = (world.anonymous(), world.anonymous());
    let mut answer = |key, command: &str| {
        world.says(key, command);
        world.settle();
        world.received(key).last().unwrap().contains("error")
    };
    assert!(!answer(other, r#"{"id":9,"subscribe":{"channel":"kept:heard"}}"#));
    // Channels seen before by publishing, subscribing and reading history are not new.
    for _ in 0..3 {
        assert!(!answer(key, &publish("made-up-1")));
        assert!(!answer(key, &publish("kept:heard")));
        assert!(!answer(key, r#"{"id":9,"history":{"channel":"kept:b","limit":0}}"#));
    }
    assert!(answer(key, &publish("made-up-2")));
    assert!(answer(key, r#"{"id":9,"history":{"channel":"kept:c","limit":0}}"#));
    assert!(!answer(other, &publish("made-up-2")), "each connection pays for its own");
    assert!(!answer(key, &publish("made-up-2")), "which make the channel known");
}

#[test]
fn bytes_are_counted_by_message_and_pongs_are_free() {
    let bucket = Bucket::ConnectionBytes;
    let mut world = World::with(limited(bucket, Rate::new(1_000, 1_000, 2_000).unwrap()));
    let key = world.anonymous();
    let data = "x".repeat(1_500);
    let large = format!(r#"{{"id":9,"publish":{{"channel":"a","data":"{data}"}}}}"#);
    world.says(key, &large);
    world.says(key, &large);
    world.settle();
    let received = world.received(key);
    assert!(
        received[0].contains(r#""code":111"#) && received[1].contains("publish"),
        "{received:?}"
    );
    while world.received(key) != ["{}"] {
        world.pass(1);
    }
    // No tokens are left for a pong, and it is counted.
    world.says(key, &large);
    world.says(key, "{}");
    world.pass(9);
    world.says(key, &publish("a"));
    world.settle();
    assert!(world.closes.is_empty(), "{:?}", world.closes);
}

#[test]
fn commands_after_many_refusals_are_a_flood() {
    let rate = Rate::new(1, 60_000, 3).unwrap();
    let mut world = World::with(limited(Bucket::ConnectionCommands, rate));
    let key = world.anonymous();
    for _ in 0..7 {
        world.says(key, r#"{"id":9,"rpc":{}}"#);
    }
    assert!(world.closes.is_empty(), "five refusals are borne");
    let received = world.received(key);
    assert_eq!(received.iter().filter(|line| line.contains(r#""code":108"#)).count(), 2);
    assert_eq!(received.iter().filter(|line| line.contains("retry after")).count(), 5);
    world.says(key, r#"{"id":9,"rpc":{}}"#);
    assert_eq!(world.code(key), 3013);
    let limited = world.worker.counters().limited;
    assert_eq!(limited[Bucket::ConnectionCommands as usize], 6);
    assert_eq!(limited[Bucket::ConnectionRefusals as usize], 1);
    world.assert_no_state_remains();
}

#[test]
fn a_user_has_one_bucket_for_all_connections() {
    let rules = Rules {
        rates: Rates::new(|bucket| match bucket {
            Bucket::UserPublishes => Rate::new(10, 1_000, 3),
            Bucket::UserConnects => Rate::new(1, 60_000, 3),
            _ => None,
        }),
        ..rules()
    };
    let mut world = World::with(rules);
    world.worker.share_buckets(Arc::new(SharedBuckets::new(HashKeys::new([1, 2]))));
    let user = |world: &mut World, name| {
        let key = world.open();
        world.says(key, r#"{"id":1,"connect":{"token":"t"}}"#);
        world.verify(Ok(claims(name)));
        world.settle();
        (key, world.received(key).remove(0))
    };
    let (one, _) = user(&mut world, "ann");
    let (two, _) = user(&mut world, "ann");
    let (other, _) = user(&mut world, "bob");
    for key in [one, two, one, two, other] {
        world.says(key, &publish("a"));
        world.settle();
    }
    assert_eq!(world.received(one), [r#"{"id":9,"publish":{}}"#; 2]);
    assert_eq!(world.received(two), [r#"{"id":9,"publish":{}}"#, &*refusal(100)]);
    assert_eq!(world.received(other), [r#"{"id":9,"publish":{}}"#]);
    let (_, third) = user(&mut world, "ann");
    assert!(third.contains(r#""connect":{"#), "{third}");
    let (_, fourth) = user(&mut world, "ann");
    let expected = r#""error":{"code":111,"message":"too many requests; retry after 60000 ms""#;
    assert!(fourth.contains(expected), "{fourth}");
    assert_eq!(world.worker.clients(Some("ann")).count(), 3);
}

#[test]
fn rates_change_for_those_that_are_connected() {
    let rate = |burst| Rate::new(1, 60_000, burst).unwrap();
    let mut world = World::with(limited(Bucket::ConnectionPublishes, rate(2)));
    let key = world.anonymous();
    let publishes = |world: &mut World, count| {
        (0..count).for_each(|_| world.says(key, &publish("a")));
        world.settle();
        world.received(key).iter().filter(|line| !line.contains("error")).count()
    };
    assert_eq!(publishes(&mut world, 1), 1);
    // A half-full bucket stays half full under the new rates.
    world.worker.set_rules(Arc::new(limited(Bucket::ConnectionPublishes, rate(10))));
    assert_eq!(publishes(&mut world, 9), 5);
    world.worker.set_rules(Arc::new(rules()));
    assert_eq!(publishes(&mut world, 100), 100);
}

#[test]
fn unsubscribing_is_never_refused() {
    for bucket in [Bucket::ConnectionCommands, Bucket::ConnectionBytes] {
        let mut world = World::with(limited(bucket, Rate::new(1, 60_000, 200).unwrap()));
        let key = world.anonymous();
        world.says(key, r#"{"id":8,"subscribe":{"channel":"people:a"}}"#);
        world.settle();
        while !world.received(key).iter().any(|line| line.contains("retry after")) {
            world.says(key, r#"{"id":9,"presence_stats":{"channel":"people:a"}}"#);
            world.settle();
        }
        world.says(key, r#"{"id":9,"unsubscribe":{"channel":"people:a"}}"#);
        assert_eq!(world.received(key), [r#"{"id":9,"unsubscribe":{}}"#]);
        assert_eq!(world.worker.subscription_count(), 0);
    }
}
