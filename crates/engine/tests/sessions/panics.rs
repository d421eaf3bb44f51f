//! A session whose handling panics is removed. Other sessions and shared state stay consistent.

use std::panic::{AssertUnwindSafe, catch_unwind};

use engine::claims::TokenRefusal;
use engine::{CallOutcome, SessionKey};

use crate::world::{World, claims, subscribed_to};

/// Passes a result of the wrong kind, which only a faulty driver would do: handling it panics
/// after the session was unblocked and before it resumes.
fn break_session(world: &mut World, key: SessionKey) -> Option<SessionKey> {
    world.says(key, r#"{"id":9,"subscribe":{"channel":"closed:b","token":"t"}}"#);
    let (now, call) = (world.now(), world.take_call());
    let result = CallOutcome::Connection(Err(TokenRefusal::Invalid));
    let handle = || world.worker.handle_call_result(now, key, call, result);
    catch_unwind(AssertUnwindSafe(handle)).expect_err("a result of the wrong kind panics");
    let removed = world.worker.handle_panic(now);
    world.take_effects();
    removed
}

#[test]
fn a_panic_ends_the_session_that_it_happened_in_and_no_other() {
    let mut world = World::new();
    let neighbour = world.user(claims("bob"));
    world.says(neighbour, r#"{"id":2,"subscribe":{"channel":"people:a"}}"#);
    world.settle();
    let key = world.user(subscribed_to("ann", &["kept:a", "people:a"]));
    world.settle();
    world.received(neighbour);
    assert_eq!(break_session(&mut world, key), Some(key));
    world.settle();
    assert_eq!(world.code(key), 3004);
    assert!(world.present("people:a").contains("num_clients: 1"));
    assert_eq!(world.worker.subscription_count(), 1);
    assert_eq!(world.worker.users().names().collect::<Vec<_>>(), ["bob"]);
    let received = world.received(neighbour);
    assert!(received[0].contains(r#""leave":{"info":{"user":"ann""#), "{received:?}");
    // Later events for it are dropped, and its channels belong to the others.
    world.publish("people:a", 1);
    world.publish("kept:a", 1);
    world.settle();
    assert_eq!(world.received(neighbour).len(), 1);
    world.says(key, r#"{"id":10,"history":{"channel":"kept:a"}}"#);
    world.live(&[neighbour], 60);
    assert_eq!(world.received(key), [""; 0]);
    assert_eq!(world.closes.len(), 1);
    world.assert_no_state_remains();
}

#[test]
fn a_panic_that_no_session_caused_removes_none() {
    let mut world = World::new();
    let key = world.user(claims("ann"));
    let now = world.now();
    assert_eq!(world.worker.handle_panic(now), None);
    assert_eq!(world.received(key).len(), 1);
    world.says(key, r#"{"id":2,"history":{"channel":"kept:a"}}"#);
    world.settle();
    assert_eq!(world.received(key).len(), 1);
}

#[test]
fn a_session_can_be_removed_at_any_time_and_once() {
    let mut world = World::new();
    // Before admission, during a token's verification, and during a broker's request.
    let keys = [world.open(), world.open(), world.open()];
    world.says(keys[1], r#"{"id":1,"connect":{"token":"t"}}"#);
    world.says(keys[2], r#"{"id":1,"connect":{}}"#);
    world.settle();
    world.says(keys[2], r#"{"id":2,"subscribe":{"channel":"people:a"}}"#);
    for key in keys {
        let now = world.now();
        world.worker.abandon(now, key);
        world.take_effects();
        assert_eq!(world.code(key), 3004);
    }
    world.settle();
    world.verify(Ok(claims("ann")));
    world.cut(keys[0]);
    let now = world.now();
    world.worker.abandon(now, keys[0]);
    world.take_effects();
    assert_eq!(world.code(keys[0]), 3004);
    world.assert_no_state_remains();
    assert!(world.present("people:a").contains("num_clients: 0"));
}
