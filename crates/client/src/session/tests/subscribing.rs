//! Subscriptions: positions, recovery, refusals, and their end.

use std::time::Duration;

use wire::protocol::{
    ClientInfo, PushEvent, ReplyBody, Request, StreamPosition, SubscribeRequest, SubscribeResult,
};

use super::script::{Script, publication, recoverable};
use crate::error::{SubscribeError, TransportError};
use crate::session::{Event, Failure, Reason, SubscriptionOptions, SubscriptionState};

fn options() -> SubscriptionOptions {
    SubscriptionOptions { recoverable: true, ..SubscriptionOptions::default() }
}

impl Script {
    fn subscribe(&mut self) -> u32 {
        self.session.subscribe(self.now, "news", options()).unwrap();
        let (id, request) = self.request();
        assert!(matches!(request, Request::Subscribe(_)), "{request:?}");
        id
    }

    /// A connected session with a live subscription at this offset.
    fn subscribed(offset: u64) -> Script {
        let mut script = Script::connected();
        let id = script.subscribe();
        script.reply(id, ReplyBody::Subscribe(Box::new(recoverable(offset))));
        script.events();
        script
    }

    /// The connection is lost, and comes back: gives the subscribe command with its id.
    fn come_back(&mut self) -> (u32, SubscribeRequest) {
        self.session.handle_closed(self.now, TransportError::Closed);
        self.wait();
        let mut commands = self.upgrade();
        self.accept();
        self.events();
        let command = commands.pop().unwrap();
        let Request::Subscribe(request) = command.request else { panic!("{:?}", command.request) };
        (command.id, *request)
    }
}

fn offsets(events: &[Event]) -> Vec<u64> {
    let offset = |event: &Event| match event {
        Event::Publication { publication, .. } => Some(publication.offset),
        _ => None,
    };
    events.iter().filter_map(offset).collect()
}

#[test]
fn a_position_follows_publications_and_recovers_what_was_missed() {
    let mut script = Script::subscribed(5);
    script.push("news", PushEvent::Publication(publication(6)));
    script.push("news", PushEvent::Publication(publication(7)));
    assert_eq!(offsets(&script.events()), [6, 7]);
    let (id, request) = script.come_back();
    assert_eq!((request.recover, request.offset, &*request.epoch), (true, 7, "e"));
    let result = SubscribeResult {
        was_recovering: true,
        recovered: true,
        publications: vec![publication(8), publication(9)],
        ..recoverable(7)
    };
    script.reply(id, ReplyBody::Subscribe(Box::new(result)));
    let events = script.events();
    let Event::Subscribed { subscribed, .. } = &events[0] else { panic!("{events:?}") };
    assert!(subscribed.was_recovering && subscribed.recovered && subscribed.missed == 2);
    assert_eq!(offsets(&events), [8, 9]);
    let position = StreamPosition { offset: 9, epoch: "e".to_owned() };
    assert_eq!(script.session.position("news"), Some(&position));
    script.push("news", PushEvent::Publication(publication(9)));
    assert_eq!((script.events().len(), script.session.duplicates()), (0, 1));
}

#[test]
fn a_lost_connection_is_told_for_each_subscription() {
    let mut script = Script::subscribed(1);
    script.session.handle_closed(script.now, TransportError::Closed);
    let events = script.events();
    let reason = Reason::TRANSPORT_CLOSED;
    let channel = "news".into();
    assert!(events.contains(&Event::Subscribing { channel, reason: reason.clone() }));
    assert_eq!(events.last(), Some(&Event::Connecting(reason)));
    assert_eq!(script.session.subscription_state("news"), Some(SubscriptionState::Subscribing));
}

#[test]
fn errors_of_subscribe_are_final_or_not() {
    for (code, temporary, is_retried) in
        [(100, true, true), (113, true, true), (103, false, false), (102, false, false)]
    {
        let mut script = Script::connected();
        let id = script.subscribe();
        script.events();
        script.error(id, code, temporary);
        match script.event() {
            Event::Failed(Failure::Subscribe { error, .. }) if is_retried => {
                assert_eq!(error.code, code);
                let delay = script.wait();
                assert!(delay >= Duration::from_millis(500) && delay <= Duration::from_secs(1));
                let (id, request) = script.request();
                assert!(matches!(request, Request::Subscribe(_)));
                script.error(id, code, temporary);
                script.events();
                assert!(script.wait() > delay, "delays grow");
            }
            Event::Unsubscribed { reason, .. } if !is_retried => {
                assert_eq!(reason.code, code);
                let state = script.session.subscription_state("news");
                assert_eq!(state, Some(SubscriptionState::Unsubscribed));
            }
            other => panic!("{code}: {other:?}"),
        }
    }
}

#[test]
fn a_subscribe_command_without_a_reply_reconnects() {
    let mut script = Script::connected();
    script.subscribe();
    script.events();
    assert_eq!(script.wait(), Duration::from_secs(5));
    script.closes();
    assert_eq!(script.event(), Event::Connecting(Reason::SUBSCRIBE_TIMEOUT));
}

