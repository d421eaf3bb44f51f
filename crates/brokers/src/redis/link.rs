//! What was asked of Redis over the connection that we have, and waits for its answer. No sockets are in here.
//!
//! Invariant: Redis answers in the order of the commands, and what it tells a listener stands between the answers where
//! it happened. From Redis 7.2 on what a command itself tells us follows its answer, though: so an answer to a
//! publication is held until the next answer, and a `PING` behind the last command makes sure that there is one.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use engine::broker::{BrokerError, BrokerEvent, BrokerReply, HistoryQuery, JoinRead, RequestId};
use tokio::time::Instant;

use super::connection::Scripts;
use super::present::Removal;
use super::resp;
use super::scripts::Script;
use crate::Inbox;
use crate::limits::{ANSWER_TIMEOUT, OUT_MAX, REQUESTS_MAX};

/// See the module.
pub(super) struct Link {
    pub(super) out: BytesMut,
    scripts: Scripts,
    waiting: VecDeque<(Instant, Waiting)>,
    held: Vec<(Asker, BrokerReply)>,
    needs_fence: bool,
    /// Of [`Waiting::Restored`] and [`Waiting::Proof`].
    pub(super) restoring: usize,
}

/// Who waits for an answer.
pub(super) struct Asker {
    pub(super) id: RequestId,
    pub(super) inbox: Arc<dyn Inbox>,
}

impl Asker {
    pub(super) fn answer(self, result: Result<BrokerReply, BrokerError>) {
        self.inbox.deliver(BrokerEvent::Reply { id: self.id, result });
    }
}

/// What comes of an answer of Redis.
pub(super) enum Waiting {
    /// Nothing.
    Nobody,
    /// A push that says that Redis has taken `SUBSCRIBE` or `UNSUBSCRIBE`.
    Ear,
    /// The answer is known, if Redis has one at all.
    Fixed(Asker, BrokerReply),
    /// That of [`Script::Read`].
    Joined(Asker, Arc<str>, JoinRead),
    /// That of [`Script::Read`].
    History(Asker, HistoryQuery),
    /// That of [`Script::Publish`], or the number of receivers.
    Published(Asker),
    /// That of [`Script::Clients`].
    Clients(Asker),
    /// That of [`Script::Stats`].
    Stats(Asker),
    /// To be done again when it fails.
    Removed(Removal),
    /// That of [`Script::Read`], for those who hear the channel.
    Proof(Arc<str>),
    /// Presence said again.
    Restored,
}

/// The connection is of no use any more.
#[derive(Debug)]
pub(super) struct Broken;

impl Waiting {
    fn restores(&self) -> bool {
        matches!(self, Waiting::Proof(_) | Waiting::Restored)
    }
}

impl Link {
    pub(super) fn new(scripts: Scripts) -> Link {
        Link {
            out: BytesMut::new(),
            scripts,
            waiting: VecDeque::new(),
            held: Vec::new(),
            needs_fence: false,
            restoring: 0,
        }
    }

    pub(super) fn ask(&mut self, words: &[&[u8]], waiting: Waiting) {
        resp::write_command(&mut self.out, words);
        self.needs_fence |= matches!(waiting, Waiting::Published(_));
        self.restoring += usize::from(waiting.restores());
        self.waiting.push_back((Instant::now(), waiting));
    }

    pub(super) fn run(
        &mut self,
        script: Script,
        keys: &[&str],
        arguments: &[&[u8]],
        waiting: Waiting,
    ) {
        let count = keys.len().to_string();
        let name = self.scripts.name(script).to_vec();
        let mut words: Vec<&[u8]> = vec![b"EVALSHA", &name, count.as_bytes()];
        words.extend(keys.iter().map(|key| key.as_bytes()));
        words.extend(arguments);
        self.ask(&words, waiting);
    }

    /// Ends a turn: every answer that is held will be let go.
    pub(super) fn fence(&mut self) {
        if std::mem::take(&mut self.needs_fence) {
            self.ask(&[b"PING"], Waiting::Nobody);
        }
    }

    /// Whether more may be asked.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() < OUT_MAX && self.waiting.len() < REQUESTS_MAX
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.out.is_empty() && self.waiting.is_empty()
    }

    /// When Redis has taken too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|(since, _)| *since + ANSWER_TIMEOUT)
    }

    /// For whom an answer is. Everything that it must not overtake has been delivered.
    pub(super) fn take(&mut self) -> Result<Waiting, Broken> {
        for (asker, reply) in self.held.drain(..) {
            asker.answer(Ok(reply));
        }
        let (_, waiting) = self.waiting.pop_front().ok_or(Broken)?;
        self.restoring -= usize::from(waiting.restores());
        Ok(waiting)
    }

    /// Redis says that it has taken `SUBSCRIBE` or `UNSUBSCRIBE`.
    pub(super) fn take_ear(&mut self) -> Result<(), Broken> {
        match self.waiting.pop_front() {
            Some((_, Waiting::Ear)) => Ok(()),
            _ => Err(Broken),
        }
    }

    pub(super) fn hold(&mut self, asker: Asker, reply: BrokerReply) {
        self.held.push((asker, reply));
    }

    /// The end: nobody waits in vain. Returns what must be done again.
    pub(super) fn fail(self) -> Vec<Removal> {
        for (asker, reply) in self.held {
            asker.answer(Ok(reply));
        }
        let mut removals = Vec::new();
        for (_, waiting) in self.waiting {
            match waiting {
                Waiting::Fixed(asker, _)
                | Waiting::Joined(asker, ..)
                | Waiting::History(asker, _)
                | Waiting::Published(asker)
                | Waiting::Clients(asker)
                | Waiting::Stats(asker) => asker.answer(Err(BrokerError::Unavailable)),
                Waiting::Removed(removal) => removals.push(removal),
                Waiting::Nobody | Waiting::Ear | Waiting::Proof(_) | Waiting::Restored => {}
            }
        }
        removals
    }
}

/// Whether an answer refuses because this connection is not what it was: the server restarts, has become a replica, or
/// has forgotten the scripts.
pub(super) fn is_broken(refusal: &[u8]) -> bool {
    let causes: [&[u8]; 5] = [b"NOSCRIPT", b"READONLY", b"LOADING", b"MASTERDOWN", b"NOAUTH"];
    causes.iter().any(|cause| refusal.starts_with(cause))
}
