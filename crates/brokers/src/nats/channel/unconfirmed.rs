//! Publications without the stream whose arrival at the server is not certain yet.
//!
//! Invariant: each is answered once, when an echo that was sent after it has returned and the
//! subscribers of this node have what arrived before the echo, when the echo has failed, or when
//! its publisher does not wait any longer.

use std::collections::VecDeque;
use std::time::Instant;

use engine::broker::BrokerError;
use wire::protocol::StreamPosition;

use super::ChannelAction;
use crate::nats::request::ReplyHandle;

/// Publications without the stream that were handed to the connection, in their order. An echo that
/// was sent after them shows that the server has handled them.
#[derive(Default)]
pub(super) struct UnconfirmedPublications {
    /// Each with the number of its echo; bounded by [`crate::limits::REQUESTS_MAX`].
    waiting: VecDeque<(u64, ReplyHandle<StreamPosition>)>,
    /// Those whose echo has returned, with the mark of the messages that had arrived then.
    confirmed: VecDeque<(u64, ReplyHandle<StreamPosition>)>,
    /// Number of the next echo.
    next: u64,
    /// The next echo has publications to confirm.
    is_wanted: bool,
}

impl UnconfirmedPublications {
    /// Adds a publication that was handed to the connection.
    pub(super) fn add(&mut self, reply: ReplyHandle<StreamPosition>) {
        self.waiting.push_back((self.next, reply));
        self.is_wanted = true;
    }

    /// Drops all publications, which replies that the broker is unavailable. The outcomes of their
    /// echoes do not matter any longer.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.confirmed.clear();
        self.is_wanted = false;
    }

    /// Asks for one echo for all publications since the last one.
    pub(super) fn poll_confirm(&mut self) -> Option<ChannelAction> {
        if !std::mem::take(&mut self.is_wanted) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        Some(ChannelAction::Confirm { number })
    }

    /// Handles the outcome of an echo. One that has returned confirms what was sent before the
    /// earlier echoes too; `arrived` marks the messages that have come before it.
    pub(super) fn handle(&mut self, number: u64, result: Result<(), BrokerError>, arrived: u64) {
        if let Err(error) = result {
            let waiting = std::mem::take(&mut self.waiting).into_iter();
            let (failed, others) = waiting.partition(|(echo, _)| *echo == number);
            self.waiting = others;
            let failed: VecDeque<_> = failed;
            return failed.into_iter().for_each(|(_, reply)| reply.send(Err(error)));
        }
        while let Some((_, reply)) = self.waiting.pop_front_if(|(echo, _)| *echo <= number) {
            self.confirmed.push_back((arrived, reply));
        }
    }

    /// Answers the confirmed publications that the subscribers have.
    pub(super) fn answer(&mut self, has_delivered: impl Fn(u64) -> bool) {
        while let Some((_, reply)) =
            self.confirmed.pop_front_if(|(arrived, _)| has_delivered(*arrived))
        {
            reply.send(Ok(StreamPosition::default()));
        }
    }

    /// Drops the publications whose publisher does not wait any longer, which replies that the
    /// broker is unavailable.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.waiting.pop_front_if(|(_, reply)| reply.due() <= now).is_some() {}
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.waiting.front().map(|(_, reply)| reply.due())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.confirmed.is_empty() && !self.is_wanted
    }
}
