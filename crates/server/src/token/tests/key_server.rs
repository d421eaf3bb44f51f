//! An HTTP server that publishes a key set and counts requests.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// Serves until dropped.
pub(super) struct KeyServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    response: Vec<u8>,
    paths: Vec<String>,
    callers: usize,
    callers_awaited: usize,
    stopped: bool,
}

impl KeyServer {
    pub(super) fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if served.state.lock().unwrap().stopped {
                    break;
                }
                // Errors of clients that disconnect are ignored.
                let _ = stream.and_then(|stream| served.answer(stream));
            }
        });
        let server = Self { address, shared, thread: Some(thread) };
        server.publish(keys);
        server
    }

    /// Replaces the key set.
    pub(super) fn publish(&self, keys: &[Value]) {
        self.respond("200 OK", &json!({"keys": keys}).to_string());
    }

    /// Replaces the whole response.
    pub(super) fn respond(&self, status: &str, body: &str) {
        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: ");
        let response = format!("{head}{}\r\n\r\n{body}", body.len());
        self.shared.state.lock().unwrap().response = response.into_bytes();
    }

    /// Delays responses until this number of callers has announced a request.
    pub(super) fn await_callers(&self, count: usize) {
        self.shared.state.lock().unwrap().callers_awaited = count;
    }

    /// Announces a request of a caller.
    pub(super) fn announce_caller(&self) {
        self.shared.state.lock().unwrap().callers += 1;
        self.shared.changed.notify_all();
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> usize {
        self.shared.state.lock().unwrap().paths.len()
    }

    /// Paths of the requests so far.
    pub(super) fn paths(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().paths.clone()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            request.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&request);
        let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut state = self.state.lock().unwrap();
        state.paths.push(path);
        let state = self
            .changed
            .wait_while(state, |state| state.callers < state.callers_awaited && !state.stopped)
            .unwrap();
        let response = state.response.clone();
        drop(state);
        stream.write_all(&response)
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().stopped = true;
        self.shared.changed.notify_all();
        // Wakes the listener, which then sees that it is to stop.
        let _ = TcpStream::connect(self.address);
        let stopped = self.thread.take().map(JoinHandle::join);
        assert!(stopped.is_none_or(|end| end.is_ok()), "key server panicked");
    }
}
