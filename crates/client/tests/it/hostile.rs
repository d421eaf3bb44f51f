//! A server that breaks its side of the protocol: the client goes on, and holds a bounded number of
//! bytes for it.

use std::time::Duration;

use client::{
    CallError, Client, ClientOptions, Codec, ConnectionState, Event, Failure, SubscriptionOptions,
    TransportError,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wire::protocol::{Push, PushEvent, Reply, ReplyBody, StreamPosition, encode_reply};
use wire::websocket::encoder::{FrameKind, frame};
use wire::websocket::handshake::{RequestHead, accept};

use crate::support::{Fixture, token, until};

/// What the kernel and the client may hold before a server that writes has to wait: buffers of both
/// sockets, and the client's own bounds.
const HELD_MAX: usize = 32 * 1024 * 1024;

/// The server's end of one connection, which was accepted and greeted.
struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Waits for a client, and accepts its handshake. Its connect command is not read.
    async fn accept(listener: &TcpListener) -> Connection {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        let lines = request.lines().filter_map(|line| line.split_once(": "));
        let headers: Vec<(String, &str)> =
            lines.map(|(name, value)| (name.to_lowercase(), value)).collect();
        let headers = headers.iter().map(|(name, value)| (&**name, value.as_bytes())).collect();
        let head = RequestHead { method: "GET", is_http_1_1: true, headers };
        let accept = accept(&head).unwrap().accept;
        let answer = format!("HTTP/1.1 101 -\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut connection = Connection { stream };
        let greeting = [Reply { id: 1, body: ReplyBody::Connect(Box::default()) }];
        connection.stream.write_all(&message(&greeting)).await.unwrap();
        connection
    }

    /// Writes until the client stops reading, or resets the connection. Gives the bytes written.
    async fn flood(&mut self, mut next: impl FnMut() -> Vec<u8>) -> usize {
        let mut written = 0;
        while let Ok(Ok(())) =
            timeout(Duration::from_millis(500), self.stream.write_all(&next())).await
        {
            written += 64 * 1024;
            assert!(written < HELD_MAX, "the client reads for ever");
        }
        written
    }
}

fn message(replies: &[Reply]) -> Vec<u8> {
    let mut payload = Vec::new();
    replies.iter().for_each(|reply| encode_reply(Codec::Json, reply, &mut payload));
    frame(FrameKind::Text, &payload).to_vec()
}

async fn client(timeout: Duration) -> (TcpListener, Client, client::Events) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let mut options = ClientOptions::default();
    options.session.timeout = timeout;
    let (client, events) = Client::connect(&url, options).unwrap();
    (listener, client, events)
}

/// Bytes for the server that it does not read wait for as long as a reply does.
#[tokio::test]
async fn a_server_that_reads_nothing_is_left() {
    let (listener, client, mut events) = client(Duration::from_secs(1)).await;
    let _connection = Connection::accept(&listener).await;
    client.connected().await.unwrap();
    let data = format!("\"{}\"", "x".repeat(HELD_MAX));
    assert_eq!(client.publish("news", data).await, Err(CallError::Timeout));
    let event = until(&mut events, |event| matches!(event, Event::Failed(_))).await;
    let Event::Failed(Failure::Transport(TransportError::Io(text))) = event else {
        panic!("{event:?}")
    };
    assert!(text.contains("the server has read nothing for 1s"), "{text}");
}

/// The server has many subscriptions made anew and reads none of the commands: the client stops
/// reading before they pile up.
#[tokio::test]
async fn commands_that_are_not_read_stop_the_socket() {
    const CHANNELS: u32 = 3_000;
    let (listener, client, mut events) = client(Duration::from_secs(60)).await;
    let data: bytes::Bytes = format!("\"{}\"", "x".repeat(4_000)).into();
    for number in 0..CHANNELS {
        let options = SubscriptionOptions { data: data.clone(), ..SubscriptionOptions::default() };
        client.subscribe(&number.to_string(), options).await.unwrap();
    }
    let mut connection = Connection::accept(&listener).await;
    let mut ids = 2..;
    let flood = connection.flood(|| {
        let mut bytes = Vec::new();
        while bytes.len() < 64 * 1024 {
            let id = ids.next().unwrap();
            let event = PushEvent::Unsubscribe { code: 2500, reason: String::new() };
            let channel = (id % CHANNELS).to_string().into();
            let push = ReplyBody::Push(Push { channel, event });
            let subscribed = ReplyBody::Subscribe(Box::default());
            bytes.extend(message(&[Reply { id, body: subscribed }, Reply { id: 0, body: push }]));
        }
        bytes
    });
    let read = async { while events.next().await.is_some() {} };
    tokio::select! {
        _stopped = flood => {}
        () = read => panic!("the client has ended"),
    }
}

/// Events that are not read are bounded whatever they consist of: here of long texts.
#[tokio::test]
async fn pushes_without_end_are_not_read_without_end() {
    let (listener, _client, mut events) = client(Duration::from_secs(60)).await;
    let mut connection = Connection::accept(&listener).await;
    let begin = PushEvent::Subscribe {
        recoverable: false,
        positioned: false,
        position: StreamPosition::default(),
        data: "1".into(),
    };
    let end = PushEvent::Unsubscribe { code: 2000, reason: "x".repeat(60_000) };
    let pushes = [begin, end].map(|event| {
        let channel = "news".into();
        Reply { id: 0, body: ReplyBody::Push(Push { channel, event }) }
    });
    connection.flood(|| message(&pushes)).await;
    // And what was read is there.
    until(&mut events, |event| matches!(event, Event::Unsubscribed { .. })).await;
}

/// Calls whose replies never come end, and the connection goes on.
#[tokio::test]
async fn a_server_that_answers_nothing_but_connect_costs_calls_and_no_connection() {
    let (listener, client, _events) = client(Duration::from_millis(500)).await;
    let _connection = Connection::accept(&listener).await;
    client.connected().await.unwrap();
    let (published, presence) = tokio::join!(client.publish("a", "1"), client.presence("a"));
    assert_eq!(published, Err(CallError::Timeout));
    assert_eq!(presence.unwrap_err(), CallError::Timeout);
    assert_eq!(client.state(), ConnectionState::Connected);
}

/// What a hostile server has left behind does not hinder a good one.
#[tokio::test]
async fn a_client_connects_to_a_good_server_after_garbage() {
    let fixture = Fixture::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let mut options = ClientOptions::default().with_token(token("ann", None));
    options.session.reconnect.min = Duration::from_millis(10);
    let (client, mut events) = Client::connect(&url, options).unwrap();
    let garbage: [&[u8]; 5] = [
        b"",
        b"HTTP/1.1 101 -\r\n\r\n",
        &[0xFF; 100_000],
        &[b'a'; 100_000],
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n<html>",
    ];
    for bytes in garbage {
        let (mut stream, _) = listener.accept().await.unwrap();
        // The client may close before it has read everything.
        let _reset = stream.write_all(bytes).await;
        drop(stream);
        until(&mut events, |event| matches!(event, Event::Failed(_))).await;
    }
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut server = TcpStream::connect(fixture.address).await.unwrap();
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut server).await });
    client.connected().await.unwrap();
}
