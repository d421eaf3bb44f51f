//! Replies stay within their budget of bytes, and what does not fit is reported.

use wire::protocol::{Codec, ReplyBody, decode_replies};

use crate::world::{World, rules, subscribed_to};

/// Maximum bytes of a reply in these tests.
const BUDGET: usize = 64 * 1024;

/// A world whose channels retain 10 publications of 20,000 bytes, of which three fit into a reply.
fn world() -> World {
    let mut rules = rules();
    rules.client.queue_max_size = 2 * BUDGET;
    rules.client.recovery_max_publication_limit = 300;
    World::with(rules)
}

fn fill(world: &mut World, channel: &str, count: usize, length: usize) {
    for _ in 0..count {
        world.publish_data(channel, "1".repeat(length).into());
    }
}

/// The offsets in a history reply, and its top offset.
fn page(line: &str) -> (Vec<u64>, u64) {
    assert!(line.len() <= BUDGET + 1_000, "{}", line.len());
    let replies = decode_replies(Codec::Json, line.as_bytes()).unwrap();
    let ReplyBody::History(result) = &replies[0].body else { panic!("{line}") };
    (result.publications.iter().map(|one| one.offset).collect(), result.offset)
}

#[test]
fn history_is_cut_and_can_be_read_on() {
    let mut world = world();
    fill(&mut world, "kept:a", 10, 20_000);
    let key = world.anonymous();
    for direction in ["false", "true"] {
        let mut since = String::new();
        let mut seen = Vec::new();
        while seen.len() < 10 {
            world.says(
                key,
                &format!(
                    r#"{{"id":2,"history":{{"channel":"kept:a","limit":-1,"reverse":{direction}{since}}}}}"#
                ),
            );
            world.settle();
            let (offsets, top) = page(&world.received(key)[0]);
            assert_eq!(top, 10, "the client sees that there is more");
            assert!((1..=3).contains(&offsets.len()), "{offsets:?}");
            let last = *offsets.last().unwrap();
            since = format!(r#","since":{{"offset":{last},"epoch":""}}"#);
            seen.extend(offsets);
        }
        let mut expected: Vec<u64> = (1..=10).collect();
        if direction == "true" {
            expected.reverse();
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn one_publication_is_readable_whatever_its_size() {
    let mut world = world();
    fill(&mut world, "kept:a", 2, 500_000);
    let key = world.anonymous();
    world.says(key, r#"{"id":2,"history":{"channel":"kept:a","limit":-1}}"#);
    world.settle();
    let line = &world.received(key)[0];
    assert!(line.contains(r#""offset":1"#) && line.len() < 501_000);
    world.says(key, r#"{"id":3,"subscribe":{"channel":"kept:a","recover":true,"offset":1}}"#);
    world.settle();
    let line = &world.received(key)[0];
    assert!(line.contains(r#""recovered":true"#) && line.len() > 500_000);
}

#[test]
fn a_recovery_that_does_not_fit_is_refused_and_the_subscription_goes_on() {
    let mut world = world();
    fill(&mut world, "kept:a", 10, 20_000);
    let key = world.anonymous();
    for (offset, recovered) in [(7, true), (6, false)] {
        world.says(
            key,
            &format!(
                r#"{{"id":2,"subscribe":{{"channel":"kept:a","recover":true,"offset":{offset}}}}}"#
            ),
        );
        world.settle();
        let line = world.received(key).remove(0);
        assert!(line.contains(r#""was_recovering":true"#));
        assert_eq!(line.contains(r#""recovered":true"#), recovered);
        assert_eq!(line.contains(r#""publications":[{"#), recovered);
        assert!(line.contains(if recovered { r#""offset":7,"# } else { r#""offset":10,"# }));
        world.says(key, r#"{"id":3,"unsubscribe":{"channel":"kept:a"}}"#);
        world.received(key);
    }
    // A client that rejects incomplete recoveries gets an error.
    world.says(
        key,
        r#"{"id":4,"subscribe":{"channel":"kept:a","recover":true,"offset":6,"flag":2}}"#,
    );
    world.settle();
    assert!(world.received(key)[0].contains(r#""error":{"code":112"#));
    world.says(key, r#"{"id":5,"subscribe":{"channel":"kept:a","recover":true,"offset":6}}"#);
    world.settle();
    world.received(key);
    world.publish("kept:a", 11);
    world.settle();
    assert!(world.received(key)[0].contains(r#""offset":11"#), "no gap behind a refused recovery");
}

#[test]
fn all_recoveries_of_a_connect_share_one_budget() {
    let mut world = world();
    world.rules.client.channel_limit = 20;
    world.worker.set_rules(world.rules.clone().into());
    let channels: Vec<String> = (0..10).map(|number| format!("kept:{number}")).collect();
    channels.iter().for_each(|channel| fill(&mut world, channel, 2, 20_000));
    let key = world.open();
    let wishes: Vec<String> =
        channels.iter().map(|name| format!(r#""{name}":{{"recover":true}}"#)).collect();
    world.says(
        key,
        &format!(r#"{{"id":1,"connect":{{"token":"t","subs":{{{}}}}}}}"#, wishes.join(",")),
    );
    let names: Vec<&str> = channels.iter().map(String::as_str).collect();
    world.verify(Ok(subscribed_to("ann", &names)));
    world.settle();
    let line = world.received(key).remove(0);
    assert!(line.len() <= BUDGET + 10_000, "{}", line.len());
    assert_eq!(line.matches(r#""was_recovering":true"#).count(), 10);
    assert_eq!(line.matches(r#""recovered":true"#).count(), 1, "two of three fit once");
    // The others start at the top and miss nothing from there on.
    channels.iter().for_each(|channel| world.publish(channel, 3));
    world.settle();
    let received = world.received(key);
    assert_eq!(received.iter().filter(|line| line.contains(r#""offset":3"#)).count(), 10);
}

#[test]
fn publications_held_for_a_connect_reply_are_bounded_over_all_its_channels() {
    let mut world = world();
    let other = world.anonymous();
    for channel in ["kept:a", "kept:b", "kept:c"] {
        world.says(other, &format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
    }
    world.settle();
    let key = world.open();
    world.says(key, r#"{"id":1,"connect":{"token":"t"}}"#);
    world.verify(Ok(subscribed_to("ann", &["kept:a", "kept:b", "kept:c"])));
    // Its replies are in flight while more is published to each channel than fits in total.
    let answers: Vec<_> = (0..3).map(|_| world.lose().unwrap()).collect();
    ["kept:a", "kept:b", "kept:c"].iter().for_each(|name| fill(&mut world, name, 4, 20_000));
    world.settle();
    answers.into_iter().for_each(|answer| world.happens(answer));
    world.settle();
    let queued = world.worker.outbox(key).unwrap().queued();
    assert!(queued <= 2 * BUDGET + 10_000, "{queued}");
    // A channel with dropped publications has a gap; for a server-side subscription the connection
    // closes.
    assert_eq!(world.code(key), 3010);
}

#[test]
fn a_presence_that_does_not_fit_is_an_error() {
    let mut rules = rules();
    rules.client.queue_max_size = 4_000;
    let mut world = World::with(rules);
    let keys: Vec<_> = (0..30).map(|_| world.anonymous()).collect();
    for (index, key) in keys.iter().enumerate() {
        world.says(*key, r#"{"id":2,"subscribe":{"channel":"people:a"}}"#);
        world.settle();
        if index == 5 {
            world.received(*key);
            world.says(*key, r#"{"id":3,"presence":{"channel":"people:a"}}"#);
            world.settle();
            assert!(
                world.received(*key).iter().any(|line| line.contains(r#""presence":{"presence""#))
            );
        }
        keys.iter().for_each(|key| drop(world.received(*key)));
    }
    world.says(keys[0], r#"{"id":3,"presence":{"channel":"people:a"}}"#);
    world.says(keys[0], r#"{"id":4,"presence_stats":{"channel":"people:a"}}"#);
    world.settle();
    let received = world.received(keys[0]);
    assert!(received[0].contains(r#"{"id":3,"error":{"code":106"#), "{received:?}");
    assert!(received[1].contains(r#""num_clients":30"#), "{received:?}");
}
