//! Connections between simulated nodes and servers: bytes that are late, come in portions, or never
//! arrive.
//!
//! Invariant: what arrives on one side is a prefix of what the other side has sent.

use std::collections::VecDeque;

use engine::random::Random;

use crate::redis::driver_messages::ConnectionId;
use crate::redis::resp::RespDecoder;
use crate::redis::tests::model::server::ClientId;

/// A connection of a node to a server.
pub(super) struct Wire {
    pub(super) node: usize,
    pub(super) connection_id: ConnectionId,
    pub(super) server: usize,
    pub(super) client: ClientId,
    pub(super) to_server: Lane,
    pub(super) to_node: Lane,
    pub(super) decoder: RespDecoder,
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Lane {
    bytes: VecDeque<(u64, Vec<u8>)>,
    /// Nothing arrives before this time.
    stalled_until_ms: u64,
}

/// Longest delay of bytes without a fault.
const DELAY_MAX_MS: u64 = 4;

impl Lane {
    pub(super) fn send(&mut self, now_ms: u64, random: &mut Random, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            let last = self.bytes.back().map_or(0, |(at, _)| *at);
            self.bytes.push_back((last.max(now_ms + random.below(DELAY_MAX_MS)), bytes));
        }
    }

    pub(super) fn stall(&mut self, until_ms: u64) {
        self.stalled_until_ms = until_ms;
    }

    /// The bytes that arrive now, the last portion of them perhaps in part.
    pub(super) fn arrive(&mut self, now_ms: u64, random: &mut Random) -> Vec<u8> {
        let mut arrived = Vec::new();
        while self.stalled_until_ms <= now_ms
            && let Some((at, bytes)) = self.bytes.front_mut()
            && *at <= now_ms
        {
            if random.below(4) == 0 {
                let count = random.below(bytes.len() as u64 + 1) as usize;
                arrived.extend(bytes.drain(..count));
                break;
            }
            arrived.append(bytes);
            self.bytes.pop_front();
        }
        arrived
    }

    /// A prefix of all bytes on their way: what a cut connection still delivers.
    pub(super) fn last_bytes(&mut self, random: &mut Random) -> Vec<u8> {
        let mut all: Vec<u8> = self.bytes.drain(..).flat_map(|(_, bytes)| bytes).collect();
        all.truncate(random.below(all.len() as u64 + 1) as usize);
        all
    }
}
