//! Sends the commands of a cleanup; [`Cleanup`] holds its progress.
//!
//! Invariant: an answer counts only for the cleanup that requested it; any failure ends the
//! cleanup, and Redis assigns the task again.

use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::ClientInfo;

use super::answer;
use super::cleanup::Cleanup;
use super::clock::MonotonicTime;
use super::command::CleanupStep;
use super::link::Purpose;
use super::outputs::{CoreOutput, CoreOutputs};
use super::published_leaves::PublishedLeaves;
use super::resp::Frame;
use super::servers::{CoreTurn, FIRST, Servers};
use super::settings::RedisParts;

/// The cleanup that this node performs, if any.
pub(super) struct NodeCleanup {
    parts: RedisParts,
    current: Option<Cleanup>,
}

/// Whether a cleanup goes on after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CleanupProgress {
    Unfinished,
    /// The node is removed or has renewed its lease.
    Finished,
}

/// Offline reason of clients whose node has failed.
const NODE_LOST: &str = "node lost";

/// Offline reason of clients that were left when a node stopped.
const NODE_ENDED: &str = "shutdown";

impl NodeCleanup {
    pub(super) fn new(parts: RedisParts) -> NodeCleanup {
        NodeCleanup { parts, current: None }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.current.is_none()
    }

    /// A node's lease has expired, and Redis has assigned its cleanup to this node.
    pub(super) fn begin(&mut self, now: MonotonicTime, node: &str, servers: &mut Servers) {
        tracing::info!(%node, "Redis: the lease of a node has ended; cleaning up");
        let (number, count) = (servers.random_number(), servers.partitions.len());
        self.current = Some(Cleanup::new(number, node.to_owned(), count));
        self.request_channels(now, servers);
    }

    /// Removes this node at shutdown, with clients that have not left yet.
    pub(super) fn begin_own(&mut self, now: MonotonicTime, servers: &mut Servers) {
        let (number, node) = (servers.random_number(), servers.encoder.node.clone());
        self.current = Some(Cleanup::of_clients(number, node));
        self.clean_up(now, b"0", servers);
    }

    /// The answer to a command of a cleanup.
    pub(super) fn handle(
        &mut self,
        turn: &mut CoreTurn<'_>,
        purpose: &Purpose,
        frame: &Frame,
    ) -> CleanupProgress {
        let (Purpose::PresentChannels(number)
        | Purpose::Evict(number, _)
        | Purpose::CleanUp(number)) = purpose
        else {
            return CleanupProgress::Unfinished;
        };
        if self.current.as_ref().is_none_or(|cleanup| cleanup.number() != *number) {
            return CleanupProgress::Unfinished;
        }
        let now = turn.now.time;
        match purpose {
            Purpose::Evict(_, channel) => match EvictedPage::read(frame) {
                None => self.abandon(*number),
                Some(page) if !page.left.is_empty() => {
                    publish_left((*number, channel), page, turn.outputs);
                }
                Some(page) if &page.cursor[..] != b"0" => {
                    self.evict(now, channel, &page.cursor, turn.servers);
                }
                Some(_) => {
                    if self.current.as_mut().is_some_and(Cleanup::finish_channel) {
                        self.request_channels(now, turn.servers);
                    }
                }
            },
            Purpose::PresentChannels(_) => self.handle_channels(now, frame, turn.servers),
            _ => match frame.list() {
                Some([left, cursor]) if left.i64() > Some(0) => {
                    let cursor = cursor.text().cloned().unwrap_or_default();
                    self.clean_up(now, &cursor, turn.servers);
                }
                _ => {
                    if let Some(cleanup) = self.current.take() {
                        tracing::info!(node = cleanup.node(), "Redis: cleanup of a node done");
                    }
                    return CleanupProgress::Finished;
                }
            },
        }
        CleanupProgress::Unfinished
    }

    /// The leaves of these clients are published: removes the clients, and goes on.
    pub(super) fn remove_left(
        &mut self,
        now: MonotonicTime,
        leaves: &PublishedLeaves,
        servers: &mut Servers,
    ) {
        if self.current.as_ref().is_some_and(|cleanup| cleanup.number() == leaves.number) {
            self.send_evict(now, leaves, servers);
        }
    }

