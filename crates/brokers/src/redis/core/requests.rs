//! Accepts and sends requests: at once, after waiting for room for a long reply, or not at all.
//!
//! Invariant: every request that is not executed gets exactly one error reply.

use std::ops::ControlFlow;
use std::sync::Arc;

use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, Membership, PresenceRequest, PublicationsRequest,
};
use engine::revocation::Revocation;
use wire::protocol::ClientInfo;

use super::super::clock::MonotonicTime;
use super::super::command_request::{CommandRequest, PublishCommand, RedisRequest};
use super::super::driver_messages::LinkId;
use super::super::link::{Purpose, SubscriptionChange};
use super::super::open_request::{Asker, OpenRequest};
use super::super::orders::OrderReturn;
use super::super::outputs::{CoreOutput, EndpointStates};
use super::super::resp::Frame;
use super::super::revocation_read::{RevocationPart, RevocationRead};
use super::super::servers::FIRST;
use super::super::settings::RedisParts;
use super::super::shared_reads;
use super::super::stream_range::meta_ttl_ms;
use super::RedisCore;
use crate::Endpoint;

impl RedisCore {
    /// Carries out a request of an endpoint.
    pub(super) fn accept(
        &mut self,
        now: MonotonicTime,
        endpoint: Endpoint,
        request: RedisRequest,
        endpoints: &dyn EndpointStates,
    ) {
        match request {
            RedisRequest::Command(command) => {
                self.accept_command(now, endpoint, command, endpoints);
            }
            RedisRequest::Unsubscribe { channel } => self.unsubscribe(now, endpoint, &channel),
            RedisRequest::Lifecycle(event) => self.registry.lifecycle.note(endpoint, event),
            RedisRequest::Survey { id, question } => {
                let (_, surveys, mut turn) = self.node_parts(now);
                surveys.ask(&mut turn, Asker { endpoint, id }, &question);
            }
            RedisRequest::ReadRevocations { id } => {
                let reading = RevocationRead::new(Asker { endpoint, id });
                self.read_revocations(now, reading, b"0");
            }
        }
    }

    /// Updates local state, then sends the request or holds it while its partition moves.
    fn accept_command(
        &mut self,
        now: MonotonicTime,
        endpoint: Endpoint,
        request: CommandRequest,
        endpoints: &dyn EndpointStates,
    ) {
        let partition = request.channel().map_or(FIRST, |channel| self.servers.route(channel));
        if self.servers.is_congested(partition)
            && self.note_congested((endpoint, partition), &request).is_break()
        {
            return;
        }
        if self.note(now, (endpoint, partition), &request, endpoints).is_break() {
            return;
        }
        let pending = OpenRequest::new(endpoint, request, self.servers.deadline(now));
        let Some(pending) = self.reads.follow(pending) else { return };
        match &mut self.servers.partitions[partition].hold {
            Some(hold) => hold.push(pending),
            None => self.send(now, partition, pending),
        }
    }

