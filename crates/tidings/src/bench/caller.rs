//! A connection to the server API that stays: one request after the other, each with one publication or a batch.
//!
//! A server may close it while nothing is asked; then it is dialled again.
//!
//! Invariant: publications leave in the order in which they were given, and each has an answer that says it was taken.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;

use mio::{Interest, Registry, Token};

use super::line;
use super::plan::Security;
use super::transport::Transport;

/// See the module.
pub(crate) struct Caller {
    address: SocketAddr,
    security: Option<Security>,
    registry: Registry,
    token: Token,
    stream: Transport,
    is_connected: bool,
    /// Publications as the API takes them.
    waiting: VecDeque<Vec<u8>>,
    request: Option<Call>,
    answer: Vec<u8>,
    head: String,
    /// Publications of one request at most.
    batch: usize,
}

/// A request on its way.
struct Call {
    bytes: Vec<u8>,
    written: usize,
    publications: u64,
}

/// Publications that wait for their turn.
const WAITING_MAX: usize = 100_000;

impl Caller {
    pub(crate) fn dial(
        (address, authority, security): (SocketAddr, &str, Option<&Security>),
        (path, key): (&str, &str),
        batch: u32,
        registry: &Registry,
        token: Token,
    ) -> Result<Caller, String> {
        let security = security.cloned();
        let registry = registry.try_clone().map_err(|error| error.to_string())?;
        let stream = dial(address, security.as_ref(), &registry, token)?;
        let method = if batch > 1 { "batch" } else { "publish" };
        let head = format!(
            "POST {path}/{method} HTTP/1.1\r\nHost: {authority}\r\nX-API-Key: {key}\r\n\
             X-Centrifugo-Error-Mode: transport\r\nContent-Type: application/json\r\n"
        );
        let (waiting, answer) = (VecDeque::new(), Vec::new());
        let batch = batch.max(1) as usize;
        Ok(Caller {
            address,
            security,
            registry,
            token,
            stream,
            is_connected: false,
            waiting,
            request: None,
            answer,
            head,
            batch,
        })
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Publishes, as soon as everything before is answered.
    pub(crate) fn publish(&mut self, channel: &str, data: &[u8]) -> Result<(), String> {
        if self.waiting.len() >= WAITING_MAX {
            return Err("the server API is too slow for the planned rate".to_owned());
        }
        let mut publication = Vec::with_capacity(channel.len() + data.len() + 32);
        publication.extend_from_slice(br#"{"channel":""#);
        publication.extend_from_slice(channel.as_bytes());
        publication.extend_from_slice(br#"","data":"#);
        publication.extend_from_slice(data);
        publication.push(b'}');
        self.waiting.push_back(publication);
        self.flush()
    }

    /// The socket may be read or written; gives how many publications were taken.
    pub(crate) fn handle(&mut self, buffer: &mut [u8]) -> Result<u64, String> {
        if !self.is_connected {
            match line::is_connected(self.stream.tcp()) {
                Ok(is_connected) => self.is_connected = is_connected,
                Err(error) => return Err(format!("cannot connect to the server API: {error}")),
            }
        }
        self.flush()?;
        let mut taken = 0;
        loop {
            match self.stream.read(buffer) {
                Ok(0) if self.request.is_none() => {
                    self.is_connected = false;
                    self.stream =
                        dial(self.address, self.security.as_ref(), &self.registry, self.token)?;
                    return Ok(taken);
                }
                Ok(0) => return Err("the server API closed the connection".to_owned()),
                Ok(count) => self.answer.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(format!("the connection to the API was cut: {error}")),
            }
            if self.is_answered()? {
                taken += self.request.take().map_or(0, |call| call.publications);
                self.flush()?;
            }
        }
    }

    fn is_answered(&mut self) -> Result<bool, String> {
        let wrong = || "the server API does not answer as HTTP".to_owned();
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(parsed) = response.parse(&self.answer) else { return Err(wrong()) };
        let httparse::Status::Complete(start) = parsed else { return Ok(false) };
        let length = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok())
            .ok_or("the server API's answer has no Content-Length")?;
        let Some(body) = self.answer[start..].get(..length) else { return Ok(false) };
        let status = response.code.unwrap_or(0);
        let body = String::from_utf8_lossy(body);
        if status != 200 || body.contains("\"error\"") {
            return Err(format!("the server API answered {status}: {}", body.trim()));
        }
        self.answer.clear();
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), String> {
        if !self.is_connected {
            return Ok(());
        }
        if self.request.is_none() && !self.waiting.is_empty() {
            self.request = Some(self.next_call());
        }
        self.stream
            .flush()
            .map_err(|error| format!("the connection to the API was cut: {error}"))?;
        let Some(call) = &mut self.request else { return Ok(()) };
        while call.written < call.bytes.len() {
            match self.stream.write(&call.bytes[call.written..]) {
                Ok(count) => call.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("the connection to the API was cut: {error}")),
            }
        }
        Ok(())
    }

    /// As many of those that wait as one request takes.
    fn next_call(&mut self) -> Call {
        let count = self.waiting.len().min(self.batch);
        let mut body = Vec::new();
        if self.batch == 1 {
            body = self.waiting.pop_front().unwrap_or_default();
        } else {
            body.extend_from_slice(br#"{"commands":["#);
            for (index, publication) in self.waiting.drain(..count).enumerate() {
                body.extend_from_slice(if index == 0 { b"" } else { b"," });
                body.extend_from_slice(br#"{"publish":"#);
                body.extend_from_slice(&publication);
                body.push(b'}');
            }
            body.extend_from_slice(b"]}");
        }
        let mut bytes = format!("{}Content-Length: {}\r\n\r\n", self.head, body.len()).into_bytes();
        bytes.append(&mut body);
        Call { bytes, written: 0, publications: count as u64 }
    }
}

fn dial(
    address: SocketAddr,
    security: Option<&Security>,
    registry: &Registry,
    token: Token,
) -> Result<Transport, String> {
    let mut tcp = line::dial(address, None)?;
    registry
        .register(&mut tcp, token, Interest::READABLE | Interest::WRITABLE)
        .map_err(|error| format!("the poller takes no more sockets: {error}"))?;
    Transport::new(tcp, security)
}
