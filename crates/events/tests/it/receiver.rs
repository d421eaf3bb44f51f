//! A receiver that does to each request what the test says.

use std::sync::{Arc, Mutex};

use events::WebhookSecret;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::SECRET;

/// What the receiver does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Answers with this status.
    Answer(u16),
    /// Answers with these bytes.
    Send(&'static str),
    /// Takes the batch and closes the connection without an answer.
    TakeAndClose,
    /// Resets the connection.
    Reset,
    /// Answers nothing.
    Hang,
}

type Script = Arc<dyn Fn(usize, &[Value]) -> Act + Send + Sync>;

/// A running receiver; ended when dropped.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// Events that were taken, in order.
    taken: Mutex<Vec<Value>>,
    /// `webhook-id` of every request.
    ids: Mutex<Vec<String>>,
    arrived: Notify,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Answers the request with this number, from 0, by what `script` says.
    pub(crate) async fn start(
        script: impl Fn(usize, &[Value]) -> Act + Send + Sync + 'static,
    ) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Receiver::start_on(listener, script)
    }

    /// A port that refuses connections until [`TcpSocket::listen`].
    pub(crate) fn away() -> (TcpSocket, u16) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        (socket, port)
    }

    pub(crate) fn start_on(
        listener: TcpListener,
        script: impl Fn(usize, &[Value]) -> Act + Send + Sync + 'static,
    ) -> Receiver {
        let port = listener.local_addr().unwrap().port();
        let (shared, script): (Arc<Shared>, Script) = (Arc::default(), Arc::new(script));
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, serving.clone(), script.clone()));
            }
        });
        Receiver { port, shared, task }
    }

    /// Waits until the events that were taken fulfil a condition, and returns them.
    pub(crate) async fn until(&self, is_done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        loop {
            let arrived = self.shared.arrived.notified();
            let taken = self.shared.taken.lock().unwrap().clone();
            if is_done(&taken) {
                return taken;
            }
            arrived.await;
        }
    }

    /// Waits for this number of requests.
    pub(crate) async fn requests(&self, count: usize) -> Vec<String> {
        loop {
            let arrived = self.shared.arrived.notified();
            let ids = self.shared.ids.lock().unwrap().clone();
            if ids.len() >= count {
                return ids;
            }
            arrived.await;
        }
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>, script: Script) {
    let mut input = Vec::new();
    while let Some((head, body)) = read_request(&mut stream, &mut input).await {
        check_signature(&head, &body);
        let body: Value = serde_json::from_slice(&body).unwrap();
        let events = body["events"].as_array().unwrap().clone();
        let number = {
            let mut ids = shared.ids.lock().unwrap();
            ids.push(header(&head, "webhook-id").to_owned());
            ids.len() - 1
        };
        let act = script(number, &events);
        if matches!(act, Act::Answer(200..300) | Act::TakeAndClose) {
            shared.taken.lock().unwrap().extend(events);
        }
        shared.arrived.notify_waiters();
        match act {
            Act::Answer(status) => {
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Act::Send(bytes) => drop(stream.write_all(bytes.as_bytes()).await),
            Act::TakeAndClose => return,
            Act::Reset => {
                stream.set_zero_linger().unwrap();
                return;
            }
            Act::Hang => std::future::pending().await,
        }
    }
}

async fn read_request(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let head = loop {
        if let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head: Vec<u8> = input.drain(..end + 4).collect();
            break String::from_utf8(head).unwrap().to_ascii_lowercase();
        }
        if stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
    };
    let length: usize = header(&head, "content-length").parse().unwrap();
    while input.len() < length {
        if stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, input.drain(..length).collect()))
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}: {head}")).trim()
}

/// The head is in lower case, so that the signature is compared in that form.
fn check_signature(head: &str, body: &[u8]) {
    assert!(head.starts_with("post /events "), "{head}");
    let secret = WebhookSecret::parse(SECRET).unwrap();
    let timestamp = header(head, "webhook-timestamp").parse().unwrap();
    let signature = secret.sign(header(head, "webhook-id"), timestamp, body);
    assert_eq!(header(head, "webhook-signature"), signature.to_ascii_lowercase());
}
