//! One client of a storm: a session whose socket may die at any time, and what it has received so
//! far.
//!
//! Invariant: publication `n` is taken only when it is the next one; anything else is noted as a
//! failure.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::client::{
    Event, Failure, Publication, SubscriptionOptions, SubscriptionState, TransportError,
};
use mio::{Registry, Token};
use socket2::SockRef;

use crate::link::Link;
use crate::plan::CHANNEL;

/// See the module.
pub(crate) struct Client {
    link: Link,
    began: Instant,
    /// Publications received, each once and in order.
    pub(crate) received: u64,
    pub(crate) failures: Vec<String>,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Nothing,
    /// The subscription is live, so long after dialling.
    Live(Duration),
    /// The server, or the kernel, ended the connection.
    Cut,
}

impl Client {
    pub(crate) fn new(number: u64) -> Client {
        let mut link = Link::new(number);
        let options = SubscriptionOptions { recoverable: true, ..SubscriptionOptions::default() };
        link.session.subscribe(Instant::now(), CHANNEL, options).expect("the first one");
        Client { link, began: Instant::now(), received: 0, failures: Vec::new() }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.link.session.subscription_state(CHANNEL) == Some(SubscriptionState::Subscribed)
    }

    /// Dials, unless it has a socket already.
    pub(crate) fn dial(
        &mut self,
        address: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> std::io::Result<()> {
        if self.link.is_lost() {
            self.began = Instant::now();
        }
        self.link.dial(address, registry, token)
    }

    /// The socket is gone, with a reset or with an end, but without a close frame.
    pub(crate) fn die(&mut self, by_reset: bool) {
        if let Some(stream) = self.link.stream.as_ref().filter(|_| by_reset) {
            // A socket that is not connected has nothing to reset.
            let _not_connected = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.link.give_up();
    }

    /// The socket may be written or read.
    pub(crate) fn handle(&mut self, buffer: &mut [u8]) -> Outcome {
        let was_lost = self.link.is_lost();
        let mut outcome = Outcome::Nothing;
        for event in self.link.handle(buffer) {
            if let Event::Subscribed { .. } = &event {
                outcome = Outcome::Live(self.began.elapsed());
            }
            self.handle_event(event);
        }
        if self.link.is_lost() && !was_lost { Outcome::Cut } else { outcome }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Subscribed { subscribed, .. } => {
                if subscribed.was_recovering && !subscribed.recovered {
                    self.failures.push(format!("not recovered after {}", self.received));
                }
            }
            Event::Publication { publication, .. } => self.take(&publication),
            // Refused by the kernel, which has not so many ports, or lost.
            Event::Failed(
                Failure::Closed(_)
                | Failure::Transport(TransportError::Io(_) | TransportError::Closed),
            )
            | Event::Connecting(_)
            | Event::Connected(_)
            | Event::Subscribing { .. } => {}
            other => self.failures.push(format!("{other:?}")),
        }
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
    }

    /// Publications that the server sent twice, or before the reply to a subscribe command.
    pub(crate) fn superfluous(&self) -> u64 {
        self.link.session.duplicates() + self.link.session.strays()
    }
}
