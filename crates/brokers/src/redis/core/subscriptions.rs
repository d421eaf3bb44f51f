//! Subscriptions of this node at Redis, and the handling of refused ones.
//!
//! Invariant: while a server refuses a subscription in a partition, no subscribe request in it
//! succeeds and the node is not ready. Both end only when every channel of the partition is
//! subscribed.

use std::sync::Arc;

use engine::broker::{BrokerError, BrokerReply};

use super::super::clock::MonotonicTime;
use super::super::driver_messages::LinkId;
use super::super::error_reply::is_retried;
use super::super::keys::PubSubName;
use super::super::link::{Fence, SubscriptionChange};
use super::super::unavailable::UnavailableReason;
use super::RedisCore;
use crate::limits::{NAMES_PER_COMMAND, PARTITIONS};

impl RedisCore {
    /// Subscribes to channels of one partition, or unsubscribes. While the server is down nothing
    /// is sent; the reconnect subscribes everything. Returns the number of the last fence.
    pub(super) fn update_subscriptions(
        &mut self,
        now: MonotonicTime,
        partition: usize,
        channels: &[Arc<str>],
        change: SubscriptionChange,
    ) -> Option<u64> {
        let tag = partition % PARTITIONS;
        let names: Vec<String> =
            channels.iter().map(|channel| self.keys.key(tag, "c", channel)).collect();
        self.update_named_subscriptions(now, partition, &names, change)
    }

    /// Like [`RedisCore::update_subscriptions`], with pub/sub names.
    pub(super) fn update_named_subscriptions(
        &mut self,
        now: MonotonicTime,
        partition: usize,
        names: &[String],
        change: SubscriptionChange,
    ) -> Option<u64> {
        let connection = self.links.connection(self.partitions[partition].link?)?;
        let mut last = None;
        for names in names.chunks(NAMES_PER_COMMAND) {
            last = Some(connection.update_subscriptions(
                names,
                change,
                partition,
                now + self.io_timeout,
            ));
            self.partitions[partition].in_flight += 1;
        }
        last
    }

    /// A subscription command was refused; the reply to its ECHO follows.
    pub(super) fn handle_subscribe_refused(
        &mut self,
        now: MonotonicTime,
        link: LinkId,
        text: &[u8],
    ) {
        let Some(connection) = self.links.connection(link) else { return };
        let reason = UnavailableReason::of_answer(&connection.opened.address, text);
        let Some((partition, fence)) = connection.head_fence() else { return };
        fence.is_refused = true;
        let (change, names) = (fence.change, fence.names.clone());
        match change {
            SubscriptionChange::Close => {}
            SubscriptionChange::Open | SubscriptionChange::Probe if is_retried(text) => {
                self.hold(now, partition, text).must_resubscribe = true;
            }
            SubscriptionChange::Probe => connection.refuse_probe(text),
            SubscriptionChange::Open => self.partitions[partition].refuse(now, names, reason),
        }
    }

    /// The fence after a subscription command has been reached.
    pub(super) fn handle_fence(
        &mut self,
        now: MonotonicTime,
        link: LinkId,
        partition: usize,
        fence: &Fence,
    ) {
        match fence.change {
            _ if fence.is_refused => {}
            SubscriptionChange::Close => {}
            SubscriptionChange::Probe => {
                if let Some(connection) = self.links.connection(link) {
                    connection.subscribe_refusal = None;
                }
            }
            SubscriptionChange::Open => {
                if self.partitions[partition].ends_retry(fence.number) {
                    let last = self.restore(now, partition);
                    self.partitions[partition].begin_retry_of_all(last);
                }
            }
        }
    }

    /// Retries refused subscriptions when a retry is due.
    pub(super) fn retry_refused(&mut self, now: MonotonicTime, partition: usize) {
        let Some(names) = self.partitions[partition].refused_names(now) else { return };
        let Some(fence) =
            self.update_named_subscriptions(now, partition, &names, SubscriptionChange::Open)
        else {
            return;
        };
        self.partitions[partition].begin_retry(fence);
        // Some of these channels may have lost their last subscriber.
        let is_unheard = |name: &&String| match self.keys.pubsub_name(name) {
            Some(PubSubName::Channel(channel)) => {
                !self.subscriptions.has_subscribers(partition, channel)
            }
            _ => false,
        };
        let unheard: Vec<String> = names.iter().filter(is_unheard).cloned().collect();
        self.update_named_subscriptions(now, partition, &unheard, SubscriptionChange::Close);
    }

    /// Fails a subscribe request while its partition has refused subscriptions, whatever the read
    /// of its stream returned.
    pub(super) fn require_subscribed(&self, partition: usize, reply: BrokerReply) -> BrokerReply {
        match reply {
            BrokerReply::Subscribed(id, _) if self.partitions[partition].refusal.is_some() => {
                id.answer(Err(BrokerError::Unavailable))
            }
            reply => reply,
        }
    }
}
