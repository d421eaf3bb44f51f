//! Acts on observations of where links should lead: a node leaves a server that is no longer the
//! master.
//!
//! Invariant: a node acknowledges no publication through a server after it has learned that another
//! server is the master.

use engine::broker::BrokerEvent;

use super::super::clock::MonotonicTime;
use super::super::driver_messages::{LinkId, Observation};
use super::super::master_check::FoundServer;
use super::super::unavailable::UnavailableReason;
use super::RedisCore;

impl RedisCore {
    /// Handles an observation of where a link should lead.
    pub(super) fn handle_observation(
        &mut self,
        now: MonotonicTime,
        id: LinkId,
        seen: Result<Observation, UnavailableReason>,
    ) {
        let Observation { address, asked_at, doubt, identity } = match seen {
            Ok(observation) => observation,
            Err(reason) => {
                tracing::debug!(%reason, "Redis: the master could not be determined");
                return;
            }
        };
        let has_sentinels = self.links.has_sentinels(id);
        let other_nodes = self.registry.other_nodes();
        let Some(connection) = self.links.connection(id) else { return };
        // The link was opened after this observation began, so its own is newer.
        if connection.master_check.is_outdated(asked_at) {
            return;
        }
        // An answer of fewer than half of the Sentinels neither moves a link nor confirms it.
        if let Some(doubt) = doubt {
            if connection.master_check.is_unconfirmed(now) {
                self.outputs.warn(doubt.to_string());
            }
            return;
        }
        let used = &connection.opened.identity.run_id;
        // One server may have two addresses.
        let is_same = identity.as_ref().is_some_and(|identity| identity.is_same(used));
        if has_sentinels && address != connection.opened.address && !is_same {
            return self
                .leave(now, id, |used| UnavailableReason::OtherMaster { used, named: address });
        }
        connection.master_check.note_named(now, other_nodes);
        let Some(identity) = identity else { return };
        // Only a master counts: a replica is not used by this node, and a starting server is not
        // ready.
        let found = match !has_sentinels && identity.is_master && identity.is_another(used) {
            true => FoundServer::Different,
            false => FoundServer::Same,
        };
        if connection.master_check.is_replaced(found) {
            let (used, found) = (used.clone(), identity.run_id);
            return self.leave(now, id, |address| UnavailableReason::OtherServer {
                address,
                used,
                found,
            });
        }
        if identity.run_id == *used && identity.eviction != connection.opened.identity.eviction {
            connection.opened.identity.eviction = identity.eviction;
            self.note_eviction(id);
        }
    }

    /// Leaves servers that neither Sentinels nor other nodes confirm: this node may be on the
    /// minority side of a partition.
    pub(super) fn leave_isolated_servers(&mut self, now: MonotonicTime) {
        let other_nodes = self.registry.other_nodes();
        for id in self.links.ids() {
            let has_sentinels = self.links.has_sentinels(id);
            let Some(connection) = self.links.connection(id).filter(|_| has_sentinels) else {
                continue;
            };
            if connection.master_check.is_isolated(now, other_nodes) {
                self.leave(now, id, UnavailableReason::Alone);
            }
        }
    }

    /// Whether a server evicts keys when its memory is full.
    pub(super) fn may_evict(&mut self) -> bool {
        let ids = self.links.ids();
        ids.into_iter().any(|id| {
            self.links
                .connection(id)
                .is_some_and(|connection| connection.opened.identity.eviction.is_possible())
        })
    }

    /// Warns once of a server's eviction policy, and again when it evicts keys.
    pub(super) fn note_eviction(&mut self, id: LinkId) {
        let Some(connection) = self.links.connection(id) else { return };
        let (address, eviction) =
            (&connection.opened.address, &connection.opened.identity.eviction);
        if let Some(warning) = eviction.warning(address) {
            self.outputs.warn(warning);
        }
        let count = connection.master_check.newly_evicted(eviction.keys);
        if count > 0 {
            self.outputs
                .warn(format!("Redis at {address} has evicted {count} keys: its memory is full"));
            // Revocations may have been evicted.
            self.outputs.notify(BrokerEvent::RevocationsStale);
        }
    }
}
