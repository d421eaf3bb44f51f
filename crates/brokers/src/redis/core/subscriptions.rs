//! What Redis is asked to deliver to this node, and what it refuses to deliver.
//!
//! Invariant: while a server refuses something of a partition, nobody is told that a channel of it
//! is subscribed to, and the node is not ready; both end only when what was refused is allowed, and
//! everything else of the partition as well.

use std::sync::Arc;
use std::time::Instant;

use engine::broker::{BrokerError, BrokerReply, BrokerRequest};

use super::super::exchange::LinkId;
use super::super::keys::PubSubName;
use super::super::link::{Fence, OpenRequest, SubscriptionChange};
use super::super::unavailable::UnavailableReason;
use super::{Core, is_retried};
use crate::limits::{NAMES_PER_COMMAND, PARTITIONS};

impl Core {
    /// Begins or ends hearing channels of one partition. What is not heard now, will be when the
    /// server is back. Gives the last fence behind that.
    pub(super) fn listen(
        &mut self,
        now: Instant,
        partition: usize,
        channels: &[Arc<str>],
        ear: SubscriptionChange,
    ) -> Option<u64> {
        let tag = partition % PARTITIONS;
        let names: Vec<String> =
            channels.iter().map(|channel| self.keys.key(tag, "c", channel)).collect();
        self.listen_names(now, partition, &names, ear)
    }

    /// The same for names at Redis.
    pub(super) fn listen_names(
        &mut self,
        now: Instant,
        partition: usize,
        names: &[String],
        ear: SubscriptionChange,
    ) -> Option<u64> {
        let up = self.links.up(self.partitions[partition].link?)?;
        let mut last = None;
        for names in names.chunks(NAMES_PER_COMMAND) {
            last = Some(up.listen(names, ear, partition, now + self.io_timeout));
            self.partitions[partition].in_flight += 1;
        }
        last
    }

    /// A command to hear was not carried out; its echo follows.
    pub(super) fn handle_unheard(&mut self, now: Instant, link: LinkId, text: &[u8]) {
        let Some(up) = self.links.up(link) else { return };
        let reason = UnavailableReason::of_answer(&up.opened.address, text);
        let Some((partition, fence)) = up.head_fence() else { return };
        fence.is_refused = true;
        let (ear, names) = (fence.ear, fence.names.clone());
        match ear {
            SubscriptionChange::Close => {}
            SubscriptionChange::Open | SubscriptionChange::Probe if is_retried(text) => {
                self.hold(now, partition, text).must_listen = true;
            }
            SubscriptionChange::Probe => up.refuse_probe(text),
            SubscriptionChange::Open => self.partitions[partition].refuse(now, names, reason),
        }
    }

    /// A command to hear, or not to, is behind this node.
    pub(super) fn handle_fence(
        &mut self,
        now: Instant,
        link: LinkId,
        partition: usize,
        fence: &Fence,
    ) {
        match fence.ear {
            _ if fence.is_refused => {}
            SubscriptionChange::Close => {}
            SubscriptionChange::Probe => {
                if let Some(up) = self.links.up(link) {
                    up.subscribe_refusal = None;
                }
            }
            SubscriptionChange::Open => {
                if self.partitions[partition].ends_retry(fence.number) {
                    let last = self.take_up(now, partition);
                    self.partitions[partition].begin_retry_of_all(last);
                }
            }
        }
    }

    /// What was refused may be allowed by now.
    pub(super) fn ask_again(&mut self, now: Instant, partition: usize) {
        let Some(names) = self.partitions[partition].refused_names(now) else { return };
        let Some(fence) = self.listen_names(now, partition, &names, SubscriptionChange::Open)
        else {
            return;
        };
        self.partitions[partition].begin_retry(fence);
        // Some may be of interest to nobody any more.
        let is_unheard = |name: &&String| match self.keys.pubsub_name(name) {
            Some(PubSubName::Channel(channel)) => {
                !self.subscriptions.has_subscribers(partition, channel)
            }
            _ => false,
        };
        let unheard: Vec<String> = names.iter().filter(is_unheard).cloned().collect();
        self.listen_names(now, partition, &unheard, SubscriptionChange::Close);
    }

    /// A channel that may not be heard is not subscribed to, whatever was read of its stream.
    pub(super) fn only_when_heard(
        &self,
        partition: usize,
        asked: &OpenRequest,
        result: Result<BrokerReply, BrokerError>,
    ) -> Result<BrokerReply, BrokerError> {
        let is_subscribe = matches!(asked.request, BrokerRequest::Subscribe { .. });
        match is_subscribe && self.partitions[partition].refusal.is_some() {
            true => Err(BrokerError::Unavailable),
            false => result,
        }
    }
}
