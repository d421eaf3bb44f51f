//! Subscriptions of the server: named at connect, pushed later, recovered like others.

use wire::protocol::{ConnectResult, PushEvent, Request, StreamPosition, SubscribeResult};

use super::script::{Script, publication, recoverable};
use crate::error::TransportError;
use crate::session::{Event, Reason, SessionOptions, SubscriptionOrigin};

fn subs(names: &[(&str, SubscribeResult)]) -> ConnectResult {
    let subs = names.iter().map(|(name, result)| ((*name).to_owned(), result.clone())).collect();
    ConnectResult { subs, ..ConnectResult::default() }
}

#[test]
fn positions_are_sent_with_connect_and_what_is_not_named_has_ended() {
    let mut script = Script::new(SessionOptions::default());
    script.session.connect(script.now);
    script.upgrade();
    script.accept_with(subs(&[("a", recoverable(3)), ("b", SubscribeResult::default())]));
    let events = script.events();
    assert!(matches!(&events[2], Event::Subscribed { channel, subscribed }
        if &**channel == "a" && subscribed.origin == SubscriptionOrigin::Server));
    script.push("a", PushEvent::Publication(publication(4)));
    script.push("b", PushEvent::Publication(publication(0)));
    assert_eq!(script.events().len(), 2);
    script.session.handle_closed(script.now, TransportError::Closed);
    let lost = script.events();
    assert_eq!(lost.iter().filter(|event| matches!(event, Event::Subscribing { .. })).count(), 2);
    script.wait();
    let commands = script.upgrade();
    let Request::Connect(connect) = &commands[0].request else { panic!("{commands:?}") };
    let [(name, request)] = &connect.subs[..] else { panic!("{connect:?}") };
    assert_eq!((&**name, request.recover, request.offset), ("a", true, 4));
    let recovered = SubscribeResult {
        was_recovering: true,
        recovered: true,
        publications: vec![publication(5)],
        ..recoverable(4)
    };
    script.accept_with(subs(&[("a", recovered)]));
    let events = script.events();
    let (channel, reason) = ("b".into(), Reason::UNSUBSCRIBE_CALLED);
    assert!(events.contains(&Event::Unsubscribed { channel, reason }));
    assert!(
        matches!(&events[3], Event::Publication { publication, .. } if publication.offset == 5)
    );
    assert_eq!(script.session.position("a").unwrap().offset, 5);
}

#[test]
fn the_server_subscribes_and_unsubscribes_while_connected() {
    let mut script = Script::connected();
    let position = StreamPosition { offset: 2, epoch: "e".to_owned() };
    let data = "1".into();
    let subscribe = PushEvent::Subscribe { recoverable: true, positioned: true, position, data };
    script.push("a", subscribe);
    assert!(matches!(script.event(), Event::Subscribed { .. }));
    script.push("a", PushEvent::Publication(publication(3)));
    assert!(matches!(script.event(), Event::Publication { .. }));
    script.push("a", PushEvent::Unsubscribe { code: 2500, reason: "r".to_owned() });
    let (channel, reason) = ("a".into(), Reason::of_server(2500, "r"));
    assert_eq!(script.event(), Event::Unsubscribed { channel, reason });
    script.push("a", PushEvent::Publication(publication(4)));
    assert_eq!((script.events(), script.commands()), (vec![], vec![]));
}

#[test]
fn what_a_server_names_without_end_is_bounded() {
    let mut script = Script::connected();
    let name = "x".repeat(1 << 20);
    for number in 0..10 {
        let position = StreamPosition::default();
        let subscribe = PushEvent::Subscribe {
            recoverable: false,
            positioned: false,
            position,
            data: "1".into(),
        };
        script.push(&format!("{number}{name}"), subscribe);
    }
    assert_eq!(script.events().pop(), Some(Event::Disconnected(Reason::BAD_PROTOCOL)));
}
