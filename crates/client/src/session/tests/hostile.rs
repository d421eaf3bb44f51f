//! A server that says anything at any time: the session never panics, its outputs end, and every
//! call ends once.

use std::collections::BTreeSet;

use proptest::prelude::*;
use wire::protocol::{
    ClientInfo, Codec, ConnectResult, PresenceStats, PushEvent, ReplyBody, StreamPosition,
    SubscribeResult,
};

use super::script::{Script, error, publication, recoverable};
use crate::error::{TokenError, TransportError};
use crate::session::{
    Action, CallId, ConnectionState, Event, SessionOptions, SubscriptionOptions, TokenRequestId,
    TokenSource,
};

#[derive(Clone, Debug)]
enum Step {
    Reply(u32, ReplyBody),
    Push(&'static str, PushEvent),
    Close(u16),
    Bytes(Vec<u8>),
    Cut,
    Wait,
    Token(Result<String, TokenError>),
    Subscribe(&'static str),
    Unsubscribe(&'static str),
    Publish,
    Connect,
    Disconnect,
}

fn channel() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("news"), Just("other"), Just("")]
}

fn body() -> impl Strategy<Value = ReplyBody> {
    let subs = vec![("other".to_owned(), recoverable(2))];
    let connected =
        ConnectResult { ping: 1, pong: true, expires: true, subs, ..Default::default() };
    let expiring = SubscribeResult { expires: true, ttl: 1, ..recoverable(3) };
    let recovered = SubscribeResult {
        was_recovering: true,
        recovered: true,
        publications: vec![publication(1), publication(9), publication(4)],
        ..recoverable(2)
    };
    prop_oneof![
        3 => Just(ReplyBody::Connect(Box::default())),
        3 => Just(ReplyBody::Connect(Box::new(connected))),
        2 => Just(ReplyBody::Subscribe(Box::new(expiring))),
        2 => Just(ReplyBody::Subscribe(Box::new(recovered))),
        1 => Just(ReplyBody::Unsubscribe),
        1 => Just(ReplyBody::Publish),
        1 => Just(ReplyBody::PresenceStats(PresenceStats::default())),
        1 => Just(ReplyBody::Refresh(Default::default())),
        1 => any::<bool>().prop_map(|expires| ReplyBody::SubRefresh { expires, ttl: 0 }),
        1 => Just(ReplyBody::Ping),
        2 => (prop_oneof![Just(100), Just(103), Just(109)], any::<bool>())
            .prop_map(|(code, temporary)| error(code, temporary)),
    ]
}

fn event() -> impl Strategy<Value = PushEvent> {
    let code = prop_oneof![Just(2000), Just(2500), Just(2502)];
    let position = StreamPosition { offset: u64::MAX, epoch: "f".to_owned() };
    let subscribe = PushEvent::Subscribe {
        recoverable: true,
        positioned: true,
        position,
        data: Vec::new().into(),
    };
    prop_oneof![
        (0u64..20).prop_map(|offset| PushEvent::Publication(publication(offset))),
        Just(PushEvent::Publication(publication(u64::MAX))),
        Just(PushEvent::Join(ClientInfo::default().into())),
        code.prop_map(|code| PushEvent::Unsubscribe { code, reason: String::new() }),
        Just(subscribe),
        Just(PushEvent::Refresh { expires: true, ttl: u32::MAX }),
        prop_oneof![Just(3000), Just(3014), Just(3500), Just(u32::MAX)].prop_map(|code| {
            PushEvent::Disconnect { code, reason: String::new(), reconnect: true }
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let token = prop_oneof![
        3 => Just(Ok("t".to_owned())),
        1 => Just(Err(TokenError::Unauthorized)),
        1 => Just(Err(TokenError::Unavailable(String::new()))),
    ];
    prop_oneof![
        8 => (0u32..8, body()).prop_map(|(id, body)| Step::Reply(id, body)),
        4 => (channel(), event()).prop_map(|(channel, event)| Step::Push(channel, event)),
        1 => prop_oneof![Just(1000), Just(1009), Just(3014), Just(3500)].prop_map(Step::Close),
        1 => prop::collection::vec(any::<u8>(), 1..30).prop_map(Step::Bytes),
        1 => Just(Step::Cut),
        4 => Just(Step::Wait),
        5 => token.prop_map(Step::Token),
        3 => channel().prop_map(Step::Subscribe),
        1 => channel().prop_map(Step::Unsubscribe),
        3 => Just(Step::Publish),
        2 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
    ]
}

struct World {
    script: Script,
    requests: Vec<TokenRequestId>,
    open: BTreeSet<CallId>,
}

impl World {
    fn play(&mut self, step: Step) {
        let script = &mut self.script;
        let now = script.now;
        match step {
            Step::Reply(id, body) => script.reply(id, body),
            Step::Push(channel, event) => script.push(channel, event),
            Step::Close(code) => script.close_frame(code),
            Step::Bytes(bytes) => script.bytes(&bytes),
            Step::Cut => script.session.handle_closed(now, TransportError::Closed),
            Step::Wait => {
                if script.session.poll_timeout().is_some() {
                    script.wait();
                }
            }
            Step::Token(token) => {
                if let Some(request) = self.requests.pop() {
                    script.session.handle_token(now, request, token);
                }
            }
            Step::Subscribe(channel) => {
                let token = TokenSource::Asked { first: String::new() };
                let token = if channel == "news" { token } else { TokenSource::None };
                let options = SubscriptionOptions { token, ..SubscriptionOptions::default() };
                let _already = script.session.subscribe(now, channel, options);
            }
            Step::Unsubscribe(channel) => script.session.unsubscribe(now, channel),
            Step::Publish => {
                if let Ok(call) = script.session.publish(now, "news", "1".into()) {
                    self.open.insert(call);
                }
            }
            Step::Connect => script.session.connect(now),
            Step::Disconnect => script.session.disconnect(),
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut actions = Vec::new();
        while let Some(action) = self.script.session.poll_action() {
            actions.push(action);
        }
        for action in actions {
            match action {
                Action::Open => self.script.open(),
                Action::Close => {}
                Action::GetToken { request, .. } => self.requests.push(request),
            }
        }
        self.script.session.poll_transmit();
        for event in self.script.events() {
            if let Event::Reply { call, .. } = event {
                assert!(self.open.remove(&call), "a call ends once");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_server_says_is_survived(
        steps in prop::collection::vec(step(), 1..150),
        is_json in any::<bool>(),
    ) {
        let codec = if is_json { Codec::Json } else { Codec::Protobuf };
        let token = TokenSource::Asked { first: "t".to_owned() };
        let script = Script::new(SessionOptions { codec, token, ..SessionOptions::default() });
        let mut world = World { script, requests: Vec::new(), open: BTreeSet::new() };
        world.play(Step::Connect);
        steps.into_iter().for_each(|step| world.play(step));
        world.play(Step::Disconnect);
        prop_assert!(world.open.is_empty(), "every call ends");
        prop_assert_eq!(world.script.session.state(), ConnectionState::Disconnected);
        prop_assert_eq!(world.script.session.poll_timeout(), None);
    }
}
