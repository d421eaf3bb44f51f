//! Sends the commands of a cleanup; [`Cleanup`] holds its progress.
//!
//! Invariant: an answer counts only for the cleanup that requested it; any failure ends the
//! cleanup, and Redis assigns the task again.

use std::sync::Arc;

use super::super::answer;
use super::super::cleanup::Cleanup;
use super::super::clock::MonotonicTime;
use super::super::command::CleanupStep;
use super::super::link::Purpose;
use super::super::outputs::CoreOutput;
use super::super::resp::Frame;
use super::RedisCore;
use super::nodes::FIRST;

/// Offline reason of clients whose node has failed.
const NODE_LOST: &str = "node lost";

/// Offline reason of clients that were left when a node stopped.
const NODE_ENDED: &str = "shutdown";

impl RedisCore {
    /// The node's lease has expired, and Redis has assigned its cleanup to this node.
    pub(super) fn begin_cleanup(&mut self, now: MonotonicTime, node: &str) {
        tracing::info!(%node, "Redis: the lease of a node has ended; cleaning up");
        let number = self.random.next_u64();
        self.registry.cleanup = Some(Cleanup::new(number, node.to_owned(), self.partitions.len()));
        self.request_channels(now);
    }

    /// Removes this node from the registry at shutdown, with clients that have not left yet.
    pub(in crate::redis) fn leave_registry(&mut self, now: MonotonicTime) {
        self.send_lifecycle(now);
        if self.registry.is_member && self.registry.lifecycle.is_quiet() {
            self.registry.is_member = false;
            let (number, node) = (self.random.next_u64(), self.encoder.node.clone());
            self.registry.cleanup = Some(Cleanup::of_clients(number, node));
            self.clean_up(now, b"0");
        }
    }

    /// The answer to a command of a cleanup.
    pub(super) fn handle_cleanup(&mut self, now: MonotonicTime, purpose: &Purpose, frame: &Frame) {
        let (Purpose::PresentChannels(number)
        | Purpose::Evict(number, _)
        | Purpose::CleanUp(number)) = purpose
        else {
            return;
        };
        let Some(cleanup) =
            self.registry.cleanup.as_mut().filter(|cleanup| cleanup.number() == *number)
        else {
            return;
        };
        match purpose {
            Purpose::Evict(_, channel) => {
                let [cursor, left] = frame.list().unwrap_or_default() else {
                    return self.abandon_cleanup(*number);
                };
                for client in left.list().into_iter().flatten().filter_map(answer::client) {
                    self.outputs.add(CoreOutput::Leave(channel.clone(), client));
                }
                match cursor.text() {
                    Some(cursor) if &cursor[..] != b"0" => {
                        self.evict(now, &channel.clone(), &cursor.clone());
                    }
                    _ => {
                        if cleanup.finish_channel() {
                            self.request_channels(now);
                        }
                    }
                }
            }
            Purpose::PresentChannels(_) => self.handle_channels(now, frame),
            _ => match frame.list() {
                Some([left, cursor]) if left.i64() > Some(0) => {
                    let cursor = cursor.text().cloned().unwrap_or_default();
                    self.clean_up(now, &cursor);
                }
                // The node is removed or has renewed its lease. Others may need a cleanup.
                _ => {
                    if let Some(cleanup) = self.registry.cleanup.take() {
                        tracing::info!(node = cleanup.node(), "Redis: cleanup of a node done");
                    }
                    self.registry.request_renewal(now);
                }
            },
        }
    }

    /// A command of a cleanup has failed.
    pub(super) fn abandon_cleanup(&mut self, number: u64) {
        if let Some(cleanup) = self.registry.cleanup.take_if(|cleanup| cleanup.number() == number) {
            tracing::info!(
                node = cleanup.node(),
                "Redis: cleanup of a node failed; it is tried again"
            );
        }
    }

    /// Reads the channels of the next partition in which the node's clients are present. Partitions
    /// without a usable server are skipped; presence expires there.
    fn request_channels(&mut self, now: MonotonicTime) {
        while let Some(cleanup) = &self.registry.cleanup
            && let Some(partition) = cleanup.partition()
        {
            let (number, node) = (cleanup.number(), cleanup.node().to_owned());
            let purpose = Purpose::PresentChannels(number);
            let is_sent = self.write(now, partition, purpose, |_, target, out| {
                target.channels_of(&node, out);
            });
            if is_sent {
                return;
            }
            if let Some(cleanup) = &mut self.registry.cleanup {
                cleanup.skip_partition();
            }
        }
        self.clean_up(now, b"0");
    }

    fn handle_channels(&mut self, now: MonotonicTime, frame: &Frame) {
        let Some(cleanup) = &mut self.registry.cleanup else { return };
        let channels = frame.list().unwrap_or_default();
        let has_channels = cleanup.begin_channels(channels.len());
        for channel in channels.iter().filter_map(Frame::str) {
            self.evict(now, &channel.into(), b"0");
        }
        if !has_channels {
            self.request_channels(now);
        }
    }

    fn evict(&mut self, now: MonotonicTime, channel: &Arc<str>, cursor: &[u8]) {
        let Some(cleanup) = &self.registry.cleanup else { return };
        let Some(partition) = cleanup.partition() else { return };
        let (number, node) = (cleanup.number(), cleanup.node().to_owned());
        let purpose = Purpose::Evict(number, channel.clone());
        let parts = self.parts;
        let is_sent = self.write(now, partition, purpose, |_, target, out| {
            target.evict((&node, parts), channel, cursor, out);
        });
        if !is_sent {
            self.registry.cleanup = None;
        }
    }

    fn clean_up(&mut self, now: MonotonicTime, cursor: &[u8]) {
        let Some(cleanup) = &self.registry.cleanup else { return };
        let (number, node) = (cleanup.number(), cleanup.node().to_owned());
        let reason = if node == self.encoder.node { NODE_ENDED } else { NODE_LOST };
        let is_sent = self.write(now, FIRST, Purpose::CleanUp(number), |encoder, target, out| {
            encoder.clean_up(target, &CleanupStep { node: &node, reason, cursor }, out);
        });
        if !is_sent {
            self.registry.cleanup = None;
        }
    }
}