#[test]
fn an_unsubscribe_command_that_fails_reconnects() {
    for is_answered in [true, false] {
        let mut script = Script::subscribed(1);
        script.session.unsubscribe(script.now, "news");
        let (id, request) = script.request();
        assert_eq!(request, Request::Unsubscribe { channel: "news".to_owned() });
        let (channel, reason) = ("news".into(), Reason::UNSUBSCRIBE_CALLED);
        assert_eq!(script.event(), Event::Unsubscribed { channel, reason });
        if is_answered {
            script.error(id, 100, true);
        } else {
            script.wait();
        }
        script.closes();
        assert_eq!(script.event(), Event::Connecting(Reason::UNSUBSCRIBE_ERROR));
    }
}

#[test]
fn only_the_reply_to_the_last_subscribe_command_counts() {
    let mut script = Script::connected();
    let first = script.subscribe();
    script.session.unsubscribe(script.now, "news");
    let (unsubscribe, _) = script.request();
    let second = script.subscribe();
    script.events();
    script.reply(first, ReplyBody::Subscribe(Box::new(recoverable(1))));
    script.push("news", PushEvent::Publication(publication(2)));
    script.reply(unsubscribe, ReplyBody::Unsubscribe);
    assert_eq!(script.events(), []);
    script.reply(second, ReplyBody::Subscribe(Box::new(recoverable(7))));
    assert!(matches!(script.event(), Event::Subscribed { .. }));
    assert_eq!(script.session.position("news").unwrap().offset, 7);
}

#[test]
fn another_subscription_to_the_channel_resumes_unless_it_was_removed() {
    let mut script = Script::subscribed(5);
    let again = script.session.subscribe(script.now, "news", options());
    assert_eq!(again, Err(SubscribeError::AlreadySubscribed));
    script.session.unsubscribe(script.now, "news");
    script.request();
    script.session.subscribe(script.now, "news", options()).unwrap();
    let (id, Request::Subscribe(request)) = script.request() else { panic!() };
    assert_eq!((request.recover, request.offset), (true, 5));
    script.reply(id, ReplyBody::Subscribe(Box::new(recoverable(5))));
    script.session.remove(script.now, "news");
    assert_eq!(script.session.subscription_state("news"), None);
    script.request();
    let since = StreamPosition { offset: 3, epoch: "e".to_owned() };
    let options = SubscriptionOptions { since: Some(since), ..options() };
    script.session.subscribe(script.now, "news", options).unwrap();
    let (_, Request::Subscribe(request)) = script.request() else { panic!() };
    assert_eq!((request.recover, request.offset), (true, 3));
}

#[test]
fn the_server_ends_a_subscription_for_good_or_not() {
    for (code, is_final) in [(2000, true), (2499, true), (2500, false), (2501, false)] {
        let mut script = Script::subscribed(5);
        script.push("news", PushEvent::Unsubscribe { code, reason: "r".to_owned() });
        let (channel, reason) = ("news".into(), Reason::of_server(code, "r"));
        let event = script.event();
        if is_final {
            assert_eq!(event, Event::Unsubscribed { channel, reason });
            assert_eq!(script.commands(), []);
        } else {
            assert_eq!(event, Event::Subscribing { channel, reason });
            let (_, Request::Subscribe(request)) = script.request() else { panic!() };
            assert_eq!((request.recover, request.offset), (true, 5));
        }
    }
}

#[test]
fn an_invalidated_state_asks_to_be_told_that_something_is_missing() {
    let mut script = Script::subscribed(5);
    script.push("news", PushEvent::Unsubscribe { code: 2502, reason: String::new() });
    let (id, Request::Subscribe(request)) = script.request() else { panic!() };
    assert_eq!((request.recover, request.offset, &*request.epoch), (true, 0, "_"));
    script.reply(id, ReplyBody::Subscribe(Box::new(recoverable(9))));
    script.close_frame(3014);
    script.closes();
    script.wait();
    let mut commands = script.upgrade();
    let Request::Subscribe(request) = commands.pop().unwrap().request else { panic!() };
    assert_eq!((request.recover, request.offset, &*request.epoch), (true, 0, "_"));
}

#[test]
fn what_is_pushed_for_a_channel_without_subscription_is_not_told() {
    let mut script = Script::subscribed(1);
    let info = std::sync::Arc::new(ClientInfo::default());
    script.push("other", PushEvent::Publication(publication(1)));
    script.push("other", PushEvent::Join(info.clone()));
    script.push("other", PushEvent::Unsubscribe { code: 2000, reason: String::new() });
    assert_eq!(script.events(), []);
    script.push("news", PushEvent::Join(info.clone()));
    script.push("news", PushEvent::Leave(info));
    script.push("", PushEvent::Message { data: "1".into() });
    let events = script.events();
    assert!(matches!(events[..], [Event::Join { .. }, Event::Leave { .. }, Event::Message(_)]));
}
