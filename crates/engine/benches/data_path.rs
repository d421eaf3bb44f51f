//! The steps of the data path in isolation: decode, encode, fan-out, recovery. Criterion measures
//! their time. With `--count CASE N` a case only runs N times, so that `scripts/bench-check` can
//! count its instructions.
//!
//! Invariant: both modes run the same cases, and the cases use the product's types.

#![expect(clippy::disallowed_macros, reason = "lists its cases")]

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use criterion::Criterion;
use engine::broker::{BrokerEvent, BrokerRequest, JoinedStream, PublicationsRequest, RequestId};
use engine::encoding::{Encoder, Encoding};
use engine::hash_keys::HashKeys;
use engine::rules::{Namespace, Rules, SubscribePermission};
use engine::time::Now;
use engine::worker::Worker;
use engine::{Effect, Opening, PingStyle, SessionKey};
use wire::protocol::{
    Codec, Command, Publication, PublishRequest, Push, PushEvent, Reply, ReplyBody, Request,
    StreamPosition, decode_commands, encode_command, encode_reply,
};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits};
use wire::websocket::deflate::{Deflater, Inflater};
use wire::websocket::encoder::{self, FrameKind};

/// A prepared case.
type Run = Box<dyn FnMut()>;
/// The name of a case, and the function that prepares it.
type Case = (&'static str, fn() -> Run);

const CASES: [Case; 7] = [
    ("decode_json", || decode(Codec::Json)),
    ("decode_protobuf", || decode(Codec::Protobuf)),
    ("decode_frame", decode_frame),
    ("encode_json", || encode(Codec::Json)),
    ("encode_protobuf", || encode(Codec::Protobuf)),
    ("fan_out_1000", fan_out),
    ("recover_100", recover),
];

const SUBSCRIBERS: usize = 1000;
/// Number of publications that are missed, and that arrive while the client joins.
const MISSED: u64 = 100;
const JOINING: u64 = 20;
const NOW: Now = Now { monotonic_ms: 0, unix_ms: 1_700_000_000_000 };

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, option, name, count, ..] = &arguments[..]
        && option == "--count"
    {
        let (_, make) = CASES.iter().find(|(case, _)| case == name).expect("the case exists");
        let mut run = make();
        (0..count.parse::<u64>().expect("a number")).for_each(|_| run());
        return;
    }
    if arguments.iter().any(|argument| argument == "--cases") {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (name, make) in CASES {
        let mut run = make();
        criterion.bench_function(name, |bencher| bencher.iter(&mut run));
    }
    criterion.final_summary();
}

fn payload() -> Bytes {
    let text = "x".repeat(100);
    format!(r#"{{"text":"{text}","number":7}}"#).into()
}

fn decode(codec: Codec) -> Run {
    let publish =
        PublishRequest { channel: "room:7".to_owned(), data: payload(), ..Default::default() };
    let mut message = Vec::new();
    encode_command(codec, &Command { id: 7, request: Request::Publish(publish) }, &mut message);
    Box::new(move || {
        let commands = decode_commands(codec, black_box(&message)).expect("it is a command");
        black_box(commands.len());
    })
}

fn decode_frame() -> Run {
    let mut frame = Vec::new();
    encoder::client_frame(FrameKind::Text, &payload(), *b"mask", &mut frame);
    let limits = DecoderLimits { message_size: 1 << 16, inflated_size: 1 << 16 };
    let mut decoder = Decoder::new(Role::Server, limits, None);
    let mut inflater = Inflater::default();
    let mut received = frame.clone();
    Box::new(move || {
        // The decoder unmasks in place.
        received.copy_from_slice(&frame);
        let mut input = &mut received[..];
        let message = decoder.next(&mut inflater, &mut input).expect("it is a frame");
        black_box(message.is_some());
    })
}

fn encode(codec: Codec) -> Run {
    let publication = Publication { data: payload(), offset: 7, ..Publication::default() };
    let event = PushEvent::Publication(publication.into());
    let push = Push { channel: "room:7".into(), event };
    let reply = Reply { id: 0, body: ReplyBody::Push(push) };
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        encode_reply(codec, black_box(&reply), &mut out);
        black_box(out.len());
    })
}

