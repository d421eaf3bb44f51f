//! The decoder and the encoder compared with tungstenite, an independent implementation: from the
//! same bytes both decode the same messages or fail for the same reason, and each decodes the
//! other's frames.
//!
//! Invariant: [`agree`] lists all permitted differences with reasons; every other difference fails.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, Read, Write};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use tungstenite::protocol::{WebSocket, WebSocketConfig};
use tungstenite::{Error, Message as TheirMessage, protocol};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::Inflater;
use wire::websocket::encoder::{self, FrameKind};
use wire::websocket::protocol_error::ProtocolError;

#[test]
fn a_server_reads_the_same() {
    compare(Role::Server);
}

#[test]
fn a_client_reads_the_same() {
    compare(Role::Client);
}

#[test]
fn each_reads_what_the_other_writes() {
    run(&(vec(any::<(Payload, [u8; 4])>(), 1..6), close_frames()), |(payloads, (code, reason))| {
        let kept = &reason[..reason.floor_char_boundary(123)];
        let mut expected: Vec<Event> =
            payloads.iter().map(|(payload, _)| payload.event()).collect();
        expected.push(Event::Close(Some((code, kept.to_owned()))));
        let expected = (expected, None);

        let (mut as_server, mut as_client) = (Vec::new(), Vec::new());
        for (payload, key) in &payloads {
            let (kind, bytes) = payload.frame();
            as_server.extend_from_slice(&encoder::frame(kind, bytes));
            encoder::client_frame(kind, bytes, *key, &mut as_client);
        }
        as_server.extend_from_slice(&encoder::close_frame(code, &reason));
        encoder::client_close(code, &reason, [1, 2, 3, 4], &mut as_client);
        prop_assert!(Theirs::new(Role::Client, vec![as_server.clone()]).read() == expected);
        prop_assert!(Theirs::new(Role::Server, vec![as_client]).read() == expected);

        let close = (code, kept);
        let messages = || payloads.iter().map(|(payload, _)| payload.message());
        let their_bytes = Theirs::new(Role::Server, Vec::new()).write(messages(), close);
        prop_assert!(their_bytes == as_server, "a server's bytes are determined");
        let their_bytes = Theirs::new(Role::Client, Vec::new()).write(messages(), close);
        prop_assert!(read_ours(Role::Server, &[their_bytes]) == (expected.0, None));
        Ok(())
    });
}

/// Maximum bytes of a message on both sides; large enough for a length of 64 bits.
const MESSAGE_MAX: usize = 70_000;

const CASES: u32 = 5_000;

/// Rounds of so many cases; one is enough in nine of ten runs.
const ROUNDS_MAX: usize = 10;

fn run<S: Strategy>(strategy: &S, check: impl Fn(S::Value) -> TestCaseResult) {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    if let Err(error) = TestRunner::new(config).run(strategy, check) {
        panic!("{error}");
    }
}

/// Compares many streams, and requires that every kind of end occurred. Some are rare, so that more
/// streams are compared until each has occurred.
fn compare(role: Role) {
    let expected = BTreeSet::from([
        "CloseFrame",
        "ControlFrame",
        "Fragmentation",
        "LengthEncoding",
        "Masking",
        "ReservedBits",
        "TooBig",
        "UnknownOpcode",
        "Utf8",
        "none",
    ]);
    let ends = RefCell::new(BTreeSet::new());
    for _ in 0..ROUNDS_MAX {
        run(&streams(role), |pieces| {
            let ours = read_ours(role, &pieces);
            let end = ours.1.map_or("none".to_owned(), |refusal| format!("{refusal:?}"));
            ends.borrow_mut().insert(end);
            agree(&ours, Theirs::new(role, pieces))
        });
        if ends.borrow().len() >= expected.len() {
            break;
        }
    }
    assert!(ends.into_inner().iter().eq(expected), "the streams do not reach every refusal");
}

/// The messages of a stream up to a close frame, the end, or an error.
type Reading<HandshakeRefusal> = (Vec<Event>, Option<HandshakeRefusal>);

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

