//! Sends requests: at once, after waiting for room for a long reply, or not at all.
//!
//! Invariant: every request that is not executed gets exactly one error reply.

use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, BrokerRequest, NodeBusRequest, PresenceRequest,
    PublicationsRequest,
};

use super::super::clock::MonotonicTime;
use super::super::command::{CommandTarget, RemainingClients, RequestContext};
use super::super::driver_messages::LinkId;
use super::super::link::{Purpose, SentCommand};
use super::super::open_request::OpenRequest;
use super::super::pages;
use super::super::window::ReadWindow;
use super::{RedisCore, reads};
use crate::limits::PARTITIONS;

impl RedisCore {
    /// Sends a request or fails it at once; a request with a long reply may wait for room.
    pub(super) fn send(&mut self, now: MonotonicTime, partition: usize, pending: OpenRequest) {
        let Some(connection) = self.links.usable(self.partitions[partition].link) else {
            return self.fail(pending);
        };
        if connection.window.is_empty() && !pages::is_long(&pending.request) {
            return self.write_request(now, partition, pending);
        }
        if let Some(pending) = connection.window.admit(partition, pending) {
            self.write_request(now, partition, pending);
        }
    }

    /// Sends waiting requests while there is room for their replies.
    pub(super) fn send_waiting(&mut self, now: MonotonicTime, link: LinkId) {
        while let Some(connection) = self.links.connection(link)
            && let Some((partition, pending)) = connection.window.next()
        {
            self.write_request(now, partition, pending);
        }
    }

    fn write_request(&mut self, now: MonotonicTime, partition: usize, pending: OpenRequest) {
        let remaining_clients = match &pending.request {
            BrokerRequest::Presence(PresenceRequest::Remove { channel, .. })
                if !self.present.has_any(partition, channel) =>
            {
                RemainingClients::None
            }
            _ => RemainingClients::Some,
        };
        let context = RequestContext { unused_epoch: self.random.next_u64(), remaining_clients };
        // Waiting for room does not count against the deadline.
        let deadline = now + self.io_timeout;
        let Some(connection) = self.links.usable(self.partitions[partition].link) else {
            return self.fail(pending);
        };
        let target = CommandTarget {
            keys: &self.keys,
            opened: &connection.opened,
            partition: partition % PARTITIONS,
        };
        self.encoder.request(target, context, &pending, &mut connection.out);
        let reserved = ReadWindow::reserve(&pending);
        connection.expect(SentCommand {
            partition,
            deadline,
            purpose: Purpose::Request(pending),
            reserved,
        });
        self.partitions[partition].in_flight += 1;
    }

    /// Fails a request that was not executed, as far as is known.
    pub(super) fn fail(&mut self, pending: OpenRequest) {
        for follower in self.reads.end(&pending) {
            self.fail(follower);
        }
        if let Some(reply) = pending.request.refuse(BrokerError::Unavailable) {
            return self.reply(pending.endpoint, reply);
        }
        match pending.request {
            BrokerRequest::Presence(PresenceRequest::Remove { channel, client }) => {
                let partition = self.route(&channel);
                self.present.remember_departure(partition, channel, client);
            }
            // The local endpoints still receive it.
            BrokerRequest::NodeBus(NodeBusRequest::Control(control)) => {
                self.outputs.notify(BrokerEvent::Control(control));
            }
            _ => {}
        }
    }

    /// Answers requests that wait for the same read. A follower whose part is not in the reply is
    /// sent by itself.
    pub(super) fn answer_followers(
        &mut self,
        now: MonotonicTime,
        partition: usize,
        pending: &OpenRequest,
        reply: &BrokerReply,
    ) {
        let BrokerReply::Subscribed(_, result) = reply else { return };
        for follower in self.reads.end(pending) {
            let BrokerRequest::Publications(PublicationsRequest::Subscribe { id, read, .. }) =
                &follower.request
            else {
                continue;
            };
            match reads::share(result, read) {
                Some(part) => self.reply(follower.endpoint, id.answer(part)),
                None => self.send(now, partition, follower),
            }
        }
    }
}
