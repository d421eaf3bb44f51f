//! One client of a storm: a socket that may die at any time, and what it has received so far.
//!
//! Invariant: publication `n` is taken only when it is the next one; anything else is noted as a failure.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockRef, Socket, Type};
use wire::protocol::{
    self, Codec, Command, Publication, PushEvent, Reply, ReplyBody, Request, StreamPosition,
    SubscribeRequest, SubscribeResult,
};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::Inflater;
use wire::websocket::encoder::{self, FrameKind};

use crate::plan::CHANNEL;

/// See the module.
pub(crate) struct Client {
    number: u64,
    link: Option<Link>,
    position: Option<StreamPosition>,
    /// Publications received, each once and in order.
    pub(crate) received: u64,
    pub(crate) failures: Vec<String>,
}

struct Link {
    stream: TcpStream,
    stage: Stage,
    head: Vec<u8>,
    decoder: Decoder,
    began: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Dialling,
    ShakingHands,
    Joining,
    Live,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Nothing,
    /// The subscription is live, so long after dialling.
    Live(Duration),
    /// The server, or the kernel, ended the connection.
    Cut,
}

impl Client {
    pub(crate) fn new(number: u64) -> Client {
        Client { number, link: None, position: None, received: 0, failures: Vec::new() }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.stage == Stage::Live)
    }

    /// Dials, unless it has a socket already.
    pub(crate) fn dial(
        &mut self,
        address: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> std::io::Result<()> {
        if self.link.is_some() {
            return Ok(());
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // From many loopback addresses, so that ports are not short.
        let source = Ipv4Addr::new(127, 0, 2, u8::try_from(self.number % 200 + 1).unwrap_or(1));
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let limits = DecoderLimits { message_size: 1 << 24, inflated_size: 1 << 24 };
        let decoder = Decoder::new(Role::Client, limits, false);
        let (stage, head) = (Stage::Dialling, Vec::new());
        self.link = Some(Link { stream, stage, head, decoder, began: Instant::now() });
        Ok(())
    }

    /// The socket is gone, with a reset or with an end, but without a word.
    pub(crate) fn die(&mut self, by_reset: bool) {
        if let Some(link) = self.link.take()
            && by_reset
        {
            // A socket that is not connected has nothing to reset.
            let _not_connected = SockRef::from(&link.stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// The socket may be written or read.
    pub(crate) fn handle(&mut self, buffer: &mut [u8], inflater: &mut Inflater) -> News {
        let news = self.advance(buffer, inflater).unwrap_or(News::Cut);
        if news == News::Cut {
            self.link = None;
        }
        news
    }

    fn advance(&mut self, buffer: &mut [u8], inflater: &mut Inflater) -> std::io::Result<News> {
        let mut news = News::Nothing;
        let Some(link) = &mut self.link else { return Ok(news) };
        if link.stage == Stage::Dialling {
            if let Some(error) = link.stream.take_error()? {
                return Err(error);
            }
            match link.stream.peer_addr() {
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(news),
                result => result?,
            };
            link.stage = Stage::ShakingHands;
            link.stream.write_all(HANDSHAKE)?;
        }
        loop {
            let Some(link) = &mut self.link else { return Ok(news) };
            let count = match link.stream.read(buffer) {
                Ok(0) => return Ok(News::Cut),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(news),
                Err(error) => return Err(error),
            };
            match self.handle_bytes(&mut buffer[..count], inflater)? {
                News::Nothing => {}
                News::Cut => return Ok(News::Cut),
                live @ News::Live(_) => news = live,
            }
        }
    }

    fn handle_bytes(&mut self, input: &mut [u8], inflater: &mut Inflater) -> std::io::Result<News> {
        let mut news = News::Nothing;
        let mut rest;
        let mut input = &mut *input;
        let Some(link) = &mut self.link else { return Ok(news) };
        if link.stage == Stage::ShakingHands {
            link.head.extend_from_slice(input);
            let Some(end) = link.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(news);
            };
            if !link.head.starts_with(b"HTTP/1.1 101") {
                self.failures.push(String::from_utf8_lossy(&link.head).into_owned());
                return Ok(News::Cut);
            }
            rest = link.head.split_off(end + 4);
            input = &mut rest;
            link.stage = Stage::Joining;
            link.stream.write_all(&join(self.position.as_ref()))?;
        }
        loop {
            let Some(link) = &mut self.link else { return Ok(news) };
            let message = link.decoder.next(inflater, &mut input).expect("RFC 6455");
            let payload = match message {
                None => return Ok(news),
                Some(Message::Text(payload)) => payload,
                Some(_) => return Ok(News::Cut),
            };
            for reply in protocol::decode_replies(Codec::Json, &payload).expect("replies") {
                match self.handle_reply(reply)? {
                    News::Nothing => {}
                    News::Cut => return Ok(News::Cut),
                    live @ News::Live(_) => news = live,
                }
            }
        }
    }

    fn handle_reply(&mut self, reply: Reply) -> std::io::Result<News> {
        match reply.body {
            ReplyBody::Ping => {
                let pong = frame(&[Command { id: 0, request: Request::Pong }]);
                if let Some(link) = &mut self.link {
                    link.stream.write_all(&pong)?;
                }
            }
            ReplyBody::Subscribe(result) => return Ok(self.begin(&result)),
            ReplyBody::Push(push) => match push.event {
                PushEvent::Publication(publication) => self.take(&publication),
                other => {
                    self.failures.push(format!("pushed {other:?}"));
                    return Ok(News::Cut);
                }
            },
            ReplyBody::Error(error) => {
                self.failures.push(format!("error {} {}", error.code, error.message));
                return Ok(News::Cut);
            }
            _ => {}
        }
        Ok(News::Nothing)
    }

    fn begin(&mut self, result: &SubscribeResult) -> News {
        if self.position.is_some() && !result.recovered {
            self.failures.push(format!("not recovered after {}", self.received));
        }
        let StreamPosition { offset, .. } = self.position.clone().unwrap_or_default();
        self.position = Some(StreamPosition { offset, epoch: result.epoch.clone() });
        result.publications.iter().for_each(|publication| self.take(publication));
        let Some(link) = &mut self.link else { return News::Cut };
        link.stage = Stage::Live;
        News::Live(link.began.elapsed())
    }

    fn take(&mut self, publication: &Publication) {
        let text = String::from_utf8_lossy(&publication.data);
        let expected = self.received + 1;
        if text != expected.to_string() || publication.offset != expected {
            let offset = publication.offset;
            self.failures.push(format!("got {text} at {offset} instead of {expected}"));
            return;
        }
        self.received = expected;
        if let Some(position) = &mut self.position {
            position.offset = expected;
        }
    }
}

const HANDSHAKE: &[u8] = b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A connect that does not wait says so.
const EINPROGRESS: i32 = 115;

/// Connect and subscribe, from where it was.
fn join(position: Option<&StreamPosition>) -> Vec<u8> {
    let StreamPosition { offset, epoch } = position.cloned().unwrap_or_default();
    let subscribe = SubscribeRequest {
        channel: CHANNEL.to_owned(),
        recover: position.is_some(),
        recoverable: true,
        epoch,
        offset,
        ..SubscribeRequest::default()
    };
    frame(&[
        Command { id: 1, request: Request::Connect(Box::default()) },
        Command { id: 2, request: Request::Subscribe(Box::new(subscribe)) },
    ])
}

fn frame(commands: &[Command]) -> Vec<u8> {
    let mut payload = Vec::new();
    for command in commands {
        protocol::encode_command(Codec::Json, command, &mut payload);
    }
    let mut bytes = Vec::new();
    encoder::client_frame(FrameKind::Text, &payload, [0; 4], &mut bytes);
    bytes
}