/// Compares what both read. Permitted differences:
///
/// - Tungstenite accepts a length that is not in its shortest form; we reject it (RFC 6455 §5.2:
///   "the minimal number of bytes MUST be used").
/// - Tungstenite checks a complete frame, we check its header first and text as it arrives, and so
///   reject earlier. So tungstenite is given the rest of the frame.
/// - A frame may have several errors: tungstenite checks the length first, and a close frame's text
///   before its code.
/// - Tungstenite does not know close code 1014, which was registered later.
fn agree(ours: &Reading<ProtocolError>, mut theirs: Theirs) -> TestCaseResult {
    let (events, refusal) = ours;
    let (mut their_events, mut their_code) = theirs.read();
    if let (Some(Event::Close(Some((1014, _)))), Some(last)) =
        (events.last(), their_events.last_mut())
        && *last == Event::Close(Some((1002, THEIR_REASON.to_owned())))
    {
        *last = events[events.len() - 1].clone();
    }
    let Some(refusal) = refusal else {
        prop_assert_eq!((events, None), (&their_events, their_code));
        return Ok(());
    };
    if *refusal == ProtocolError::LengthEncoding {
        prop_assert!(their_events.starts_with(events));
        return Ok(());
    }
    if *refusal == ProtocolError::CloseFrame
        && their_events.last() == Some(&Event::Close(Some((1002, THEIR_REASON.to_owned()))))
    {
        their_events.pop();
        their_code = Some(1002);
    }
    if their_code.is_none() {
        // Between frames, the ping would show that tungstenite accepts what we reject.
        let ping = Frame { first: 0x89, payload: b"between frames".to_vec(), ..Frame::default() };
        let is_masked = theirs.role == Role::Server;
        theirs.give(Frame { is_masked, ..ping }.encode());
        theirs.give(vec![0; MESSAGE_MAX]);
        let (more, code) = theirs.read();
        their_events.extend(more);
        their_code = code;
    }
    prop_assert_eq!(events, &their_events);
    let code = refusal.close_code().number();
    let several_faults = match their_code {
        Some(1009) => code == 1002,
        Some(1007) => *refusal == ProtocolError::CloseFrame,
        _ => false,
    };
    prop_assert!(their_code == Some(code) || several_faults, "{refusal:?}, they: {their_code:?}");
    Ok(())
}

/// Tungstenite's reason for a close code that must not be sent.
const THEIR_REASON: &str = "Protocol violation";

fn read_ours(role: Role, pieces: &[Vec<u8>]) -> Reading<ProtocolError> {
    let size = MESSAGE_MAX as u32;
    let limits = DecoderLimits { message_size: size, inflated_size: size };
    let (mut decoder, mut inflater) = (Decoder::new(role, limits, None), Inflater::default());
    let mut events = Vec::new();
    for piece in pieces {
        let mut bytes = piece.clone();
        let mut input = &mut bytes[..];
        loop {
            match decoder.next(&mut inflater, &mut input) {
                Ok(None) => break,
                Ok(Some(message)) => events.push(match message {
                    Message::Text(payload) => Event::Text(payload.to_vec()),
                    Message::Binary(payload) => Event::Binary(payload.to_vec()),
                    Message::Ping(payload) => Event::Ping(payload.to_vec()),
                    Message::Pong(payload) => Event::Pong(payload.to_vec()),
                    Message::Close(close) => {
                        let close = close.map(|close| (close.code.number(), close.reason));
                        events.push(Event::Close(close));
                        return (events, None);
                    }
                }),
                Err(refusal) => return (events, Some(refusal)),
            }
        }
    }
    (events, None)
}

/// Tungstenite over a given stream.
struct Theirs {
    role: Role,
    socket: WebSocket<Script>,
}

#[derive(Default)]
struct Script {
    pieces: VecDeque<Vec<u8>>,
    written: Vec<u8>,
}

