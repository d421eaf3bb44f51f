//! The present clients of this node's parties.
//!
//! Invariant: what stands here is said to Redis again and again; what does not, ends there by itself.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use wire::protocol::ClientInfo;

use super::message;
use crate::Party;
use crate::limits::{PRESENCE_TURNS, REMOVALS_MAX};

/// See the module.
pub(super) struct Present {
    channels: HashMap<Arc<str>, Members>,
    /// What must be removed once Redis is back.
    removals: Vec<Removal>,
    node: String,
    hasher: RandomState,
}

/// Values by their members.
type Members = HashMap<String, (Party, Vec<u8>)>;

/// Members that are present no more.
pub(super) struct Removal {
    pub(super) channel: Arc<str>,
    pub(super) members: Vec<String>,
    /// Whether listeners do not know yet.
    pub(super) must_tell: bool,
}

impl Present {
    pub(super) fn new(node: String) -> Present {
        Present { channels: HashMap::new(), removals: Vec::new(), node, hasher: RandomState::new() }
    }

    /// Returns member and value.
    pub(super) fn add(
        &mut self,
        channel: &Arc<str>,
        party: Party,
        info: &Arc<ClientInfo>,
    ) -> (String, Vec<u8>) {
        let member = self.member(party, &info.client);
        let value = message::encode_present(channel, info);
        let members = self.channels.entry(channel.clone()).or_default();
        members.insert(member.clone(), (party, value.clone()));
        (member, value)
    }

    pub(super) fn remove(
        &mut self,
        channel: &Arc<str>,
        party: Party,
        client: &str,
    ) -> Option<Removal> {
        let member = self.member(party, client);
        let members = self.channels.get_mut(channel)?;
        members.remove(&member)?;
        if members.is_empty() {
            self.channels.remove(channel);
        }
        Some(Removal { channel: channel.clone(), members: vec![member], must_tell: false })
    }

    /// The party is gone; all parties, when none is named.
    pub(super) fn forget(&mut self, gone: Option<Party>) -> Vec<Removal> {
        let mut removals = Vec::new();
        self.channels.retain(|channel, members| {
            let left = members.extract_if(|_, (party, _)| gone.is_none_or(|gone| gone == *party));
            let left: Vec<String> = left.map(|(member, _)| member).collect();
            if !left.is_empty() {
                let channel = channel.clone();
                removals.push(Removal { channel, members: left, must_tell: true });
            }
            !members.is_empty()
        });
        removals
    }

    pub(super) fn remove_later(&mut self, removal: Removal) {
        if self.removals.len() < REMOVALS_MAX {
            self.removals.push(removal);
        }
    }

    pub(super) fn take_removals(&mut self) -> Vec<Removal> {
        std::mem::take(&mut self.removals)
    }

    /// Channels whose turn it is to be said again.
    pub(super) fn channels_of_turn(&self, turn: u64) -> Vec<Arc<str>> {
        let turn = turn % PRESENCE_TURNS;
        let channels = self.channels.keys();
        let of_turn =
            channels.filter(|channel| self.hasher.hash_one(channel) % PRESENCE_TURNS == turn);
        of_turn.cloned().collect()
    }

    pub(super) fn channels(&self) -> impl Iterator<Item = &Arc<str>> {
        self.channels.keys()
    }

    pub(super) fn members(&self, channel: &str) -> Vec<(&String, &Vec<u8>)> {
        let members = self.channels.get(channel).into_iter().flatten();
        members.map(|(member, (_, value))| (member, value)).collect()
    }

    fn member(&self, party: Party, client: &str) -> String {
        format!("{} {} {client}", self.node, party.0)
    }
}
