//! The opening handshake of both sides, with any bytes as head of a request and of a response.
//!
//! Input: lines. The first has the method, followed by `0` for HTTP/1.0; the others are headers of
//! a request. The whole input is also read as a response.

#![no_main]

use std::str;

use libfuzzer_sys::fuzz_target;
use wire::websocket::deflate;
use wire::websocket::handshake::{self, ClientHandshake, ClientRequest, RequestHead};

fuzz_target!(|input: &[u8]| {
    serve(input);
    ask(input);
});

fn serve(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let (method, version) = first.split_once(' ').unwrap_or((first, ""));
    let headers = lines.filter_map(|line| line.split_once(':'));
    let head = RequestHead {
        method,
        is_http_1_1: version != "0",
        headers: headers.map(|(name, value)| (name, value.as_bytes())).collect(),
    };
    let accepted = match handshake::accept(&head) {
        Ok(accepted) => accepted,
        Err(refusal) => return assert!((400..=426).contains(&refusal.status())),
    };
    assert_eq!(accepted.accept.len(), 28, "20 bytes in base64");
    assert!(accepted.subprotocols.iter().all(|one| !one.is_empty() && !one.contains(',')));
    if let Some(negotiated) = accepted.deflate {
        // The response's extension is itself a valid offer with the same result.
        let header = negotiated.header();
        assert_eq!(deflate::negotiate(&header).map(|again| again.header()), Some(header));
    }
}

fn ask(input: &[u8]) {
    let request = ClientRequest {
        host: "localhost",
        target: "/",
        subprotocol: "",
        headers: &[],
        key: *b"0123456789abcdef",
    };
    let (handshake, _) = ClientHandshake::new(request);
    let Ok(Some(length)) = handshake.handle_response(input) else { return };
    assert!(length <= input.len());
    assert_eq!(handshake.handle_response(&input[..length]), Ok(Some(length)));
    assert_eq!(handshake.handle_response(&input[..length - 1]), Ok(None));
}
