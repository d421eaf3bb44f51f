//! Requests to the broker that have no reply yet.
//!
//! Invariant: the type of a request's id decides what its reply is handled as. So a reply to a
//! command never reaches a subscription, and the other way round.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::broker::{JoinedStream, RequestId};
use crate::capacity::{Kept, shrink_map};
use crate::hash_keys::HashKeys;
use crate::session_key::SessionKey;

/// Requests to the broker without a reply, by the type of their id.
#[derive(Debug)]
pub(crate) struct PendingRequests {
    reads: HashMap<RequestId<JoinedStream>, PendingRead, HashKeys>,
    /// Commands by the number of the request.
    commands: HashMap<u64, PendingCommand, HashKeys>,
    last_number: u64,
}

/// The purpose of a subscribe request.
#[derive(Debug)]
pub(crate) enum PendingRead {
    /// A subscription of this session waits for it.
    Join(SessionKey),
    /// Verifies that this worker has received every publication of a channel.
    Check {
        /// Channel to verify.
        channel: Arc<str>,
    },
}

/// A client's command that the broker answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingCommand {
    pub(crate) session: SessionKey,
    /// Id chosen by the client.
    pub(crate) id: u32,
    /// Its share of [`crate::limits::PENDING_COMMANDS_MAX`] until the reply.
    pub(crate) cost: u16,
}

impl PendingRequests {
    pub(crate) fn new(hasher: HashKeys) -> PendingRequests {
        PendingRequests {
            reads: HashMap::with_hasher(hasher),
            commands: HashMap::with_hasher(hasher),
            last_number: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.reads.len() + self.commands.len()
    }

    /// Returns the id for a subscribe request.
    pub(crate) fn expect_read(&mut self, read: PendingRead) -> RequestId<JoinedStream> {
        let id = RequestId::new(self.next_number());
        self.reads.insert(id, read);
        id
    }

    /// Returns the id for the request of a command.
    pub(crate) fn expect_command<T>(&mut self, command: PendingCommand) -> RequestId<T> {
        let number = self.next_number();
        self.commands.insert(number, command);
        RequestId::new(number)
    }

    pub(crate) fn take_read(&mut self, id: RequestId<JoinedStream>) -> Option<PendingRead> {
        take(&mut self.reads, &id)
    }

    pub(crate) fn take_command<T>(&mut self, id: RequestId<T>) -> Option<PendingCommand> {
        take(&mut self.commands, &id.number())
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

fn take<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>, key: &K) -> Option<V> {
    let value = map.remove(key);
    shrink_map(map, Kept::OfOne);
    value
}
