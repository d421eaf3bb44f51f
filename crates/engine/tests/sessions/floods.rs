//! What one peer can make a worker do, and keep.

use crate::world::{World, claims, rules};

fn history(count: u32) -> String {
    let command = |id| format!(r#"{{"id":{id},"history":{{"channel":"kept:a","limit":-1}}}}"#);
    (1..=count).map(command).collect::<Vec<_>>().join("\n")
}

#[test]
fn whoever_asks_a_lot_is_answered_in_order_but_not_at_once() {
    let mut world = World::new();
    let key = world.anonymous();
    world.says(key, &history(1_000));
    assert!(world.worker.is_congested(key), "its peer is not to be read for now");
    world.settle();
    let heard = world.hears(key);
    assert_eq!(heard.len(), 1_000);
    for (index, line) in heard.iter().enumerate() {
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
    world.worker.outbox(key).unwrap().set_blocked(true);
    world.says(key, &history(1_000));
    world.settle();
    assert_eq!(world.code(key), 3008);
    assert!(world.worker.outbox(key).is_some_and(|outbox| outbox.queued() <= 2_000));
    world.assert_nothing_is_left();
}

#[test]
fn whoever_goes_on_while_nothing_is_answered_floods() {
    let mut world = World::new();
    let key = world.open();
    world.says(key, r#"{"id":1,"connect":{"token":"t"}}"#);
    let data = "x".repeat(60_000);
    for id in 2..40 {
        world.says(key, &format!(r#"{{"id":{id},"rpc":{{"data":"{data}"}}}}"#));
    }
    assert_eq!(world.code(key), 3013);
    world.verify(Ok(claims("ann")));
    world.assert_nothing_is_left();
}

#[test]
fn what_waits_for_a_join_is_bounded_and_told() {
    let mut rules = rules();
    rules.client.queue_max_size = 10_000;
    let mut world = World::with(rules);
    let first = world.anonymous();
    world.says(first, r#"{"id":2,"subscribe":{"channel":"kept:a"}}"#);
    world.settle();
    let key = world.anonymous();
    world.says(key, r#"{"id":2,"subscribe":{"channel":"kept:a"}}"#);
    // Its answer is on the way while far more is published than its queue could take.
    let answer = world.lose().expect("an answer");
    (0..1_000).for_each(|number| world.publish("kept:a", number));
    world.settle();
    world.happens(answer);
    let heard = world.hears(key);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].contains(r#"{"id":2,"subscribe":{"#), "{heard:?}");
    assert!(heard[1].contains(r#""unsubscribe":{"code":2500"#), "{heard:?}");
}
