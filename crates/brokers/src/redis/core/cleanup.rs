//! Cleanup of a node whose lease has expired: first its clients' presence, partition by
//! partition, then the clients themselves.
//!
//! Invariant: an answer counts only for the cleanup that requested it; any failure ends the
//! cleanup, and Redis assigns the task again.

use std::sync::Arc;
use std::time::Instant;

use super::super::link::Purpose;
use super::super::resp::Frame;
use super::Core;
use super::nodes::FIRST;

/// A cleanup in progress.
pub(in crate::redis) struct Cleanup {
    number: u64,
    node: String,
    /// Partition whose channels are being cleaned up.
    partition: usize,
    /// Channels of that partition that remain.
    channels: usize,
}

/// Offline reason of clients whose node has failed.
const NODE_LOST: &str = "node lost";

/// Offline reason of clients that were left when a node stopped.
const NODE_ENDED: &str = "shutdown";

impl Core {
    /// The node's lease has expired, and Redis has assigned its cleanup to this node.
    pub(super) fn begin_cleanup(&mut self, now: Instant, node: &str) {
        tracing::info!(%node, "Redis: the lease of a node has ended; cleaning up");
        let number = self.random.next_u64();
        let node = node.to_owned();
        self.registry.cleanup = Some(Cleanup { number, node, partition: 0, channels: 0 });
        self.request_channels(now);
    }

    /// Removes this node from the registry at shutdown, with clients that have not left yet.
    pub(in crate::redis) fn leave_registry(&mut self, now: Instant) {
        self.send_lifecycle(now);
        if self.registry.is_member && self.registry.lifecycle.is_quiet() {
            self.registry.is_member = false;
            let (number, node) = (self.random.next_u64(), self.commander.node.clone());
            let partition = self.partitions.len();
            self.registry.cleanup = Some(Cleanup { number, node, partition, channels: 0 });
            self.clean_up(now, b"0");
        }
    }

    /// The answer to a command of a cleanup.
    pub(super) fn handle_cleanup(&mut self, now: Instant, purpose: &Purpose, frame: &Frame) {
        let (Purpose::PresentChannels(number)
        | Purpose::Evict(number, _)
        | Purpose::CleanUp(number)) = purpose
        else {
            return;
        };
        let Some(cleanup) = self.registry.cleanup.as_mut().filter(|one| one.number == *number)
        else {
            return;
        };
        match purpose {
            Purpose::Evict(_, channel) => match frame.text() {
                Some(cursor) if &cursor[..] != b"0" => {
                    let (channel, cursor) = (channel.clone(), cursor.clone());
                    self.evict(now, &channel, &cursor);
                }
                _ => {
                    cleanup.channels = cleanup.channels.saturating_sub(1);
                    self.continue_cleanup(now);
                }
            },
            Purpose::PresentChannels(_) => self.handle_channels(now, frame),
            _ => match frame.list() {
                Some([left, cursor]) if left.i64() > Some(0) => {
                    let cursor = cursor.text().cloned().unwrap_or_default();
                    self.clean_up(now, &cursor);
                }
                // The node is removed or has renewed its lease. Others may need a cleanup.
                _ => {
                    if let Some(Cleanup { node, .. }) = self.registry.cleanup.take() {
                        tracing::info!(%node, "Redis: cleanup of a node done");
                    }
                    self.registry.want_renewal(now);
                }
            },
        }
    }

    /// A command of a cleanup has failed.
    pub(super) fn abandon_cleanup(&mut self, number: u64) {
        if let Some(cleanup) = self.registry.cleanup.take_if(|cleanup| cleanup.number == number) {
            tracing::info!(node = %cleanup.node, "Redis: cleanup of a node failed; it is tried again");
        }
    }

    /// Reads the channels of the next partition in which the node's clients are present. Partitions
    /// without a usable server are skipped; presence expires there.
    fn request_channels(&mut self, now: Instant) {
        let count = self.partitions.len();
        while let Some(Cleanup { number, node, partition, .. }) = &self.registry.cleanup
            && *partition < count
        {
            let (number, node, partition) = (*number, node.clone(), *partition);
            let asked =
                self.write(now, partition, Purpose::PresentChannels(number), |_, place, out| {
                    place.channels_of(&node, out);
                });
            if asked {
                return;
            }
            if let Some(cleanup) = &mut self.registry.cleanup {
                cleanup.partition += 1;
            }
        }
        self.clean_up(now, b"0");
    }

    fn handle_channels(&mut self, now: Instant, frame: &Frame) {
        let Some(cleanup) = &mut self.registry.cleanup else { return };
        let channels = frame.list().unwrap_or_default();
        cleanup.channels = channels.len();
        for channel in channels.iter().filter_map(Frame::str) {
            self.evict(now, &channel.into(), b"0");
        }
        self.continue_cleanup(now);
    }

    fn evict(&mut self, now: Instant, channel: &Arc<str>, cursor: &[u8]) {
        let Some(Cleanup { number, node, partition, .. }) = &self.registry.cleanup else { return };
        let (number, node, partition) = (*number, node.clone(), *partition);
        let purpose = Purpose::Evict(number, channel.clone());
        let asked = self.write(now, partition, purpose, |_, place, out| {
            place.evict(&node, channel, cursor, out);
        });
        if !asked {
            self.registry.cleanup = None;
        }
    }

    /// Goes on to the next partition, or to the clients when all partitions are done.
    fn continue_cleanup(&mut self, now: Instant) {
        let done = self.registry.cleanup.as_mut().filter(|cleanup| cleanup.channels == 0);
        if let Some(cleanup) = done {
            cleanup.partition += 1;
            self.request_channels(now);
        }
    }

    fn clean_up(&mut self, now: Instant, cursor: &[u8]) {
        let Some(Cleanup { number, node, .. }) = &self.registry.cleanup else { return };
        let (number, node) = (*number, node.clone());
        let is_self = node == self.commander.node;
        let reason = if is_self { NODE_ENDED } else { NODE_LOST };
        let asked = self.write(now, FIRST, Purpose::CleanUp(number), |commander, place, out| {
            commander.clean_up(place, (&node, is_self), reason, cursor, out);
        });
        if !asked {
            self.registry.cleanup = None;
        }
    }
}
