//! A receiver that is away, slow, wrong or overloaded: nothing is lost that fits into the queue.

use events::SinkSettings;
use events::limits::QUEUE_BYTES_MIN;

use crate::receiver::{Act, Receiver};
use crate::support::{Running, clients, kinds, sink};

/// Events arrive after these acts, with the same id of their batch for every attempt.
async fn survives(acts: &'static [Act]) {
    let receiver =
        Receiver::start(|number, _| acts.get(number).copied().unwrap_or(Act::Answer(200))).await;
    let running = Running::start(&[sink(receiver.port)]);
    (0..3).for_each(|number| running.online(number));
    let events = receiver.until(|events| clients(events).ends_with(&[0, 1, 2])).await;
    let stats = running.until(|stats| stats.queued == 0).await;
    assert_eq!(stats.delivered, 3, "{acts:?}: {events:?}");
    assert_eq!((stats.lost, stats.failures), ([0; 3], acts.len() as u64), "{acts:?}");
    let ids = receiver.requests(acts.len() + 1).await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn what_fails_is_sent_again() {
    tokio::join!(
        survives(&[Act::Answer(500), Act::Answer(503)]),
        survives(&[Act::Answer(401)]),
        survives(&[Act::Answer(403)]),
        survives(&[Act::Answer(404)]),
        survives(&[Act::Answer(302)]),
        survives(&[Act::Reset]),
        survives(&[Act::Hang]),
        survives(&[Act::Send("nonsense\r\n\r\n")]),
        survives(&[Act::Send("HTTP/1.1 429 X\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")]),
    );
}

#[tokio::test]
async fn a_batch_whose_answer_is_lost_arrives_twice_with_the_same_ids() {
    let receiver = Receiver::start(|number, _| match number {
        0 => Act::TakeAndClose,
        _ => Act::Answer(200),
    })
    .await;
    let running = Running::start(&[sink(receiver.port)]);
    running.online(1);
    let events = receiver.until(|events| events.len() == 2).await;
    assert_eq!(events[0], events[1]);
}

#[tokio::test]
async fn a_receiver_that_is_away_gets_everything_when_it_is_back() {
    let (socket, port) = Receiver::away();
    let running = Running::start(&[sink(port)]);
    (0..100).for_each(|number| running.online(number));
    let stats = running.until(|stats| stats.failures >= 2).await;
    assert_eq!((stats.queued, stats.delivered, stats.lost), (100, 0, [0; 3]));
    assert!(!stats.delay.is_zero());
    let receiver = Receiver::start_on(socket.listen(8).unwrap(), |_, _| Act::Answer(200));
    let events = receiver.until(|events| events.len() == 100).await;
    assert!(clients(&events).into_iter().eq(0..100));
}

#[tokio::test]
async fn events_beyond_the_bound_are_counted_and_reported_in_their_place() {
    let (socket, port) = Receiver::away();
    let settings = SinkSettings { queue_bytes_max: QUEUE_BYTES_MIN, ..sink(port) };
    let running = Running::start(&[settings]);
    (0..2_000).for_each(|number| running.online(number));
    let stats = running.stats();
    let lost = stats.lost[0];
    assert!(lost > 1_000 && stats.queued_bytes <= QUEUE_BYTES_MIN, "{stats:?}");
    assert_eq!(stats.queued as u64 + lost, 2_000);
    let receiver = Receiver::start_on(socket.listen(8).unwrap(), |_, _| Act::Answer(200));
    let events = receiver.until(|events| kinds(events).contains(&"lost")).await;
    let kept = 2_000 - i64::try_from(lost).unwrap();
    assert!(clients(&events).into_iter().eq(0..kept));
    let report = events.last().unwrap();
    assert_eq!((report["event"].as_str(), report["count"].as_u64()), (Some("lost"), Some(lost)));
    assert_eq!((report["since"].as_i64(), report["timestamp"].as_i64()), (Some(kept), Some(1_999)));
    running.online(5_000);
    let events = receiver.until(|events| clients(events).contains(&5_000)).await;
    assert_eq!(kinds(&events).iter().filter(|kind| **kind == "lost").count(), 1);
}

#[tokio::test]
async fn only_the_event_that_the_receiver_rejects_is_lost() {
    let receiver = Receiver::start(|_, events| {
        let is_bad = |event: &serde_json::Value| event["client_id"] == "13";
        if events.iter().any(is_bad) { Act::Answer(400) } else { Act::Answer(200) }
    })
    .await;
    let running = Running::start(&[sink(receiver.port)]);
    (0..30).for_each(|number| running.online(number));
    let events = receiver.until(|events| events.len() == 30).await;
    assert!(clients(&events).into_iter().eq((0..30).filter(|number| *number != 13)));
    assert_eq!((&events[13]["event"], &events[13]["count"]), (&"lost".into(), &1.into()));
    assert_eq!((&events[13]["since"], &events[13]["timestamp"]), (&13.into(), &13.into()));
    let stats = running.until(|stats| stats.queued == 0).await;
    assert_eq!((stats.delivered, stats.lost), (29, [0, 1, 0]));
    assert!(stats.failures >= 2 && stats.failures < 15, "{stats:?}");
}

#[tokio::test]
async fn a_receiver_that_rejects_everything_for_a_time_gets_everything() {
    for status in [400, 413, 422] {
        let act = move |number, _: &[serde_json::Value]| match number {
            0..20 => Act::Answer(status),
            _ => Act::Answer(200),
        };
        let receiver = Receiver::start(act).await;
        let running = Running::start(&[sink(receiver.port)]);
        (0..30).for_each(|number| running.online(number));
        let events = receiver.until(|events| events.len() == 30).await;
        assert!(clients(&events).into_iter().eq(0..30));
        let stats = running.until(|stats| stats.queued == 0).await;
        assert_eq!((stats.delivered, stats.lost), (30, [0; 3]));
    }
}

#[tokio::test]
async fn a_rejected_event_waits_until_another_one_is_accepted() {
    let is_bad = |event: &serde_json::Value| event["client_id"].as_str().is_some_and(|id| id < "3");
    let act = move |_, events: &[serde_json::Value]| match events.iter().any(is_bad) {
        true => Act::Answer(422),
        false => Act::Answer(200),
    };
    let receiver = Receiver::start(act).await;
    let running = Running::start(&[sink(receiver.port)]);
    (0..3).for_each(|number| running.online(number));
    let stats = running.until(|stats| stats.failures >= 4).await;
    assert_eq!((stats.queued, stats.lost), (3, [0; 3]));
    running.online(3);
    let events = receiver.until(|events| events.len() == 2).await;
    assert_eq!((&events[0]["count"], &events[0]["since"]), (&3.into(), &0.into()));
    assert_eq!((kinds(&events), clients(&events)), (vec!["lost", "online"], vec![3]));
    let stats = running.until(|stats| stats.queued == 0).await;
    assert_eq!((stats.delivered, stats.lost), (1, [0, 3, 0]));
}

#[tokio::test]
async fn a_receiver_that_knows_no_lost_events_loses_no_other_ones() {
    let is_bad = |event: &serde_json::Value| event["client_id"] == "3" || event["event"] == "lost";
    let act = move |_, events: &[serde_json::Value]| match events.iter().any(is_bad) {
        true => Act::Answer(400),
        false => Act::Answer(200),
    };
    let receiver = Receiver::start(act).await;
    let running = Running::start(&[sink(receiver.port)]);
    (0..10).for_each(|number| running.online(number));
    let events = receiver.until(|events| events.len() == 9).await;
    assert!(clients(&events).into_iter().eq((0..10).filter(|number| *number != 3)));
}

#[tokio::test]
async fn the_status_acknowledges_also_if_the_rest_of_the_answer_does_not_come() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let receiver = Receiver::start(move |_, _| Act::Send(head)).await;
        let running = Running::start(&[sink(receiver.port)]);
        (0..3).for_each(|number| running.online(number));
        let stats = running.until(|stats| stats.queued == 0).await;
        assert_eq!((stats.delivered, stats.failures), (3, 0));
    }
}
