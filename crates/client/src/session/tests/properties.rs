//! Whatever is cut, split, refused and published in whatever order: positions grow, each
//! publication is delivered once, and nothing is missing without notice.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use wire::protocol::{
    Codec, Command, ConnectResult, Publication, PushEvent, Reply, ReplyBody, Request,
    StreamPosition, SubscribeRequest, SubscribeResult,
};

use super::script::{Script, error};
use crate::error::TransportError;
use crate::session::{
    Action, ConnectionState, Event, Reason, SessionOptions, SubscriptionOptions, SubscriptionState,
};

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    /// So many bytes arrive at the client.
    Deliver(u16),
    Cut,
    Wait,
    /// The stream is lost, and another epoch begins.
    Forget,
    /// The next subscribe command is refused for now.
    Refuse,
    Unsubscribe,
    Resubscribe,
    /// The server asks to subscribe again.
    Insufficient,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..5).prop_map(Step::Publish),
        6 => (1u16..400).prop_map(Step::Deliver),
        1 => Just(Step::Cut),
        2 => Just(Step::Wait),
        1 => Just(Step::Forget),
        1 => Just(Step::Refuse),
        1 => Just(Step::Unsubscribe),
        2 => Just(Step::Resubscribe),
        1 => Just(Step::Insufficient),
    ]
}

/// The server, its channel, and the positions that the client received.
struct World {
    script: Script,
    epoch: u32,
    top: u64,
    /// Bytes on their way to the client.
    way: Vec<u8>,
    is_open: bool,
    is_live: bool,
    refuses: bool,
    /// Position that follows from the messages received.
    reported: Option<StreamPosition>,
}

impl World {
    fn new(codec: Codec) -> World {
        let mut script = Script::new(SessionOptions { codec, ..SessionOptions::default() });
        let options = SubscriptionOptions { recoverable: true, ..SubscriptionOptions::default() };
        script.session.subscribe(script.now, "news", options).unwrap();
        script.session.connect(script.now);
        World {
            script,
            epoch: 1,
            top: 0,
            way: Vec::new(),
            is_open: false,
            is_live: false,
            refuses: false,
            reported: None,
        }
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::Publish(count) => {
                for _ in 0..*count {
                    self.top += 1;
                    let publication = self.publication(self.top);
                    self.push(PushEvent::Publication(publication.into()));
                }
            }
            Step::Deliver(count) => {
                let count = self.way.len().min((*count).into());
                let mut bytes: Vec<u8> = self.way.drain(..count).collect();
                self.script.session.handle_bytes(self.script.now, &mut bytes);
            }
            Step::Cut if self.is_open => {
                self.closed();
                let now = self.script.now;
                self.script.session.handle_closed(now, TransportError::Closed);
            }
            Step::Wait => {
                if self.script.session.poll_timeout().is_some() {
                    self.script.wait();
                }
            }
            Step::Forget => {
                (self.epoch, self.top) = (self.epoch + 1, 0);
                self.insufficient();
            }
            Step::Refuse => self.refuses = true,
            Step::Unsubscribe => self.script.session.unsubscribe(self.script.now, "news"),
            Step::Resubscribe => {
                let options = SubscriptionOptions { recoverable: true, ..Default::default() };
                let now = self.script.now;
                let _already = self.script.session.subscribe(now, "news", options);
            }
            Step::Insufficient => self.insufficient(),
            Step::Cut => {}
        }
        self.settle();
    }

    fn insufficient(&mut self) {
        self.push(PushEvent::Unsubscribe { code: 2500, reason: String::new() });
        self.is_live = false;
    }

    fn closed(&mut self) {
        (self.is_open, self.is_live) = (false, false);
        self.way.clear();
    }

    fn push(&mut self, event: PushEvent) {
        if self.is_live {
            let push = wire::protocol::Push { channel: "news".into(), event };
            self.send(0, ReplyBody::Push(push));
        }
    }

    fn send(&mut self, id: u32, body: ReplyBody) {
        self.way.extend(self.script.frame(&[Reply { id, body }]));
    }

    fn publication(&self, offset: u64) -> Publication {
        let data = format!("\"{}:{offset}\"", self.epoch).into();
        Publication { offset, data, ..Publication::default() }
    }

    /// Takes everything that the client has to say, and answers.
    fn settle(&mut self) {
        if self.is_open {
            for sent in self.script.sent() {
                if let super::script::Sent::Commands(commands) = sent {
                    commands.into_iter().for_each(|command| self.answer(command));
                }
            }
        }
        while let Some(action) = self.script.session.poll_action() {
            match action {
                Action::Close => self.closed(),
                Action::Open => {
                    self.is_open = true;
                    self.script.session.handle_opened(self.script.now);
                    let request = self.script.session.poll_transmit().unwrap();
                    self.way = upgraded(&request);
                }
                Action::GetToken { .. } => panic!("no token is needed"),
            }
        }
        while let Some(event) = self.script.session.poll_event() {
            self.check(event);
        }
    }

    fn answer(&mut self, command: Command) {
        let id = command.id;
        match command.request {
            Request::Connect(_) => {
                let result = ConnectResult { client: "c".to_owned(), ..ConnectResult::default() };
                self.send(id, ReplyBody::Connect(Box::new(result)));
            }
            Request::Subscribe(_) if std::mem::take(&mut self.refuses) => {
                self.send(id, error(100, true));
            }
            Request::Subscribe(request) => {
                let result = self.joined(&request);
                self.send(id, ReplyBody::Subscribe(Box::new(result)));
                self.is_live = true;
            }
            Request::Unsubscribe { .. } => {
                self.is_live = false;
                self.send(id, ReplyBody::Unsubscribe);
            }
            other => panic!("{other:?}"),
        }
    }

    fn joined(&self, request: &SubscribeRequest) -> SubscribeResult {
        let epoch = self.epoch.to_string();
        let recovered = request.recover && request.epoch == epoch && request.offset <= self.top;
        let missed = if recovered { self.top - request.offset } else { 0 };
        let publications = (1..=missed).map(|count| request.offset + count);
        SubscribeResult {
            recoverable: true,
            was_recovering: request.recover,
            recovered,
            publications: publications.map(|offset| self.publication(offset).into()).collect(),
            offset: if recovered { request.offset } else { self.top },
            epoch,
            ..SubscribeResult::default()
        }
    }

    /// Each message received must be consistent with those before it.
    fn check(&mut self, event: Event) {
        match event {
            Event::Subscribed { subscribed, .. } => {
                if subscribed.recovered {
                    assert_eq!(self.reported.as_ref(), Some(&subscribed.position));
                }
                self.reported = Some(subscribed.position);
            }
            Event::Publication { publication, .. } => {
                let reported = self.reported.as_mut().expect("a position");
                reported.offset += 1;
                let data = format!("\"{}:{}\"", reported.epoch, reported.offset);
                assert_eq!(publication.data, data.as_bytes());
                assert_eq!(publication.offset, reported.offset);
            }
            Event::Disconnected(reason) => panic!("{reason}"),
            _ => {}
        }
    }

    /// All faults are over: the client catches up.
    fn finish(&mut self) {
        for _ in 0..1_000 {
            self.play(&Step::Resubscribe);
            self.play(&Step::Deliver(u16::MAX));
            let is_live = self.script.session.subscription_state("news")
                == Some(SubscriptionState::Subscribed);
            if is_live && self.way.is_empty() && self.is_live {
                let position = StreamPosition { offset: self.top, epoch: self.epoch.to_string() };
                assert_eq!(self.reported.as_ref(), Some(&position));
                assert_eq!(self.script.session.position("news"), Some(&position));
                assert_eq!(self.script.session.duplicates(), 0);
                assert_eq!(self.script.session.state(), ConnectionState::Connected);
                return;
            }
            if self.way.is_empty() {
                self.play(&Step::Wait);
            }
        }
        panic!("the client does not catch up");
    }
}