fn fan_out() -> Run {
    let mut worker = worker();
    for _ in 0..SUBSCRIBERS {
        let key = connect(&mut worker);
        let id = ask_to_subscribe(&mut worker, key, r#"{"id":2,"subscribe":{"channel":"room"}}"#);
        // Only the first subscription submits a request for a channel that is not positioned.
        if let Some(id) = id {
            answer(&mut worker, id, JoinedStream::default());
        }
    }
    assert_eq!(drain(&mut worker), SUBSCRIBERS);
    Box::new(move || {
        worker.handle_broker_event(NOW, publication("room", 0));
        assert_eq!(drain(&mut worker), SUBSCRIBERS);
    })
}

fn recover() -> Run {
    let mut worker = worker();
    let missed: Vec<Arc<Publication>> = (1..=MISSED + JOINING)
        .map(|offset| Arc::new(Publication { data: payload(), offset, ..Default::default() }))
        .collect();
    let top = StreamPosition { epoch: "epoch".to_owned(), offset: MISSED };
    let subscribe =
        r#"{"id":2,"subscribe":{"channel":"kept:room","recover":true,"epoch":"epoch"}}"#;
    Box::new(move || {
        let key = connect(&mut worker);
        let id = ask_to_subscribe(&mut worker, key, subscribe).expect("it asks for the stream");
        for offset in MISSED + 1..=MISSED + JOINING {
            worker.handle_broker_event(NOW, publication("kept:room", offset));
        }
        let publications = missed[..MISSED as usize].to_vec();
        answer(&mut worker, id, JoinedStream { top: top.clone(), publications });
        assert_eq!(drain(&mut worker), 1);
        worker.handle_gone(NOW, key);
        while worker.poll_effect().is_some() {}
    })
}

fn worker() -> Worker {
    let subscribe = SubscribePermission { client: true, anonymous: true };
    let open = Namespace { subscribe, ..Namespace::default() };
    let (history_size, hour) = (1000, 3_600_000);
    let kept = Namespace {
        history_size,
        history_ttl_ms: hour,
        history_meta_ttl_ms: hour,
        force_recovery: true,
        ..open.clone()
    };
    let mut rules = Rules::default();
    rules.client.allow_anonymous_connect_without_token = true;
    rules.channels.without_namespace = open;
    rules.channels.namespaces.insert("kept".to_owned(), kept);
    let encoder = Encoder::new(Deflater::new(1), 0);
    Worker::new(NOW, Arc::new(rules), encoder, 1, HashKeys::new([1, 2]))
}

fn connect(worker: &mut Worker) -> SessionKey {
    let encoding = Encoding { codec: Codec::Json, deflate: None };
    let opening = Opening { encoding, user: None, ping_style: PingStyle::Protocol };
    let key = worker.handle_open(NOW, opening);
    worker.handle_message(NOW, key, br#"{"id":1,"connect":{}}"#);
    key
}

/// The request to the broker, if there is one.
fn ask_to_subscribe(
    worker: &mut Worker,
    key: SessionKey,
    subscribe: &str,
) -> Option<RequestId<JoinedStream>> {
    worker.handle_message(NOW, key, subscribe.as_bytes());
    std::iter::from_fn(|| worker.poll_effect()).find_map(|effect| match effect {
        Effect::Broker(BrokerRequest::Publications(PublicationsRequest::Subscribe {
            id, ..
        })) => Some(id),
        _ => None,
    })
}

fn answer(worker: &mut Worker, id: RequestId<JoinedStream>, stream: JoinedStream) {
    worker.handle_broker_event(NOW, BrokerEvent::Reply(id.answer(Ok(stream))));
}

fn publication(channel: &str, offset: u64) -> BrokerEvent {
    let publication = Publication { data: payload(), offset, ..Publication::default() };
    let epoch = if offset > 0 { "epoch" } else { "" };
    BrokerEvent::Publication {
        channel: channel.into(),
        publication: publication.into(),
        epoch: epoch.into(),
    }
}

/// Writes all outboxes, as a driver would. Returns the number of sessions.
fn drain(worker: &mut Worker) -> usize {
    let mut touched = 0;
    while let Some(key) = worker.poll_touched() {
        let outbox = worker.outbox(key).expect("it is there");
        touched += 1;
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); 64];
            let used = outbox.slices(&mut slices);
            let length = slices[..used].iter().map(|slice| slice.len()).sum();
            outbox.advance(length);
        }
    }
    touched
}
