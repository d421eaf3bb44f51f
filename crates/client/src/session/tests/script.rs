//! A session and the server's end of its byte stream, with invented time.

use std::time::{Duration, Instant};

use wire::protocol::{
    Codec, Command, ConnectResult, ErrorReply, Publication, Push, PushEvent, Reply, ReplyBody,
    Request, SubscribeResult, decode_commands, encode_reply,
};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::Inflater;
use wire::websocket::encoder::{self, FrameKind};
use wire::websocket::handshake::{RequestHead, accept};

use crate::session::{Action, ClientSession, Event, SessionOptions, TokenRequestId, TokenSubject};

/// A session and a scripted server, with invented time.
pub(super) struct Script {
    pub(super) session: ClientSession,
    pub(super) now: Instant,
    codec: Codec,
    decoder: Decoder,
}

/// What the client has sent.
#[derive(Debug, PartialEq)]
pub(super) enum Sent {
    Commands(Vec<Command>),
    Close(u16),
}

impl Script {
    pub(super) fn new(options: SessionOptions) -> Script {
        let codec = options.codec;
        let mut seed = 1u64;
        // The jitter of a test is half of its range, about.
        let random = Box::new(move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (1 << 63) | (seed >> 8)
        });
        let session = ClientSession::new("ws://h/path".parse().unwrap(), options, random);
        Script { session, now: Instant::now(), codec, decoder: decoder() }
    }

    /// A session that is connected.
    pub(super) fn connected() -> Script {
        let mut script = Script::new(SessionOptions::default());
        script.connect();
        script
    }

    /// Connects and accepts the connection.
    pub(super) fn connect(&mut self) {
        self.session.connect(self.now);
        self.upgrade();
        self.accept();
        self.events();
    }

    /// Opens the byte stream and accepts the handshake; gives the commands that follow it.
    pub(super) fn upgrade(&mut self) -> Vec<Command> {
        assert_eq!(self.session.poll_action(), Some(Action::Open));
        self.open();
        self.commands()
    }

    /// The byte stream opens, and the handshake is accepted.
    pub(super) fn open(&mut self) {
        self.session.handle_opened(self.now);
        let request = String::from_utf8(self.session.poll_transmit().unwrap()).unwrap();
        assert!(request.starts_with("GET /path HTTP/1.1\r\nHost: h\r\n"), "{request}");
        let lines = request.lines().skip(1).filter_map(|line| line.split_once(": "));
        let headers: Vec<(String, &[u8])> =
            lines.map(|(name, value)| (name.to_lowercase(), value.as_bytes())).collect();
        let headers = headers.iter().map(|(name, value)| (&**name, *value)).collect();
        let head = RequestHead { method: "GET", is_http_1_1: true, headers };
        let accepted = accept(&head).unwrap();
        let wanted = match self.codec {
            Codec::Json => "centrifuge-json",
            Codec::Protobuf => "centrifuge-protobuf",
        };
        assert_eq!(accepted.subprotocols, [wanted]);
        assert!(accepted.deflate.is_none());
        let accept = accepted.accept;
        self.decoder = decoder();
        self.bytes(format!("HTTP/1.1 101 -\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
    }

    /// The answer to the connect command.
    pub(super) fn accept(&mut self) {
        self.accept_with(ConnectResult::default());
    }

    pub(super) fn accept_with(&mut self, result: ConnectResult) {
        let client = "c".to_owned();
        let result =
            ConnectResult { client, version: "1".to_owned(), ping: 25, pong: true, ..result };
        self.reply(1, ReplyBody::Connect(Box::new(result)));
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.session.handle_bytes(self.now, &mut bytes.to_vec());
    }

    pub(super) fn reply(&mut self, id: u32, body: ReplyBody) {
        let bytes = self.frame(&[Reply { id, body }]);
        self.bytes(&bytes);
    }

    pub(super) fn push(&mut self, channel: &str, event: PushEvent) {
        self.reply(0, ReplyBody::Push(Push { channel: channel.into(), event }));
    }

    pub(super) fn error(&mut self, id: u32, code: u32, temporary: bool) {
        self.reply(id, error(code, temporary));
    }

    pub(super) fn close_frame(&mut self, code: u16) {
        self.bytes(&encoder::close_frame(code, "reason"));
    }

    /// Several replies in one frame.
    pub(super) fn frame(&self, replies: &[Reply]) -> Vec<u8> {
        let mut payload = Vec::new();
        replies.iter().for_each(|reply| encode_reply(self.codec, reply, &mut payload));
        let kind = match self.codec {
            Codec::Json => FrameKind::Text,
            Codec::Protobuf => FrameKind::Binary,
        };
        encoder::frame(kind, &payload).to_vec()
    }

    pub(super) fn sent(&mut self) -> Vec<Sent> {
        let Some(mut bytes) = self.session.poll_transmit() else { return Vec::new() };
        let mut input = &mut bytes[..];
        let mut sent = Vec::new();
        let mut inflater = Inflater::default();
        while let Some(message) = self.decoder.next(&mut inflater, &mut input).unwrap() {
            sent.push(match message {
                Message::Text(payload) | Message::Binary(payload) => {
                    Sent::Commands(decode_commands(self.codec, &payload).unwrap())
                }
                Message::Close(close) => Sent::Close(close.unwrap().code.number()),
                other => panic!("{other:?}"),
            });
        }
        sent
    }

    /// The commands of the one frame that was sent, or none.
    pub(super) fn commands(&mut self) -> Vec<Command> {
        let mut sent = self.sent();
        assert!(sent.len() <= 1, "{sent:?}");
        match sent.pop() {
            None => Vec::new(),
            Some(Sent::Commands(commands)) => commands,
            Some(close) => panic!("{close:?}"),
        }
    }

    pub(super) fn request(&mut self) -> (u32, Request) {
        let mut commands = self.commands();
        assert_eq!(commands.len(), 1, "{commands:?}");
        let Command { id, request } = commands.remove(0);
        (id, request)
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// The one event that there is.
    pub(super) fn event(&mut self) -> Event {
        let mut events = self.events();
        assert_eq!(events.len(), 1, "{events:#?}");
        events.remove(0)
    }

    /// The byte stream is given up, with a close frame.
    pub(super) fn closes(&mut self) {
        assert_eq!(self.sent(), [Sent::Close(1000)]);
        assert_eq!(self.session.poll_action(), Some(Action::Close));
    }

    /// A token is asked for.
    pub(super) fn asked(&mut self) -> (TokenRequestId, TokenSubject) {
        match self.session.poll_action() {
            Some(Action::GetToken { request, subject }) => (request, subject),
            other => panic!("{other:?}"),
        }
    }

    /// Time passes until the next timer; gives how long that was.
    pub(super) fn wait(&mut self) -> Duration {
        let due = self.session.poll_timeout().expect("a timer");
        let passed = due.saturating_duration_since(self.now);
        self.now = due;
        self.session.handle_timeout(due);
        passed
    }
}

pub(super) fn error(code: u32, temporary: bool) -> ReplyBody {
    ReplyBody::Error(ErrorReply { code, message: "message".to_owned(), temporary })
}

pub(super) fn publication(offset: u64) -> std::sync::Arc<Publication> {
    let data = offset.to_string().into();
    std::sync::Arc::new(Publication { offset, data, ..Publication::default() })
}

/// A recoverable subscription at a position.
pub(super) fn recoverable(offset: u64) -> SubscribeResult {
    SubscribeResult {
        recoverable: true,
        positioned: true,
        offset,
        epoch: "e".to_owned(),
        ..SubscribeResult::default()
    }
}

fn decoder() -> Decoder {
    let limits = DecoderLimits { message_size: 1 << 24, inflated_size: 1 << 24 };
    Decoder::new(Role::Server, limits, None)
}