impl Theirs {
    fn new(role: Role, pieces: Vec<Vec<u8>>) -> Theirs {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX))
            .read_buffer_size(4096);
        let their_role = match role {
            Role::Server => protocol::Role::Server,
            Role::Client => protocol::Role::Client,
        };
        let script = Script { pieces: pieces.into(), ..Script::default() };
        Theirs { role, socket: WebSocket::from_raw_socket(script, their_role, Some(config)) }
    }

    fn give(&mut self, piece: Vec<u8>) {
        self.socket.get_mut().pieces.push_back(piece);
    }

    /// Encodes these messages and a close frame with tungstenite.
    fn write(
        mut self,
        messages: impl Iterator<Item = TheirMessage>,
        (code, reason): (u16, &str),
    ) -> Vec<u8> {
        for message in messages {
            self.socket.send(message).expect("it fits");
        }
        let close = protocol::CloseFrame { code: code.into(), reason: reason.into() };
        self.socket.close(Some(close)).expect("it fits");
        std::mem::take(&mut self.socket.get_mut().written)
    }

    fn read(&mut self) -> Reading<u16> {
        let mut events = Vec::new();
        loop {
            let code = match self.socket.read() {
                Ok(message) => {
                    events.push(match message {
                        TheirMessage::Text(text) => Event::Text(text.as_bytes().to_vec()),
                        TheirMessage::Binary(bytes) => Event::Binary(bytes.to_vec()),
                        TheirMessage::Ping(bytes) => Event::Ping(bytes.to_vec()),
                        TheirMessage::Pong(bytes) => Event::Pong(bytes.to_vec()),
                        TheirMessage::Close(close) => {
                            let close = close.map(|c| (c.code.into(), c.reason.to_string()));
                            events.push(Event::Close(close));
                            return (events, None);
                        }
                        TheirMessage::Frame(_) => unreachable!("never read"),
                    });
                    continue;
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(Error::Protocol(_)) => Some(1002),
                Err(Error::Utf8(_)) => Some(1007),
                Err(Error::Capacity(_)) => Some(1009),
                Err(error) => panic!("{error}"),
            };
            return (events, code);
        }
    }
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pieces.retain(|piece| !piece.is_empty());
        let piece = self.pieces.front_mut().ok_or(io::ErrorKind::WouldBlock)?;
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        piece.drain(..count);
        Ok(count)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message for an encoder.
#[derive(Clone, Debug)]
enum Payload {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

impl Payload {
    fn event(&self) -> Event {
        match self {
            Payload::Text(text) => Event::Text(text.clone().into_bytes()),
            Payload::Binary(bytes) => Event::Binary(bytes.clone()),
            Payload::Ping(bytes) => Event::Ping(bytes.clone()),
            Payload::Pong(bytes) => Event::Pong(bytes.clone()),
        }
    }

    fn frame(&self) -> (FrameKind, &[u8]) {
        match self {
            Payload::Text(text) => (FrameKind::Text, text.as_bytes()),
            Payload::Binary(bytes) => (FrameKind::Binary, bytes),
            Payload::Ping(bytes) => (FrameKind::Ping, bytes),
            Payload::Pong(bytes) => (FrameKind::Pong, bytes),
        }
    }

    fn message(&self) -> TheirMessage {
        match self {
            Payload::Text(text) => TheirMessage::text(text.clone()),
            Payload::Binary(bytes) => TheirMessage::binary(bytes.clone()),
            Payload::Ping(bytes) => TheirMessage::Ping(bytes.clone().into()),
            Payload::Pong(bytes) => TheirMessage::Pong(bytes.clone().into()),
        }
    }
}

/// A frame on the wire, valid or not.
#[derive(Clone, Debug, Default)]
struct Frame {
    /// FIN bit, reserved bits and opcode.
    first: u8,
    is_masked: bool,
    key: [u8; 4],
    /// Number of forms by which the length is longer than necessary.
    excess: usize,
    payload: Vec<u8>,
}

impl Frame {
    fn encode(&self) -> Vec<u8> {
        let mask_bit = u8::from(self.is_masked) << 7;
        let length = self.payload.len() as u64;
        let shortest = usize::from(length > 125) + usize::from(length > 0xFFFF);
        let mut out = vec![self.first];
        match shortest + self.excess {
            0 => out.push(mask_bit | length as u8),
            1 => {
                out.push(mask_bit | 126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                out.push(mask_bit | 127);
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
        if self.is_masked {
            out.extend_from_slice(&self.key);
            out.extend(
                self.payload.iter().zip(self.key.iter().cycle()).map(|(byte, key)| byte ^ key),
            );
        } else {
            out.extend_from_slice(&self.payload);
        }
        out
    }
}

/// Mostly valid streams; some with changed bytes, a missing end, or split into pieces.
fn streams(role: Role) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let frames = prop_oneof![
        8 => messages(),
        2 => controls().prop_map(|frame| vec![frame]),
        1 => close_frames().prop_map(|(code, reason)| vec![close(&code.to_be_bytes(), reason.as_bytes())]),
        2 => odd_closes().prop_map(|frame| vec![frame]),
        1 => wrong_frames().prop_map(|frame| vec![frame]),
    ];
    let bytes = vec((frames, any::<[u8; 4]>()), 0..6).prop_map(move |groups| {
        let masked = groups.into_iter().flat_map(|(frames, key)| {
            let is_masked = |frame: &Frame| frame.is_masked != (role == Role::Server);
            frames.into_iter().map(move |frame| Frame {
                is_masked: is_masked(&frame),
                key,
                ..frame
            })
        });
        masked.flat_map(|frame| frame.encode()).collect::<Vec<u8>>()
    });
    let changes = prop_oneof![3 => Just(Vec::new()), 1 => vec(any::<(Index, u8)>(), 1..3)];
    let end = proptest::option::weighted(0.2, any::<Index>());
    (bytes, changes, end, vec(any::<Index>(), 0..5)).prop_map(|(mut bytes, changes, end, cuts)| {
        if bytes.is_empty() {
            return Vec::new();
        }
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        split(&bytes, &cuts)
    })
}

/// A message in one or more frames, with control frames between them.
fn messages() -> impl Strategy<Value = Vec<Frame>> {
    let between = vec(proptest::option::weighted(0.3, controls()), 4);
    (any::<bool>(), payloads(), vec(any::<Index>(), 0..4), between).prop_map(
        |(is_text, payload, cuts, between)| {
            let parts = split(&payload, &cuts);
            let last = parts.len() - 1;
            let mut frames = Vec::new();
            for (index, part) in parts.into_iter().enumerate() {
                let opcode = match (index, is_text) {
                    (0, true) => 1,
                    (0, false) => 2,
                    _ => 0,
                };
                let first = opcode | if index == last { 0x80 } else { 0 };
                frames.push(Frame { first, payload: part, ..Frame::default() });
                frames.extend(between[index.min(3)].clone().filter(|_| index < last));
            }
            frames
        },
    )
}

/// Characters, sometimes invalid bytes, and sizes around the limits of header forms and messages.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let sizes = [125, 126, 127, 65_535, 65_536, MESSAGE_MAX, MESSAGE_MAX + 1];
    prop_oneof![
        20 => texts().prop_map(String::into_bytes),
        2 => vec(any::<u8>(), 0..40),
        1 => select(sizes.to_vec()).prop_map(|size| vec![b'x'; size]),
    ]
}

fn texts() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..40).prop_map(String::from_iter)
}

fn controls() -> impl Strategy<Value = Frame> {
    let payload = vec(any::<u8>(), 0..=125);
    (select(vec![0x89, 0x8A]), payload).prop_map(|(first, payload)| Frame {
        first,
        payload,
        ..Frame::default()
    })
}

/// Any field may be invalid; `is_masked` here inverts the masking that the role requires.
fn wrong_frames() -> impl Strategy<Value = Frame> {
    let payload = prop_oneof![vec(any::<u8>(), 0..10), Just(vec![0; 126])];
    (any::<u8>(), proptest::bool::weighted(0.2), 0..3_usize, payload).prop_map(
        |(first, is_masked, excess, payload)| {
            let excess = excess.saturating_sub(1);
            Frame { first, is_masked, excess, payload, ..Frame::default() }
        },
    )
}

/// A code that may be sent, and a reason that may be too long.
fn close_frames() -> impl Strategy<Value = (u16, String)> {
    let code = prop_oneof![1000..=1003u16, 1007..=1013u16, 3000..=4999u16];
    (code, texts())
}

/// Codes on both sides of every limit, truncated codes, and reasons that are not text.
fn odd_closes() -> impl Strategy<Value = Frame> {
    let borders = [0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 2999, 3000, 4999, 5000, 65_535];
    prop_oneof![
        vec(any::<u8>(), 0..2).prop_map(|bytes| close(&bytes, &[])),
        select(borders.to_vec()).prop_map(|code: u16| close(&code.to_be_bytes(), b"reason")),
        vec(any::<u8>(), 0..5).prop_map(|bytes| close(&[3, 232], &bytes)),
    ]
}

fn close(code: &[u8], reason: &[u8]) -> Frame {
    Frame { first: 0x88, payload: [code, reason].concat(), ..Frame::default() }
}

fn split(bytes: &[u8], cuts: &[Index]) -> Vec<Vec<u8>> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter().map(|end| bytes[std::mem::replace(&mut start, end)..end].to_vec()).collect()
}

impl Arbitrary for Payload {
    type Parameters = ();
    type Strategy = BoxedStrategy<Payload>;

    fn arbitrary_with((): ()) -> BoxedStrategy<Payload> {
        prop_oneof![
            texts().prop_map(Payload::Text),
            payloads()
                .prop_filter("too big", |bytes| bytes.len() <= MESSAGE_MAX)
                .prop_map(Payload::Binary),
            controls().prop_map(|frame| Payload::Ping(frame.payload)),
            controls().prop_map(|frame| Payload::Pong(frame.payload)),
        ]
        .boxed()
    }
}
