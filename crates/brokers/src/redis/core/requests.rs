//! Requests on their way to a server: sent at once, when there is room for their answers, or not at
//! all.
//!
//! Invariant: every question that is not carried out is answered, once.

use std::time::Instant;

use engine::broker::{BrokerError, BrokerReply, BrokerRequest};

use super::super::command::CommandTarget;
use super::super::exchange::LinkId;
use super::super::link::{OpenRequest, Purpose, SentCommand};
use super::super::pages;
use super::super::window::ReadWindow;
use super::{Core, reads};
use crate::limits::PARTITIONS;

impl Core {
    /// Sends a request, or fails it at once; one whose answer may be long waits for room.
    pub(super) fn send(&mut self, now: Instant, partition: usize, asked: OpenRequest) {
        let Some(up) = self.links.usable(self.partitions[partition].link) else {
            return self.fail(asked);
        };
        if up.window.is_empty() && !pages::is_long(&asked.request) {
            return self.write_request(now, partition, asked);
        }
        if let Some(asked) = up.window.admit(partition, asked) {
            self.write_request(now, partition, asked);
        }
    }

    /// There may be room for what waits.
    pub(super) fn send_waiting(&mut self, now: Instant, link: LinkId) {
        while let Some(up) = self.links.up(link)
            && let Some((partition, asked)) = up.window.next()
        {
            self.write_request(now, partition, asked);
        }
    }

    fn write_request(&mut self, now: Instant, partition: usize, asked: OpenRequest) {
        let is_last = match &asked.request {
            BrokerRequest::RemovePresence { channel, .. } => {
                !self.present.has_any(partition, channel)
            }
            _ => false,
        };
        let epoch = self.random.next_u64();
        // What has waited for room is not late because of that.
        let deadline = now + self.io_timeout;
        let Some(up) = self.links.usable(self.partitions[partition].link) else {
            return self.fail(asked);
        };
        let place = CommandTarget {
            keys: &self.keys,
            opened: &up.opened,
            partition: partition % PARTITIONS,
        };
        self.commander.request(place, epoch, is_last, &asked, &mut up.out);
        let reserved = ReadWindow::reserve(&asked);
        up.expect(SentCommand { partition, deadline, purpose: Purpose::Ask(asked), reserved });
        self.partitions[partition].in_flight += 1;
    }

    /// What becomes of a request that was not carried out, as far as is known.
    pub(super) fn fail(&mut self, asked: OpenRequest) {
        for follower in self.reads.end(&asked) {
            self.fail(follower);
        }
        if let Some(id) = asked.request.id() {
            return self.reply(asked.endpoint, id, Err(BrokerError::Unavailable));
        }
        match asked.request {
            BrokerRequest::RemovePresence { channel, client } => {
                let partition = self.route(&channel);
                self.present.remember_departure(partition, channel, client);
            }
            // At least here it is obeyed.
            BrokerRequest::Control(control) => {
                self.shared.endpoints.notify_order(&control);
            }
            _ => {}
        }
    }

    /// Whoever waits for a part of an answer gets it, or asks by itself when it does not hold that
    /// part.
    pub(super) fn answer_followers(
        &mut self,
        now: Instant,
        partition: usize,
        asked: &OpenRequest,
        result: &Result<BrokerReply, BrokerError>,
    ) {
        for follower in self.reads.end(asked) {
            let BrokerRequest::Subscribe { id, read, .. } = &follower.request else { continue };
            match reads::share(result, read) {
                Some(part) => self.reply(follower.endpoint, *id, part),
                None => self.send(now, partition, follower),
            }
        }
    }
}
