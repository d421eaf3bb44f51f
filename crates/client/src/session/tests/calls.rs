//! Calls: sent when there is a connection, ended once.

use std::time::Duration;

use wire::protocol::{Codec, HistoryRequest, ReplyBody, Request};

use super::script::Script;
use crate::error::{CallError, TransportError};
use crate::session::{CallId, Event, SessionOptions};

impl Script {
    fn result(&mut self, call: CallId) -> Result<ReplyBody, CallError> {
        match self.event() {
            Event::Reply { call: ended, result } if ended == call => result,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn calls_wait_for_the_connection_and_end_with_their_own_results() {
    let mut script = Script::new(SessionOptions::default());
    let now = script.now;
    assert_eq!(script.session.presence(now, "a"), Err(CallError::Disconnected));
    script.session.connect(now);
    let publish = script.session.publish(now, "a", "1".into()).unwrap();
    assert_eq!(script.upgrade().len(), 1, "only connect");
    script.accept();
    script.events();
    let (id, request) = script.request();
    assert!(matches!(request, Request::Publish(_)));
    let rpc = script.session.rpc(now, "m", "2".into()).unwrap();
    let (rpc_id, _) = script.request();
    script.reply(rpc_id, ReplyBody::Rpc { data: "3".into() });
    assert_eq!(script.result(rpc), Ok(ReplyBody::Rpc { data: "3".into() }));
    script.error(id, 103, false);
    let Err(CallError::Refused(error)) = script.result(publish) else { panic!() };
    assert_eq!(error.code, 103);
    script.reply(id, ReplyBody::Publish);
    assert_eq!(script.events(), [], "a call ends once");
}

#[test]
fn a_call_without_an_answer_times_out() {
    let mut script = Script::connected();
    let call = script.session.history(script.now, HistoryRequest::default()).unwrap();
    let (id, _) = script.request();
    assert_eq!(script.wait(), Duration::from_secs(5));
    assert_eq!(script.result(call), Err(CallError::Timeout));
    script.reply(id, ReplyBody::Publish);
    assert_eq!(script.events(), []);
}

#[test]
fn a_lost_connection_ends_the_calls_that_were_sent_and_no_others() {
    let mut script = Script::connected();
    let sent = script.session.presence_stats(script.now, "a").unwrap();
    script.session.handle_closed(script.now, TransportError::Closed);
    let waiting = script.session.presence_stats(script.now, "b").unwrap();
    let ended = |event: &Event| match event {
        Event::Reply { call, result } => Some((*call, result.clone())),
        _ => None,
    };
    let results: Vec<_> = script.events().iter().filter_map(ended).collect();
    assert_eq!(results, [(sent, Err(CallError::ConnectionLost))]);
    script.wait();
    script.upgrade();
    script.accept();
    let (_, request) = script.request();
    assert_eq!(request, Request::PresenceStats { channel: "b".to_owned() });
    script.events();
    script.session.disconnect();
    let results: Vec<_> = script.events().iter().filter_map(ended).collect();
    assert_eq!(results, [(waiting, Err(CallError::Disconnected))]);
}

#[test]
fn waiting_calls_are_bounded_in_bytes() {
    let options = SessionOptions { outgoing_bytes_max: 10_000, ..SessionOptions::default() };
    let mut script = Script::new(options);
    let now = script.now;
    script.session.connect(now);
    let data = format!("\"{}\"", "x".repeat(1_000));
    let mut calls = 0;
    while script.session.has_room() {
        script.session.publish(now, "a", data.clone().into()).unwrap();
        calls += 1;
    }
    assert_eq!(calls, 9);
    let full = script.session.publish(now, "a", data.into());
    assert_eq!(full, Err(CallError::QueueFull));
    script.upgrade();
    script.accept();
    let commands = script.commands();
    assert_eq!((commands.len(), script.session.has_room()), (9, false));
    script.reply(commands[0].id, ReplyBody::Publish);
    assert!(script.session.has_room());
}

#[test]
fn only_json_goes_into_json() {
    let mut script = Script::connected();
    let call = script.session.publish(script.now, "a", "no JSON".into());
    assert_eq!(call, Err(CallError::NotJson));
    let mut script = Script::new(SessionOptions { codec: Codec::Protobuf, ..Default::default() });
    script.connect();
    script.session.publish(script.now, "a", vec![0xFF].into()).unwrap();
    assert!(matches!(script.request().1, Request::Publish(_)));
}