/// The answer to a handshake.
fn upgraded(request: &[u8]) -> Vec<u8> {
    let request = std::str::from_utf8(request).unwrap();
    let lines = request.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers: Vec<(String, &[u8])> =
        lines.map(|(name, value)| (name.to_lowercase(), value.as_bytes())).collect();
    let headers = headers.iter().map(|(name, value)| (&**name, *value)).collect();
    let head =
        wire::websocket::handshake::RequestHead { method: "GET", is_http_1_1: true, headers };
    let accept = wire::websocket::handshake::accept(&head).unwrap().accept;
    format!("HTTP/1.1 101 -\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_delivered_twice_or_missing_without_notice(
        steps in prop::collection::vec(step(), 1..120),
        is_json in any::<bool>(),
    ) {
        let mut world = World::new(if is_json { Codec::Json } else { Codec::Protobuf });
        world.settle();
        for step in &steps {
            world.play(step);
        }
        world.finish();
    }

    #[test]
    fn any_split_of_the_bytes_tells_the_same(cuts in prop::collection::vec(1usize..60, 1..80)) {
        let play = |cuts: &[usize]| {
            let mut script = Script::new(SessionOptions::default());
            let options = SubscriptionOptions::default();
            script.session.subscribe(script.now, "news", options).unwrap();
            script.session.connect(script.now);
            script.session.poll_action();
            script.session.handle_opened(script.now);
            let request = script.session.poll_transmit().unwrap();
            let mut bytes = upgraded(&request);
            let connected = ConnectResult { client: "c".to_owned(), ..ConnectResult::default() };
            bytes.extend(script.frame(&[
                Reply { id: 1, body: ReplyBody::Connect(Box::new(connected)) },
                Reply { id: 2, body: ReplyBody::Subscribe(Box::default()) },
            ]));
            for offset in 0..20 {
                let event = PushEvent::Publication(super::script::publication(offset));
                let push = wire::protocol::Push { channel: "news".into(), event };
                bytes.extend(script.frame(&[Reply { id: 0, body: ReplyBody::Push(push) }]));
            }
            bytes.extend_from_slice(&wire::websocket::encoder::close_frame(3001, "shutdown"));
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, behind) = rest.split_at((*cut).min(rest.len()));
                script.bytes(part);
                rest = behind;
            }
            (script.events(), script.sent())
        };
        let whole = play(&[usize::MAX]);
        prop_assert_eq!(&whole, &play(&cuts));
        let shutdown = Event::Connecting(Reason::of_server(3001, "shutdown"));
        prop_assert_eq!(whole.0.last(), Some(&shutdown));
        prop_assert_eq!(whole.0.len(), 26);
    }
}

#[test]
fn a_timer_that_is_not_used_does_no_harm() {
    let mut script = Script::connected();
    script.session.handle_timeout(script.now);
    script.session.handle_timeout(Instant::now() + Duration::from_millis(1));
    assert_eq!(script.events(), []);
}
