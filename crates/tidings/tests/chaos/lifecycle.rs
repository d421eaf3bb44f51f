//! What a backend hears of clients that come and go: each once, and each that went was there
//! before.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::server::{Answer, RedisServer, wait_until};
use crate::world::World;

/// Waits until the stream of events reports all clients, and asserts that it reports none
/// twice.
pub(crate) fn wait_reported(world: &World, redis: &RedisServer) {
    let mut found = Err(String::new());
    wait_until("the stream reports all clients", || {
        let (admitted, here) = world.fleet.ask(|crowd| {
            let here = crowd.clients.iter().filter_map(|client| client.id.clone());
            (crowd.truth.admitted.clone(), here.collect::<HashSet<String>>())
        });
        found = check(&events(redis), &admitted, &here);
        !matches!(&found, Err(missing) if missing.starts_with(MISSING))
    });
    assert_eq!(found, Ok(()));
}

/// Client and event, in the order of the stream.
type Event = (String, String);

/// Whether each admitted client came once, and went once if it is here no more.
fn check(events: &[Event], admitted: &[String], here: &HashSet<String>) -> Result<(), String> {
    let mut reported: HashMap<&str, Vec<&str>> = HashMap::new();
    for (client, event) in events {
        reported.entry(client).or_default().push(event);
    }
    for client in admitted {
        let reported = reported.get(client.as_str()).map_or(&[][..], Vec::as_slice);
        let wanted: &[&str] =
            if here.contains(client) { &["online"] } else { &["online", "offline"] };
        if reported.len() < wanted.len() {
            return Err(format!("{MISSING} of {client}: {reported:?}"));
        }
        if reported != wanted {
            return Err(format!("of {client} was reported {reported:?}"));
        }
    }
    Ok(())
}

fn events(redis: &RedisServer) -> Vec<Event> {
    let keys = redis.ask(&["KEYS", "*:events"]);
    let entries = redis.ask(&["XRANGE", keys.list()[0].text(), "-", "+"]);
    entries.list().iter().map(event).collect()
}

fn event(entry: &Answer) -> Event {
    let [_id, fields] = entry.list() else { panic!("{entry:?} is no entry") };
    let reported: Value = serde_json::from_str(fields.list()[1].text()).expect("JSON");
    let word = |name: &str| reported[name].as_str().expect("a word").to_owned();
    (word("client_id"), word("event"))
}

/// What begins the words of something that may still come.
const MISSING: &str = "not yet everything";

#[test]
fn a_repeated_or_missing_lifecycle_event_is_found() {
    let event = |client: &str, event: &str| (client.to_owned(), event.to_owned());
    let admitted = ["a".to_owned(), "b".to_owned()];
    let here = HashSet::from(["b".to_owned()]);
    let mut events = vec![event("a", "online"), event("b", "online")];
    assert!(check(&events, &admitted, &here).unwrap_err().starts_with(MISSING));
    events.push(event("a", "offline"));
    assert_eq!(check(&events, &admitted, &here), Ok(()));
    events.push(event("a", "offline"));
    assert!(check(&events, &admitted, &here).is_err());
}
