//! A connection to the server API that stays, over HTTP or gRPC: one request after the other, each
//! with one publication or a batch.
//!
//! A server may close one over HTTP while nothing is asked; then it is dialled again.
//!
//! Invariant: publications leave in the order in which they were given, and each has an answer that
//! says it was taken.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;

use mio::{Interest, Registry, Token};

use super::client_connection;
use super::grpc_exchange::GrpcExchange;
use super::http_response::{HttpResponse, Progress};
use super::plan::{ApiProtocol, ApiTarget, Security};
use super::transport::Transport;

/// A persistent connection to the server API, over HTTP or gRPC.
pub(crate) struct ApiConnection {
    address: SocketAddr,
    security: Option<Security>,
    registry: Registry,
    token: Token,
    stream: Transport,
    is_connected: bool,
    /// Publications as the API takes them.
    waiting: VecDeque<Vec<u8>>,
    /// Publications of the request on its way.
    request: Option<u64>,
    /// What is to be written, and how much of it is.
    out: Vec<u8>,
    written: usize,
    exchange: Exchange,
    /// Publications of one request at most.
    batch: usize,
}

/// Requests and answers in the form of a protocol.
enum Exchange {
    Http { head: String, answer: HttpResponse },
    Grpc(GrpcExchange),
}

/// Publications that wait for their turn.
const WAITING_MAX: usize = 100_000;

impl ApiConnection {
    pub(crate) fn dial(
        target: &ApiTarget,
        batch: u32,
        registry: &Registry,
        token: Token,
    ) -> Result<ApiConnection, String> {
        let ApiTarget { protocol, address, authority, security, path, key } = target;
        let (address, security) = (*address, security.clone());
        let registry = registry.try_clone().map_err(|error| error.to_string())?;
        let stream = dial(address, security.as_ref(), &registry, token)?;
        let method = if batch > 1 { "batch" } else { "publish" };
        let exchange = match protocol {
            ApiProtocol::Http => Exchange::Http {
                head: format!(
                    "POST {path}/{method} HTTP/1.1\r\nHost: {authority}\r\nX-API-Key: {key}\r\n\
                     X-Centrifugo-Error-Mode: transport\r\nContent-Type: application/json\r\n"
                ),
                answer: HttpResponse::new(),
            },
            ApiProtocol::Grpc => Exchange::Grpc(GrpcExchange::new(authority, key, batch)),
        };
        let waiting = VecDeque::new();
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
            out: Vec::new(),
            written: 0,
            exchange,
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
        let publication = match &self.exchange {
            Exchange::Grpc(exchange) => exchange.publication(channel, data),
            Exchange::Http { .. } => {
                let mut publication = Vec::with_capacity(channel.len() + data.len() + 32);
                publication.extend_from_slice(br#"{"channel":""#);
                publication.extend_from_slice(channel.as_bytes());
                publication.extend_from_slice(br#"","data":"#);
                publication.extend_from_slice(data);
                publication.push(b'}');
                publication
            }
        };
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
                Ok(0) if self.exchange.is_whole_at_close() => {
                    taken += self.take_answer()?;
                    self.redial()?;
                    return Ok(taken);
                }
                Ok(0) => return Err("the server API closed the connection".to_owned()),
                Ok(count) => {
                    if !self.exchange.feed(&buffer[..count])? {
                        self.flush()?;
                        continue;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(format!("the connection to the API was cut: {error}")),
            }
            let stays = self.exchange.stays();
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
        if let Exchange::Grpc(_) = self.exchange {
            return Err("the server API ended the connection".to_owned());
        }
        self.is_connected = false;
        self.stream = dial(self.address, self.security.as_ref(), &self.registry, self.token)?;
        Ok(())
    }

    /// The answer is whole: gives how many publications it says were taken.
    fn take_answer(&mut self) -> Result<u64, String> {
        let Some(publications) = self.request.take() else {
            return Err("the server API answers what was not asked".to_owned());
        };
        let Exchange::Http { answer, .. } = &mut self.exchange else { return Ok(publications) };
        let answer = std::mem::replace(answer, HttpResponse::new());
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
        Ok(publications)
    }

    fn flush(&mut self) -> Result<(), String> {
        if !self.is_connected {
            return Ok(());
        }
        if self.request.is_none() && !self.waiting.is_empty() {
            self.request = Some(self.next_call()?);
        }
        if let Exchange::Grpc(exchange) = &mut self.exchange {
            exchange.take_replies(&mut self.out);
        }
        self.stream
            .flush()
            .map_err(|error| format!("the connection to the API was cut: {error}"))?;
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("the connection to the API was cut: {error}")),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Takes as many of those that wait as one request takes, and returns their number.
    fn next_call(&mut self) -> Result<u64, String> {
        let count = self.waiting.len().min(self.batch);
        let mut body = Vec::new();
        let head = match &mut self.exchange {
            Exchange::Http { head, .. } => head,
            Exchange::Grpc(exchange) => {
                // Before the first request: the preface.
                exchange.take_replies(&mut self.out);
                let body: Vec<u8> = self.waiting.drain(..count).flatten().collect();
                exchange.request(&body, &mut self.out).map_err(|fault| fault.to_string())?;
                return Ok(count as u64);
            }
        };
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
        let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        self.out.extend_from_slice(head.as_bytes());
        self.out.append(&mut body);
        Ok(count as u64)
    }
}

impl Exchange {
    /// Takes bytes in. Returns whether the answer is whole.
    fn feed(&mut self, bytes: &[u8]) -> Result<bool, String> {
        match self {
            Exchange::Grpc(exchange) => exchange.feed(bytes).map_err(|fault| fault.to_string()),
            Exchange::Http { answer, .. } => match answer.feed(bytes) {
                Ok(Progress::More) => Ok(false),
                Ok(Progress::Whole { rest: 0 }) => Ok(true),
                Ok(Progress::Whole { .. }) => {
                    Err("the server API answers what was not asked".to_owned())
                }
                Err(error) => Err(format!("the server API: {error}")),
            },
        }
    }

    /// The peer has closed; whether that was the end of the answer.
    fn is_whole_at_close(&self) -> bool {
        matches!(self, Exchange::Http { answer, .. } if answer.is_whole_at_close())
    }

    /// Whether the connection may be used for another request.
    fn stays(&self) -> bool {
        match self {
            Exchange::Http { answer, .. } => answer.stays(),
            Exchange::Grpc(_) => true,
        }
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
