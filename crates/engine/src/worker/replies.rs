//! The broker's replies to requests of this worker's sessions.
//!
//! Invariant: a reply that no session waits for any more changes nothing.

use super::Worker;
use crate::broker::{BrokerError, BrokerReply, JoinedStream, RequestId};
use crate::pending::PendingRead;
use crate::session::{join, queries};
use crate::time::Now;

impl Worker {
    pub(super) fn handle_reply(&mut self, now: Now, reply: BrokerReply) {
        match reply {
            BrokerReply::Subscribed(id, result) => self.handle_read(now, id, result),
            BrokerReply::Published(id, result) => {
                self.answer(now, id, |_| queries::published(result));
            }
            BrokerReply::Presence(id, result) => {
                self.answer(now, id, |queue_max| queries::clients(result, queue_max));
            }
            BrokerReply::PresenceStats(id, result) => {
                self.answer(now, id, |_| queries::stats(result));
            }
            BrokerReply::History(id, result) => {
                self.answer(now, id, |queue_max| queries::publications(result, queue_max));
            }
            // Replies to requests that sessions do not submit.
            BrokerReply::HistoryRemoved(..)
            | BrokerReply::ChannelTtl(..)
            | BrokerReply::Survey(..)
            | BrokerReply::Revoked(..)
            | BrokerReply::Revocation(..)
            | BrokerReply::Revocations(..) => {}
        }
    }

    /// Sends the reply to a client's command.
    fn answer<T>(
        &mut self,
        now: Now,
        id: RequestId<T>,
        body: impl FnOnce(usize) -> queries::CommandResult,
    ) {
        let Some(command) = self.out.pending.take_command(id) else { return };
        let key = command.session;
        self.with_session(now, key, |session, turn| {
            let result = body(turn.rules.client.queue_max_size);
            queries::handle_result(session, turn, command, result);
        });
        self.settle(now, key);
    }

    fn handle_read(
        &mut self,
        now: Now,
        id: RequestId<JoinedStream>,
        result: Result<JoinedStream, BrokerError>,
    ) {
        match self.out.pending.take_read(id) {
            Some(PendingRead::Join(key)) => {
                self.with_session(now, key, |session, turn| {
                    join::handle_read(session, turn, Some(id), result);
                });
                self.settle(now, key);
            }
            Some(PendingRead::Check { channel }) => {
                if let Ok(stream) = result
                    && let Some((slot, channel)) = self.hub.find(&channel)
                {
                    let gaps = &mut self.out.gaps;
                    channel.handle_position(now.monotonic_ms, slot, &stream.top, gaps);
                }
                self.remove_closing(now);
            }
            None => {}
        }
    }
}
