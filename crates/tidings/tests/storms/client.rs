//! One client of a storm: a socket that may die at any time, and what it has received so far.
//!
//! Invariant: publication `n` is taken only when it is the next one; anything else is noted as a failure.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use socket2::SockRef;
use wire::protocol::{
    Command, Publication, PushEvent, Reply, ReplyBody, Request, StreamPosition, SubscribeRequest,
    SubscribeResult,
};
use wire::websocket::deflate::Inflater;

use crate::link::{Link, Said};
use crate::plan::CHANNEL;

/// See the module.
pub(crate) struct Client {
    number: u64,
    link: Option<Link>,
    began: Instant,
    is_live: bool,
    position: Option<StreamPosition>,
    /// Publications received, each once and in order.
    pub(crate) received: u64,
    pub(crate) failures: Vec<String>,
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
        Client {
            number,
            link: None,
            began: Instant::now(),
            is_live: false,
            position: None,
            received: 0,
            failures: Vec::new(),
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.is_live
    }

    /// Dials, unless it has a socket already.
    pub(crate) fn dial(
        &mut self,
        address: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> std::io::Result<()> {
        if self.link.is_none() {
            self.link = Some(Link::dial(address, self.number, registry, token)?);
            self.began = Instant::now();
        }
        Ok(())
    }

    /// The socket is gone, with a reset or with an end, but without a word.
    pub(crate) fn die(&mut self, by_reset: bool) {
        self.is_live = false;
        if let Some(link) = self.link.take()
            && by_reset
        {
            // A socket that is not connected has nothing to reset.
            let _not_connected = SockRef::from(&link.stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// The socket may be written or read.
    pub(crate) fn handle(&mut self, buffer: &mut [u8], inflater: &mut Inflater) -> News {
        let Some(link) = &mut self.link else { return News::Nothing };
        let mut news = News::Nothing;
        for said in link.read(buffer, inflater) {
            match self.handle_said(said) {
                News::Nothing => {}
                News::Cut => {
                    (self.link, self.is_live) = (None, false);
                    return News::Cut;
                }
                live @ News::Live(_) => news = live,
            }
        }
        news
    }

    fn handle_said(&mut self, said: Said) -> News {
        match said {
            Said::Open => self.send(&join(self.position.as_ref())),
            Said::Reply(reply) => self.handle_reply(reply),
            Said::Ended { reason, .. } => {
                // Refused by the server, and not by the kernel, which has not so many ports.
                if reason.starts_with("HTTP/") {
                    self.failures.push(reason);
                }
                News::Cut
            }
        }
    }

    fn send(&mut self, commands: &[Command]) -> News {
        match self.link.as_mut().map(|link| link.send(commands)) {
            Some(Ok(())) => News::Nothing,
            _ => News::Cut,
        }
    }

    fn handle_reply(&mut self, reply: Reply) -> News {
        match reply.body {
            ReplyBody::Ping => self.send(&[Command { id: 0, request: Request::Pong }]),
            ReplyBody::Subscribe(result) => self.begin(&result),
            ReplyBody::Push(push) => match push.event {
                PushEvent::Publication(publication) => {
                    self.take(&publication);
                    News::Nothing
                }
                other => {
                    self.failures.push(format!("pushed {other:?}"));
                    News::Cut
                }
            },
            ReplyBody::Error(error) => {
                self.failures.push(format!("error {} {}", error.code, error.message));
                News::Cut
            }
            _ => News::Nothing,
        }
    }

    fn begin(&mut self, result: &SubscribeResult) -> News {
        if self.position.is_some() && !result.recovered {
            self.failures.push(format!("not recovered after {}", self.received));
        }
        let StreamPosition { offset, .. } = self.position.clone().unwrap_or_default();
        self.position = Some(StreamPosition { offset, epoch: result.epoch.clone() });
        result.publications.iter().for_each(|publication| self.take(publication));
        self.is_live = true;
        News::Live(self.began.elapsed())
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

/// Connect and subscribe, from where it was.
fn join(position: Option<&StreamPosition>) -> [Command; 2] {
    let StreamPosition { offset, epoch } = position.cloned().unwrap_or_default();
    let subscribe = SubscribeRequest {
        channel: CHANNEL.to_owned(),
        recover: position.is_some(),
        recoverable: true,
        epoch,
        offset,
        ..SubscribeRequest::default()
    };
    [
        Command { id: 1, request: Request::Connect(Box::default()) },
        Command { id: 2, request: Request::Subscribe(Box::new(subscribe)) },
    ]
}