    /// A command of a cleanup has failed.
    pub(super) fn abandon(&mut self, number: u64) {
        if let Some(cleanup) = self.current.take_if(|cleanup| cleanup.number() == number) {
            tracing::info!(
                node = cleanup.node(),
                "Redis: cleanup of a node failed; it is tried again"
            );
        }
    }

    /// Reads the channels of the next partition in which the node's clients are present. Partitions
    /// without a usable server are skipped; presence expires there.
    fn request_channels(&mut self, now: MonotonicTime, servers: &mut Servers) {
        while let Some(cleanup) = &mut self.current
            && let Some(partition) = cleanup.partition()
        {
            let (purpose, node) = (Purpose::PresentChannels(cleanup.number()), cleanup.node());
            let is_sent = servers.write(now, partition, purpose, |_, target, out| {
                target.channels_of(node, out);
            });
            if is_sent {
                return;
            }
            cleanup.skip_partition();
        }
        self.clean_up(now, b"0", servers);
    }

    fn handle_channels(&mut self, now: MonotonicTime, frame: &Frame, servers: &mut Servers) {
        let Some(cleanup) = &mut self.current else { return };
        let channels = frame.list().unwrap_or_default();
        let has_channels = cleanup.begin_channels(channels.len());
        for channel in channels.iter().filter_map(Frame::str) {
            self.evict(now, &channel.into(), b"0", servers);
        }
        if !has_channels {
            self.request_channels(now, servers);
        }
    }

    fn evict(
        &mut self,
        now: MonotonicTime,
        channel: &Arc<str>,
        cursor: &[u8],
        servers: &mut Servers,
    ) {
        let Some(cleanup) = &self.current else { return };
        let step = PublishedLeaves {
            number: cleanup.number(),
            channel: channel.clone(),
            cursor: Bytes::copy_from_slice(cursor),
            clients: Vec::new(),
        };
        self.send_evict(now, &step, servers);
    }

    fn send_evict(&mut self, now: MonotonicTime, step: &PublishedLeaves, servers: &mut Servers) {
        let Some(cleanup) = &self.current else { return };
        let Some(partition) = cleanup.partition() else { return };
        let purpose = Purpose::Evict(cleanup.number(), step.channel.clone());
        let is_sent = servers.write(now, partition, purpose, |_, target, out| {
            target.evict((cleanup.node(), self.parts), step, out);
        });
        if !is_sent {
            self.current = None;
        }
    }

    fn clean_up(&mut self, now: MonotonicTime, cursor: &[u8], servers: &mut Servers) {
        let Some(cleanup) = &self.current else { return };
        let node = cleanup.node();
        let reason = if node == servers.encoder.node { NODE_ENDED } else { NODE_LOST };
        let purpose = Purpose::CleanUp(cleanup.number());
        let is_sent = servers.write(now, FIRST, purpose, |encoder, target, out| {
            encoder.clean_up(target, &CleanupStep { node, reason, cursor }, out);
        });
        if !is_sent {
            self.current = None;
        }
    }
}

/// The answer to one step of removing clients from a channel.
struct EvictedPage {
    cursor: Bytes,
    left: Vec<Arc<ClientInfo>>,
}

impl EvictedPage {
    /// `None` if the answer is malformed.
    fn read(frame: &Frame) -> Option<EvictedPage> {
        let [cursor, left] = frame.list()? else { return None };
        let left = left.list()?.iter().filter_map(answer::client).collect();
        Some(EvictedPage { cursor: cursor.text()?.clone(), left })
    }
}

/// Has the leaves published that remain to be. Their clients stay in Redis until that is confirmed,
/// so that each leave is published at least once, whatever fails.
fn publish_left((number, channel): (u64, &Arc<str>), page: EvictedPage, outputs: &mut CoreOutputs) {
    let clients = page.left.iter().map(|info| info.client.clone()).collect();
    for info in page.left {
        outputs.add(CoreOutput::Leave(channel.clone(), info));
    }
    let channel = channel.clone();
    let leaves = PublishedLeaves { number, channel, cursor: page.cursor, clients };
    outputs.add(CoreOutput::ConfirmLeaves(leaves));
}