    /// Refuses a request while too much is pending. What cannot be refused becomes state, which is
    /// sent later: memory is bounded by what the endpoints have, however often clients join and
    /// leave. Breaks if the request is not to be sent.
    fn note_congested(
        &mut self,
        (endpoint, partition): (Endpoint, usize),
        request: &CommandRequest,
    ) -> ControlFlow<()> {
        if let Some(reply) = request.refuse(BrokerError::Overloaded) {
            self.outputs.reply(endpoint, reply);
            return ControlFlow::Break(());
        }
        match request {
            CommandRequest::Presence(request) => {
                self.present.postpone(partition, endpoint, request);
                ControlFlow::Break(())
            }
            // Joins and leaves are not promised.
            CommandRequest::Announce { .. } => ControlFlow::Break(()),
            CommandRequest::LimitTtl { channel, .. } => {
                let is_needed = self.subscriptions.has_subscribers(partition, channel)
                    && self.expirations.ttl_ms(channel).is_none();
                if is_needed { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }
            // Few, and not to be lost.
            _ => ControlFlow::Continue(()),
        }
    }

    /// Applies a request to subscriptions, expirations and presence; breaks if it is not to be
    /// sent.
    fn note(
        &mut self,
        now: MonotonicTime,
        (endpoint, partition): (Endpoint, usize),
        request: &CommandRequest,
        endpoints: &dyn EndpointStates,
    ) -> ControlFlow<()> {
        match request {
            CommandRequest::Subscribe { channel, read, .. } => {
                if !endpoints.is_attached(endpoint) {
                    return ControlFlow::Break(());
                }
                if self.subscriptions.add(partition, channel, endpoint, meta_ttl_ms(read)) {
                    let (names, open) = (std::slice::from_ref(channel), SubscriptionChange::Open);
                    self.servers.update_subscriptions(now, partition, names, open);
                }
            }
            CommandRequest::LimitTtl { channel, ttl_ms } => {
                self.expirations.limit(channel, *ttl_ms);
            }
            CommandRequest::Publish(PublishCommand { id, channel, .. })
                if self.subscriptions.is_full(partition, channel, endpoints) =>
            {
                self.outputs.reply(endpoint, id.answer(Err(BrokerError::Overloaded)));
                return ControlFlow::Break(());
            }
            CommandRequest::Presence(request) => self.present.accept(partition, endpoint, request),
            CommandRequest::Control(order) => self.orders.begin(order),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn unsubscribe(&mut self, now: MonotonicTime, endpoint: Endpoint, channel: &Arc<str>) {
        let partition = self.servers.route(channel);
        if self.subscriptions.remove(partition, channel, endpoint) {
            self.close_channel(now, partition, channel);
        }
    }

    /// A channel has no subscribers any more.
    fn close_channel(&mut self, now: MonotonicTime, partition: usize, channel: &Arc<str>) {
        self.reads.close(channel);
        self.expirations.forget(channel);
        let (names, close) = (std::slice::from_ref(channel), SubscriptionChange::Close);
        self.servers.update_subscriptions(now, partition, names, close);
    }

    pub(super) fn detach(
        &mut self,
        now: MonotonicTime,
        endpoint: Endpoint,
        endpoints: &dyn EndpointStates,
    ) {
        for (partition, channel) in self.subscriptions.remove_endpoint(endpoint) {
            self.close_channel(now, partition, &channel);
        }
        for (channel, client, announces) in self.present.of_endpoint(endpoint) {
            let (of, info) = (channel.clone(), client.clone());
            let left = CommandRequest::Presence(PresenceRequest::Remove { channel, client });
            self.accept_command(now, endpoint, left, endpoints);
            if announces {
                self.announce_leave(now, endpoint, (of, info), endpoints);
            }
        }
        self.registry.lifecycle.forget(endpoint, self.unix_ms);
    }

    fn announce_leave(
        &mut self,
        now: MonotonicTime,
        endpoint: Endpoint,
        (channel, info): (Arc<str>, Arc<ClientInfo>),
        endpoints: &dyn EndpointStates,
    ) {
        match self.parts {
            RedisParts::Presence => self.outputs.add(CoreOutput::Leave(channel, info)),
            RedisParts::All => {
                let change = Membership::Leave;
                let announcement = PublicationsRequest::Announce { channel, info, change };
                self.accept(now, endpoint, announcement.into(), endpoints);
            }
        }
    }

    /// Sends a request or fails it at once; a request with a long reply may wait for room.
    pub(super) fn send(&mut self, now: MonotonicTime, partition: usize, pending: OpenRequest) {
        if let Some(pending) = self.servers.admit(partition, pending) {
            self.write_request(now, partition, pending);
        }
    }

    /// Sends waiting requests while there is room for their replies.
    pub(super) fn send_waiting(&mut self, now: MonotonicTime, link: LinkId) {
        while let Some((partition, pending)) = self.servers.next_waiting(link) {
            self.write_request(now, partition, pending);
        }
    }

    fn write_request(&mut self, now: MonotonicTime, partition: usize, pending: OpenRequest) {
        if let Some(unsent) = self.servers.write_request(now, partition, pending, &self.present) {
            self.fail(unsent);
        }
    }

    /// Fails a request that was sent and may have been executed. Earlier ones that the server did
    /// not execute are not sent again, since they would take effect out of order.
    pub(super) fn fail_unknown(&mut self, pending: OpenRequest) {
        if let Some(channel) = pending.request.channel() {
            let partition = self.servers.route(channel);
            for overtaken in self.servers.partitions[partition].take_overtaken(&pending) {
                self.fail(overtaken);
            }
        }
        self.fail(pending);
    }

    /// Fails a request that was not executed, as far as is known.
    pub(super) fn fail(&mut self, pending: OpenRequest) {
        for follower in self.reads.end(&pending) {
            self.fail(follower);
        }
        if let Some(reply) = pending.request.refuse(BrokerError::Unavailable) {
            return self.outputs.reply(pending.endpoint, reply);
        }
        match pending.request {
            CommandRequest::Presence(PresenceRequest::Remove { channel, client }) => {
                let partition = self.servers.route(&channel);
                self.present.remember_departure(partition, channel, client);
            }
            CommandRequest::Control(order) if self.orders.end(&order) == OrderReturn::Missing => {
                self.outputs.notify(BrokerEvent::Control(order));
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
            let CommandRequest::Subscribe { id, read, .. } = &follower.request else { continue };
            match shared_reads::share(result, read) {
                Some(part) => self.outputs.reply(follower.endpoint, id.answer(part)),
                None => self.send(now, partition, follower),
            }
        }
    }

    /// Reads a part of the revocations.
    fn read_revocations(&mut self, now: MonotonicTime, reading: RevocationRead, cursor: &[u8]) {
        if !self.servers.can_write(FIRST) {
            return self.outputs.answer(&reading.asker, Err(BrokerError::Unavailable));
        }
        let purpose = Purpose::Revocations(Box::new(reading));
        // Whether it can be written was asked before.
        let _written = self.servers.write(now, FIRST, purpose, |_, target, out| {
            target.read_revocations(cursor, out);
        });
    }

    /// Handles one part: a cursor, and pairs of subject and change. `HSCAN` may return an entry
    /// twice.
    pub(super) fn handle_revocations(
        &mut self,
        now: MonotonicTime,
        mut reading: RevocationRead,
        frame: &Frame,
    ) {
        let result: Result<Vec<Arc<Revocation>>, BrokerError> =
            match reading.take_part(frame, self.unix_ms.div_euclid(1000)) {
                None => Err(BrokerError::Unavailable),
                Some(RevocationPart::More(cursor)) => {
                    return self.read_revocations(now, reading, &cursor);
                }
                Some(RevocationPart::Last) => Ok(std::mem::take(&mut reading.found)),
            };
        self.outputs.answer(&reading.asker, result);
    }
}
