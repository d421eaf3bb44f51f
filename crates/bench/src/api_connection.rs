//! A connection to the server API that stays: one request after the other, each with one
//! publication or a batch.
//!
//! A server may close it while nothing is asked; then it is dialled again.
//!
//! Invariant: publications leave in the order in which they were given, and each has an answer that
//! says it was taken.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;

use mio::{Interest, Registry, Token};

use super::client_connection;
use super::http_response::{HttpResponse, Progress};
use super::plan::Security;
use super::transport::Transport;

/// See the module.
pub(crate) struct ApiConnection {
    address: SocketAddr,
    security: Option<Security>,
    registry: Registry,
    token: Token,
    stream: Transport,
    is_connected: bool,
    /// Publications as the API takes them.
    waiting: VecDeque<Vec<u8>>,
    request: Option<ApiRequest>,
    answer: HttpResponse,
    head: String,
    /// Publications of one request at most.
    batch: usize,
}

/// A request on its way.
struct ApiRequest {
    bytes: Vec<u8>,
    written: usize,
    publications: u64,
}

/// Publications that wait for their turn.
const WAITING_MAX: usize = 100_000;

impl ApiConnection {
    pub(crate) fn dial(
        (address, authority, security): (SocketAddr, &str, Option<&Security>),
        (path, key): (&str, &str),
        batch: u32,
        registry: &Registry,
        token: Token,
    ) -> Result<ApiConnection, String> {
        let security = security.cloned();
        let registry = registry.try_clone().map_err(|error| error.to_string())?;
        let stream = dial(address, security.as_ref(), &registry, token)?;
        let method = if batch > 1 { "batch" } else { "publish" };
        let head = format!(
            "POST {path}/{method} HTTP/1.1\r\nHost: {authority}\r\nX-API-Key: {key}\r\n\
             X-Centrifugo-Error-Mode: transport\r\nContent-Type: application/json\r\n"
        );
        let (waiting, answer) = (VecDeque::new(), HttpResponse::new());
        let batch = batch.max(1) as usize;
        Ok(ApiConnection {
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
            match client_connection::is_connected(self.stream.tcp()) {
                Ok(is_connected) => self.is_connected = is_connected,
                Err(error) => return Err(format!("cannot connect to the server API: {error}")),
            }
        }
        self.flush()?;
        let mut taken = 0;
        loop {
            match self.stream.read(buffer) {
                Ok(0) if self.request.is_none() => {
                    self.redial()?;
                    return Ok(taken);
                }
                Ok(0) if self.answer.is_whole_at_close() => {
                    taken += self.take_answer()?;
                    self.redial()?;
                    return Ok(taken);
                }
                Ok(0) => return Err("the server API closed the connection".to_owned()),
                Ok(count) => match self.answer.feed(&buffer[..count]) {
                    Ok(Progress::More) => continue,
                    Ok(Progress::Whole { rest: 0 }) => {}
                    Ok(Progress::Whole { .. }) => {
                        return Err("the server API answers what was not asked".to_owned());
                    }
                    Err(error) => return Err(format!("the server API: {error}")),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(format!("the connection to the API was cut: {error}")),
            }
            let stays = self.answer.stays();
            taken += self.take_answer()?;
            if !stays {
                self.redial()?;
                return Ok(taken);
            }
            self.flush()?;
        }
    }

    /// The server has closed, or will.
    fn redial(&mut self) -> Result<(), String> {
        self.is_connected = false;
        self.stream = dial(self.address, self.security.as_ref(), &self.registry, self.token)?;
        Ok(())
    }

    /// The answer is whole: gives how many publications it says were taken.
    fn take_answer(&mut self) -> Result<u64, String> {
        let answer = std::mem::replace(&mut self.answer, HttpResponse::new());
        let Some(call) = self.request.take() else {
            return Err("the server API answers what was not asked".to_owned());
        };
        let body = String::from_utf8_lossy(answer.body());
        if answer.status() != 200 || body.contains("\"error\"") {
            let hint = match answer.status() {
                401 => " (is --api-key the server's http_api.key?)",
                404 => " (is the server API at --api-url?)",
                _ => "",
            };
            return Err(format!(
                "the server API answered {}: {}{hint}",
                answer.status(),
                body.trim()
            ));
        }
        Ok(call.publications)
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
    fn next_call(&mut self) -> ApiRequest {
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
        ApiRequest { bytes, written: 0, publications: count as u64 }
    }
}

fn dial(
    address: SocketAddr,
    security: Option<&Security>,
    registry: &Registry,
    token: Token,
) -> Result<Transport, String> {
    let mut tcp = client_connection::dial(address, None)?;
    registry
        .register(&mut tcp, token, Interest::READABLE | Interest::WRITABLE)
        .map_err(|error| format!("the poller takes no more sockets: {error}"))?;
    Transport::new(tcp, security)
}
