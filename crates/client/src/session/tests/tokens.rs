//! Tokens: asked for, renewed before they expire, and refused.

use std::time::Duration;

use wire::protocol::{ConnectResult, RefreshResult, ReplyBody, Request, SubscribeResult};

use super::script::{Script, error};
use crate::error::TokenError;
use crate::session::{
    Action, ConnectionState, Event, Failure, Reason, SessionOptions, SubscriptionOptions,
    SubscriptionState, TokenSource, TokenSubject,
};

fn asked() -> TokenSource {
    TokenSource::Asked { first: String::new() }
}

fn unavailable() -> Result<String, TokenError> {
    Err(TokenError::Unavailable("later".to_owned()))
}

/// A session whose connection token lives for a minute.
fn connected() -> Script {
    let mut script = Script::new(SessionOptions { token: asked(), ..SessionOptions::default() });
    script.session.connect(script.now);
    let (request, subject) = script.asked();
    assert_eq!(subject, TokenSubject::Connection);
    script.session.handle_token(script.now, request, Ok("first".to_owned()));
    let commands = script.upgrade();
    let Request::Connect(connect) = &commands[0].request else { panic!("{commands:?}") };
    assert_eq!(connect.token, "first");
    script.accept_with(ConnectResult { expires: true, ttl: 20, ..ConnectResult::default() });
    script.events();
    script
}

#[test]
fn a_connection_without_a_token_asks_until_there_is_one() {
    let mut script = Script::new(SessionOptions { token: asked(), ..SessionOptions::default() });
    script.session.connect(script.now);
    script.events();
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, unavailable());
    assert!(matches!(script.event(), Event::Failed(Failure::Token { .. })));
    assert!(script.wait() >= Duration::from_millis(500));
    let (again, _) = script.asked();
    script.session.handle_token(script.now, request, Ok("stale".to_owned()));
    assert_eq!(script.session.poll_action(), None, "the answer to an older request");
    script.session.handle_token(script.now, again, Ok("t".to_owned()));
    assert_eq!(script.session.poll_action(), Some(Action::Open));
}

#[test]
fn no_authorization_is_final() {
    for token in [Ok(String::new()), Err(TokenError::Unauthorized)] {
        let mut script = Script::new(SessionOptions { token: asked(), ..Default::default() });
        script.session.connect(script.now);
        script.events();
        let (request, _) = script.asked();
        script.session.handle_token(script.now, request, token);
        assert_eq!(script.event(), Event::Disconnected(Reason::UNAUTHORIZED));
        assert_eq!(script.session.state(), ConnectionState::Disconnected);
    }
}

#[test]
fn an_expired_token_is_replaced_before_the_next_attempt() {
    let token = TokenSource::Asked { first: "old".to_owned() };
    let mut script = Script::new(SessionOptions { token, ..SessionOptions::default() });
    script.session.connect(script.now);
    script.upgrade();
    script.error(1, 109, false);
    script.closes();
    assert_eq!(script.session.state(), ConnectionState::Connecting);
    script.wait();
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, Ok("new".to_owned()));
    let commands = script.upgrade();
    let Request::Connect(connect) = &commands[0].request else { panic!("{commands:?}") };
    assert_eq!(connect.token, "new");
}

#[test]
fn a_connection_is_refreshed_before_it_expires() {
    let mut script = connected();
    assert_eq!(script.wait(), Duration::from_secs(20));
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, unavailable());
    let delay = script.session.poll_timeout().unwrap() - script.now;
    assert!(delay >= Duration::from_secs(5) && delay <= Duration::from_secs(10), "{delay:?}");
    script.wait();
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, Ok("second".to_owned()));
    let (id, request) = script.request();
    assert_eq!(request, Request::Refresh { token: "second".to_owned() });
    script.error(id, 100, true);
    script.events();
    script.reply(0, ReplyBody::Ping);
    script.request();
    script.wait();
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, Ok("third".to_owned()));
    let (id, _) = script.request();
    let result = RefreshResult { expires: true, ttl: 10, ..RefreshResult::default() };
    script.reply(id, ReplyBody::Refresh(result));
    assert_eq!(script.wait(), Duration::from_secs(10));
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, Ok("fourth".to_owned()));
    let (id, _) = script.request();
    script.error(id, 101, false);
    script.closes();
    assert_eq!(script.event(), Event::Disconnected(Reason::of_server(101, "message")));
}

#[test]
fn a_fixed_token_is_not_refreshed() {
    let token = TokenSource::Fixed("t".to_owned());
    let mut script = Script::new(SessionOptions { token, ..SessionOptions::default() });
    script.session.connect(script.now);
    script.upgrade();
    script.accept_with(ConnectResult { expires: true, ttl: 10, ..ConnectResult::default() });
    assert_eq!(script.wait(), Duration::from_secs(35), "the ping's timer only");
}

