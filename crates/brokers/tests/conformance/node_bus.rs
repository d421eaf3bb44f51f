//! Cases of what nodes exchange beside publications: controls, lifecycle events and surveys.

use std::sync::Arc;

use bytes::Bytes;
use engine::broker::{BrokerEvent, Control, JoinRead, NodeBusRequest, Order, Survey, Target};
use engine::channel::LIFECYCLE;
use engine::lifecycle::{Change, Lifecycle};
use wire::protocol::{ClientInfo, DisconnectCode};

use super::{World, begin, client, payload};

pub(super) fn control(world: &mut dyn World) {
    let (mut actor, one, two, _) = begin(world);
    let controls = ["ann", "bob"].map(|user| {
        Arc::new(Control {
            target: Target { user: user.into(), ..Target::default() },
            order: Order::Disconnect(DisconnectCode::ForceDisconnect.into()),
        })
    });
    for control in &controls {
        actor.submit(one, NodeBusRequest::Control(control.clone()));
    }
    let is = |event: &BrokerEvent, control: &Arc<Control>| matches!(event, BrokerEvent::Control(received) if received == control);
    for endpoint in [one, two] {
        let events = actor.events_to(endpoint, |event| is(event, &controls[1]));
        let received = events.iter().filter(|event| is(event, &controls[0]));
        assert_eq!(received.count(), 1, "{events:?}");
    }
}

pub(super) fn lifecycle(world: &mut dyn World) {
    let (mut actor, one, two, _) = begin(world);
    actor.subscribe(two, &LIFECYCLE.into(), JoinRead::Nothing);
    let event = |client: &Arc<ClientInfo>, change| {
        NodeBusRequest::Lifecycle(Lifecycle { info: client.clone(), change, at_ms: 7 })
    };
    let (ann, bob) = (client("ann \"\u{e9}", "1"), client("bob", "2"));
    let offline = Change::Offline { reason: "shutdown".into() };
    for (client, change) in
        [(&ann, Change::Online), (&bob, Change::Online), (&ann, offline.clone()), (&bob, offline)]
    {
        actor.submit(one, event(client, change));
    }
    let mut missing = 4;
    let mut events = actor.events_to(two, |event| {
        missing -= usize::from(payload(event).is_some());
        missing == 0
    });
    // After all of them.
    actor.submit(one, event(&client("carol", "3"), Change::Online));
    events.extend(
        actor.events_to(two, |event| payload(event).is_some_and(|text| text.contains("carol"))),
    );
    let received: Vec<serde_json::Value> = events
        .iter()
        .filter_map(payload)
        .map(|event| serde_json::from_str(&event).expect("events are JSON"))
        .collect();
    for client in [ann, bob] {
        let of_client: Vec<_> =
            received.iter().filter(|event| event["client_id"] == *client.client).collect();
        let words: Vec<_> =
            of_client.iter().map(|event| (&event["event"], &event["reason"])).collect();
        assert_eq!(
            words,
            [(&"online".into(), &"".into()), (&"offline".into(), &"shutdown".into())]
        );
        for event in of_client {
            assert_eq!(event["user_id"], *client.user);
            assert_eq!(event["timestamp"], 7);
            assert!(event["node_id"].is_string());
        }
    }
}

pub(super) fn survey(world: &mut dyn World) {
    let (mut actor, one, _, _) = begin(world);
    let question = Bytes::from_static(b"x");
    let answer = actor.ask(one, |id| NodeBusRequest::Survey { id, question });
    assert_eq!(answer, Ok(Survey::default()));
}
