//! A receiver that works.

use std::sync::Arc;
use std::time::Duration;

use events::limits::QUEUE_BYTES_MIN;
use events::{EventClient, EventKind, Occurrence, SinkSettings};
use serde_json::json;

use crate::receiver::{Act, Receiver};
use crate::support::{Running, clients, kinds, sink};

#[tokio::test]
async fn events_arrive_once_and_in_order() {
    let receiver = Receiver::start(|_, events| {
        assert!(events.len() <= 10, "batch_max");
        Act::Answer(204)
    })
    .await;
    let running = Running::start(&[sink(receiver.port)]);
    let ann = EventClient { client: "c1", user: "ann" };
    let news: Arc<str> = "news".into();
    running.bus.record(1, &Occurrence::NodeJoined);
    running.bus.record(2, &Occurrence::Online(ann));
    running.bus.record(3, &Occurrence::Subscribed(ann, &news));
    running.bus.record(4, &Occurrence::Subscribed(EventClient { client: "c2", user: "" }, &news));
    running.bus.record(5, &Occurrence::Unsubscribed(EventClient { client: "c2", user: "" }, &news));
    running.bus.record(6, &Occurrence::Unsubscribed(ann, &news));
    running.bus.record(7, &Occurrence::Offline(ann, "connection closed"));
    let events = receiver.until(|events| events.len() == 9).await;
    assert_eq!(
        kinds(&events),
        [
            "node_joined",
            "online",
            "occupied",
            "subscribed",
            "subscribed",
            "unsubscribed",
            "unsubscribed",
            "vacated",
            "offline"
        ]
    );
    assert_eq!(
        events[8],
        json!({"id": "uid-9", "event": "offline", "node_id": "node-1", "process_id": "uid", "timestamp": 7,
            "client_id": "c1", "user_id": "ann", "reason": "connection closed"})
    );
    assert_eq!(events[2]["channel"], "news");
    for number in 0..1_000 {
        running.online(number);
    }
    let events = receiver.until(|events| events.len() == 1_009).await;
    assert!(clients(&events).into_iter().eq(0..1_000));
    let stats = running.until(|stats| stats.queued == 0).await;
    assert_eq!((stats.delivered, stats.lost, stats.failures), (1_009, [0; 3], 0));
    assert_eq!(stats.queued_bytes, 0);
}

#[tokio::test]
async fn each_sink_gets_what_it_wants() {
    let receiver = Receiver::start(|_, _| Act::Answer(200)).await;
    let away = Receiver::start(|_, _| Act::Hang).await;
    let wanted = SinkSettings {
        kinds: vec![EventKind::Occupied, EventKind::Online],
        takes_channel: Arc::new(|channel| channel.starts_with("chat:")),
        ..sink(receiver.port)
    };
    let running = Running::start(&[wanted, sink(away.port)]);
    let ann = EventClient { client: "1", user: "ann" };
    for channel in ["news", "chat:a"] {
        let channel = channel.into();
        running.bus.record(1, &Occurrence::Subscribed(ann, &channel));
        running.bus.record(1, &Occurrence::Unsubscribed(ann, &channel));
    }
    running.bus.record(1, &Occurrence::Offline(ann, ""));
    running.bus.record(1, &Occurrence::Online(ann));
    let events = receiver.until(|events| events.len() == 2).await;
    assert_eq!(kinds(&events), ["occupied", "online"]);
    running.until(|stats| stats.delivered == 2).await;
    assert_eq!(running.bus.stats()[1].queued, 10, "the other sink waits by itself");
}

#[tokio::test]
async fn half_of_a_small_queue_is_sent_before_it_is_full() {
    let receiver = Receiver::start(|_, _| Act::Answer(200)).await;
    let settings = SinkSettings {
        queue_bytes_max: QUEUE_BYTES_MIN,
        batch_max: 10_000,
        batch_delay: Duration::from_secs(3600),
        ..sink(receiver.port)
    };
    let running = Running::start(&[settings]);
    for number in 0..1_000 {
        running.online(number);
        tokio::task::yield_now().await;
        running.until(|stats| stats.queued_bytes < QUEUE_BYTES_MIN * 3 / 4).await;
    }
    receiver.until(|events| events.len() >= 900).await;
    assert_eq!(running.stats().lost, [0; 3]);
}

#[tokio::test]
async fn sinks_of_one_receiver_have_other_ids_of_requests() {
    let receiver = Receiver::start(|_, _| Act::Answer(200)).await;
    let other = SinkSettings { name: "other".into(), ..sink(receiver.port) };
    let running = Running::start(&[sink(receiver.port), other]);
    running.online(1);
    let mut ids = receiver.requests(2).await;
    ids.sort_unstable();
    assert_eq!(ids, ["backend-uid-1-1", "other-uid-1-1"]);
}
