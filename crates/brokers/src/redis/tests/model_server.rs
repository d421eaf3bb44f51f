//! Tests of the model server itself: what a real server does beside its commands.
//!
//! Invariant: each case holds for a real Redis of the version that it names.

use std::rc::Rc;

use super::model::scripts::Interpreter;
use super::model::server::ModelServer;
use super::model::store::Writes;
use crate::redis::resp::{Frame, RespDecoder, encode};
use crate::redis::scripts::Script;

/// Executes one command of a connection and returns what its output holds then.
fn ask(server: &mut ModelServer, client: u64, words: &[&str]) -> Vec<Frame> {
    let mut out = Vec::new();
    encode(&mut out, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
    // Bytes arrive in any portions.
    let (first, rest) = out.split_at(out.len() / 2);
    server.receive(client, first, 1_700_000_000_000_000);
    server.receive(client, rest, 1_700_000_000_000_000);
    output(server, client)
}

fn output(server: &mut ModelServer, client: u64) -> Vec<Frame> {
    let mut decoder = RespDecoder::default();
    decoder.buffer().extend_from_slice(&server.take_output(client));
    std::iter::from_fn(|| decoder.next().expect("RESP")).collect()
}

fn server() -> ModelServer {
    let mut server = ModelServer::new(Rc::new(Interpreter::new()));
    server.connect(1);
    server.connect(2);
    server
}

fn is_push(frame: &Frame) -> bool {
    matches!(frame, Frame::Push(_))
}

#[test]
fn a_message_stands_before_or_behind_the_reply_to_its_publisher() {
    for defers in [false, true] {
        let mut server = server();
        server.defers_own_messages = defers;
        assert!(is_push(&ask(&mut server, 1, &["SUBSCRIBE", "c"])[0]));
        assert!(server.is_subscribed(1, b"c") && !server.is_subscribed(2, b"c"));
        let both = ask(&mut server, 1, &["PUBLISH", "c", "x"]);
        assert_eq!([is_push(&both[0]), is_push(&both[1])], [!defers, defers]);
        ask(&mut server, 2, &["PUBLISH", "c", "y"]);
        assert_eq!(output(&mut server, 1).len(), 1);
        ask(&mut server, 2, &["SPUBLISH", "c", "z"]);
        assert_eq!(output(&mut server, 1), [], "sharded channels have names of their own");
        assert_eq!(server.log.len(), 3);
        server.disconnect(1);
        assert!(!server.is_subscribed(1, b"c"));
    }
}

#[test]
fn a_refused_command_is_not_executed() {
    let mut server = server();
    let text = Script::Clear.text();
    let digest = String::from_utf8(server.load(text)).expect("a digest is text");
    let error = |frames: Vec<Frame>| match &frames[..] {
        [Frame::Error(text)] => String::from_utf8_lossy(text).into_owned(),
        other => panic!("{other:?}"),
    };
    server.next_error = Some("TRYAGAIN");
    assert_eq!(error(ask(&mut server, 1, &["SET", "a", "1"])), "TRYAGAIN");
    assert_eq!(server.store.keys().len(), 0);
    ask(&mut server, 1, &["SET", "a", "1"]);
    let run = ["EVALSHA", &*digest, "1", "a"];
    server.store.writes = Writes::ReadOnly;
    assert!(error(ask(&mut server, 1, &run)).starts_with("READONLY"));
    server.store.writes = Writes::OutOfMemory;
    assert!(error(ask(&mut server, 1, &["SET", "b", "1"])).starts_with("OOM"));
    assert_eq!(ask(&mut server, 1, &run), [Frame::Integer(1)], "it frees memory");
    server.flush_scripts();
    assert!(error(ask(&mut server, 1, &run)).starts_with("NOSCRIPT"));
    ask(&mut server, 1, &["SCRIPT", "LOAD", text]);
    assert_eq!(ask(&mut server, 1, &run), [Frame::Integer(0)]);
}