#[test]
fn a_subscription_gets_and_renews_a_token_of_its_own() {
    let mut script = Script::connected();
    let options = SubscriptionOptions { token: asked(), ..SubscriptionOptions::default() };
    script.session.subscribe(script.now, "news", options).unwrap();
    assert_eq!(script.commands(), []);
    let (request, subject) = script.asked();
    assert_eq!(subject, TokenSubject::Subscription("news".into()));
    script.session.handle_token(script.now, request, unavailable());
    script.wait();
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, Ok("first".to_owned()));
    let (id, Request::Subscribe(request)) = script.request() else { panic!() };
    assert_eq!(request.token, "first");
    script.error(id, 109, false);
    script.events();
    script.wait();
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, Ok("second".to_owned()));
    let (id, _) = script.request();
    let result = SubscribeResult { expires: true, ttl: 5, ..SubscribeResult::default() };
    script.reply(id, ReplyBody::Subscribe(Box::new(result)));
    script.events();
    assert_eq!(script.wait(), Duration::from_secs(5));
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, unavailable());
    let delay = script.wait();
    assert!(delay >= Duration::from_secs(10) && delay <= Duration::from_secs(20), "{delay:?}");
    script.events();
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, Ok("third".to_owned()));
    let (id, Request::SubRefresh(request)) = script.request() else { panic!() };
    assert_eq!((&*request.channel, &*request.token), ("news", "third"));
    script.reply(id, ReplyBody::SubRefresh { expires: true, ttl: 7 });
    assert_eq!(script.wait(), Duration::from_secs(7));
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, Err(TokenError::Unauthorized));
    let (channel, reason) = ("news".into(), Reason::UNAUTHORIZED);
    assert_eq!(script.event(), Event::Unsubscribed { channel, reason });
    assert!(matches!(script.request().1, Request::Unsubscribe { .. }));
}

/// A live subscription whose token was asked for; gives the id of the sub_refresh command that is
/// under way.
fn refreshing(script: &mut Script) -> u32 {
    let token = TokenSource::Asked { first: "first".to_owned() };
    let options = SubscriptionOptions { token, ..SubscriptionOptions::default() };
    script.session.subscribe(script.now, "news", options).unwrap();
    let (id, _) = script.request();
    let result = SubscribeResult { expires: true, ttl: 5, ..SubscribeResult::default() };
    script.reply(id, ReplyBody::Subscribe(Box::new(result)));
    script.wait();
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, Ok("second".to_owned()));
    let (id, request) = script.request();
    assert!(matches!(request, Request::SubRefresh(_)), "{request:?}");
    script.events();
    id
}

#[test]
fn a_subscription_whose_refresh_is_refused_ends_at_the_server_too() {
    let mut script = Script::connected();
    let id = refreshing(&mut script);
    script.error(id, 103, false);
    let (channel, reason) = ("news".into(), Reason::of_server(103, "message"));
    assert_eq!(script.event(), Event::Unsubscribed { channel, reason });
    let (_, request) = script.request();
    assert_eq!(request, Request::Unsubscribe { channel: "news".to_owned() });
}

#[test]
fn a_late_answer_to_a_refresh_does_not_end_another_subscription() {
    for answer in [error(103, false), ReplyBody::SubRefresh { expires: true, ttl: 1 }] {
        let mut script = Script::connected();
        let late = refreshing(&mut script);
        script.session.unsubscribe(script.now, "news");
        let (id, _) = script.request();
        script.reply(id, ReplyBody::Unsubscribe);
        script.session.subscribe(script.now, "news", SubscriptionOptions::default()).unwrap();
        let (id, _) = script.request();
        script.reply(id, ReplyBody::Subscribe(Box::default()));
        script.events();
        script.reply(late, answer);
        assert_eq!((script.events(), script.commands()), (vec![], vec![]));
        let state = script.session.subscription_state("news");
        assert_eq!(state, Some(SubscriptionState::Subscribed));
    }
}

#[test]
fn the_answer_for_a_subscription_that_has_ended_is_not_taken() {
    let mut script = Script::connected();
    let options = SubscriptionOptions { token: asked(), ..SubscriptionOptions::default() };
    script.session.subscribe(script.now, "news", options).unwrap();
    let (request, _) = script.asked();
    script.session.unsubscribe(script.now, "news");
    script.session.handle_token(script.now, request, Ok("late".to_owned()));
    assert_eq!(script.commands(), []);
}
