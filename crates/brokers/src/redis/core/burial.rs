//! A node whose lease has ended, and this one, which clears away what it left: first its clients' presence, partition by
//! partition, then the clients themselves.
//!
//! Invariant: an answer counts for the burial that asked for it and for no other; whatever goes wrong ends the burial, and
//! Redis gives the task to somebody again.

use std::sync::Arc;
use std::time::Instant;

use super::super::link::Purpose;
use super::super::resp::Frame;
use super::Core;
use super::nodes::FIRST;

/// See the module.
pub(in crate::redis) struct Burial {
    number: u64,
    node: String,
    /// The partition whose channels the node's clients leave now.
    partition: usize,
    /// Channels of that partition that are not done.
    channels: usize,
}

/// Why clients of a node that was not there any more are offline.
const NODE_LOST: &str = "node lost";

/// Why those are that were left when a node ended.
const NODE_ENDED: &str = "shutdown";

impl Core {
    /// The node's lease has ended; it is for this one to see to what it left.
    pub(super) fn begin_burial(&mut self, now: Instant, node: &str) {
        tracing::info!(%node, "Redis: the lease of a node has ended; cleaning up");
        let number = self.random.next_u64();
        let node = node.to_owned();
        self.registry.burial = Some(Burial { number, node, partition: 0, channels: 0 });
        self.ask_haunts(now);
    }

    /// This node ends. Its clients have left; what is left all the same goes with it.
    pub(in crate::redis) fn leave_registry(&mut self, now: Instant) {
        self.tell_news(now);
        if self.registry.is_member && self.registry.news.is_quiet() {
            self.registry.is_member = false;
            let (number, node) = (self.random.next_u64(), self.commander.node.clone());
            let partition = self.partitions.len();
            self.registry.burial = Some(Burial { number, node, partition, channels: 0 });
            self.bury(now, b"0");
        }
    }

    /// What became of a command of a burial.
    pub(super) fn handle_buried(&mut self, now: Instant, purpose: &Purpose, frame: &Frame) {
        let (Purpose::Haunts(number) | Purpose::Evict(number, _) | Purpose::Bury(number)) = purpose
        else {
            return;
        };
        let Some(burial) = self.registry.burial.as_mut().filter(|one| one.number == *number) else {
            return;
        };
        match purpose {
            Purpose::Evict(_, channel) => match frame.text() {
                Some(cursor) if &cursor[..] != b"0" => {
                    let (channel, cursor) = (channel.clone(), cursor.clone());
                    self.evict(now, &channel, &cursor);
                }
                _ => {
                    burial.channels = burial.channels.saturating_sub(1);
                    self.go_on_burying(now);
                }
            },
            Purpose::Haunts(_) => self.handle_haunts(now, frame),
            _ => match frame.list() {
                Some([left, cursor]) if left.i64() > Some(0) => {
                    let cursor = cursor.text().cloned().unwrap_or_default();
                    self.bury(now, &cursor);
                }
                // It is forgotten, or lives again. There may be others.
                _ => {
                    if let Some(Burial { node, .. }) = self.registry.burial.take() {
                        tracing::info!(%node, "Redis: cleanup of a node done");
                    }
                    self.registry.want_renewal(now);
                }
            },
        }
    }

    /// A command of a burial has failed.
    pub(super) fn abandon_burial(&mut self, number: u64) {
        if let Some(burial) = self.registry.burial.take_if(|burial| burial.number == number) {
            tracing::info!(node = %burial.node, "Redis: cleanup of a node failed; it is tried again");
        }
    }

    /// Asks for the channels of a partition in which the gone node's clients are present. Where nobody can be asked,
    /// presence ends by its time.
    fn ask_haunts(&mut self, now: Instant) {
        let count = self.partitions.len();
        while let Some(Burial { number, node, partition, .. }) = &self.registry.burial
            && *partition < count
        {
            let (number, node, partition) = (*number, node.clone(), *partition);
            let asked = self.write(now, partition, Purpose::Haunts(number), |_, place, out| {
                place.haunts(&node, out);
            });
            if asked {
                return;
            }
            if let Some(burial) = &mut self.registry.burial {
                burial.partition += 1;
            }
        }
        self.bury(now, b"0");
    }

    fn handle_haunts(&mut self, now: Instant, frame: &Frame) {
        let Some(burial) = &mut self.registry.burial else { return };
        let channels = frame.list().unwrap_or_default();
        burial.channels = channels.len();
        for channel in channels.iter().filter_map(Frame::str) {
            self.evict(now, &channel.into(), b"0");
        }
        self.go_on_burying(now);
    }

    fn evict(&mut self, now: Instant, channel: &Arc<str>, cursor: &[u8]) {
        let Some(Burial { number, node, partition, .. }) = &self.registry.burial else { return };
        let (number, node, partition) = (*number, node.clone(), *partition);
        let purpose = Purpose::Evict(number, channel.clone());
        let asked = self.write(now, partition, purpose, |_, place, out| {
            place.evict(&node, channel, cursor, out);
        });
        if !asked {
            self.registry.burial = None;
        }
    }

    /// One partition after the other; when the node's clients are present nowhere, they are told to be offline.
    fn go_on_burying(&mut self, now: Instant) {
        let done = self.registry.burial.as_mut().filter(|burial| burial.channels == 0);
        if let Some(burial) = done {
            burial.partition += 1;
            self.ask_haunts(now);
        }
    }

    fn bury(&mut self, now: Instant, cursor: &[u8]) {
        let Some(Burial { number, node, .. }) = &self.registry.burial else { return };
        let (number, node) = (*number, node.clone());
        let is_self = node == self.commander.node;
        let reason = if is_self { NODE_ENDED } else { NODE_LOST };
        let asked = self.write(now, FIRST, Purpose::Bury(number), |commander, place, out| {
            commander.bury(place, (&node, is_self), reason, cursor, out);
        });
        if !asked {
            self.registry.burial = None;
        }
    }
}
