//! Acts on observations of where links should lead: a node leaves a server that is no longer the
//! master.
//!
//! Invariant: a node acknowledges no publication through a server after it has learned that another
//! server is the master.

use std::time::{Duration, Instant};

use engine::broker::BrokerEvent;

use super::super::exchange::LinkId;
use super::super::unavailable::UnavailableReason;
use super::super::watch::Sighting;
use super::Core;

/// Evidence that a link's server is still the master.
#[derive(Debug)]
pub(in crate::redis) struct MasterCheck {
    /// When the connection was opened.
    since: Instant,
    /// When at least half of the Sentinels last named this server.
    named_at: Instant,
    /// Whether other nodes have renewed leases at it since.
    had_company: bool,
    /// Consecutive observations of a different server at this address.
    strangers: u32,
    /// Evicted keys at the last warning.
    evicted: Option<u64>,
}

/// A single observation may be wrong, as while a DNS name changes.
const STRANGERS_MAX: u32 = 2;

/// Time without an answer from the Sentinels after which the presence of other nodes is required.
const SENTINELS_SILENT: Duration = Duration::from_secs(5);

impl MasterCheck {
    pub(in crate::redis) fn new(now: Instant) -> MasterCheck {
        MasterCheck { since: now, named_at: now, had_company: false, strangers: 0, evicted: None }
    }

    /// At least half of the Sentinels name this server.
    fn note_named(&mut self, now: Instant, has_company: bool) {
        (self.named_at, self.had_company) = (now, has_company);
    }

    /// Whether neither Sentinels nor other nodes confirm this server any more.
    fn is_deserted(&mut self, now: Instant, has_company: bool) -> bool {
        self.had_company |= has_company;
        self.had_company && !has_company && self.named_at + SENTINELS_SILENT <= now
    }
}

impl Core {
    /// Handles an observation of where a link should lead.
    pub(super) fn handle_sighting(
        &mut self,
        now: Instant,
        id: LinkId,
        seen: Result<Sighting, UnavailableReason>,
    ) {
        let Sighting { address, asked_at, doubt, identity } = match seen {
            Ok(sighting) => sighting,
            Err(reason) => {
                tracing::debug!(%reason, "Redis: the master could not be determined");
                return;
            }
        };
        let has_sentinels = self.links.has_sentinels(id);
        let has_company = self.registry.has_company();
        let Some(up) = self.links.up(id) else { return };
        // The link was opened after this observation began, so its own is newer.
        if asked_at < up.master_check.since {
            return;
        }
        // An answer of fewer than half of the Sentinels neither moves a link nor confirms it.
        if let Some(doubt) = doubt {
            if up.master_check.named_at + SENTINELS_SILENT <= now {
                self.shared.warnings.add(doubt.to_string());
            }
            return;
        }
        let used = &up.opened.identity.run_id;
        // One server may have two addresses.
        let is_same = identity.as_ref().is_some_and(|identity| identity.is_same(used));
        if has_sentinels && address != up.opened.address && !is_same {
            return self
                .leave(now, id, |used| UnavailableReason::OtherMaster { used, named: address });
        }
        up.master_check.note_named(now, has_company);
        let Some(identity) = identity else { return };
        // Only a master counts: a replica is not used by this node, and a starting server is not
        // ready.
        match !has_sentinels && identity.is_master && identity.is_another(used) {
            true => up.master_check.strangers += 1,
            false => up.master_check.strangers = 0,
        }
        if up.master_check.strangers >= STRANGERS_MAX {
            let (used, found) = (used.clone(), identity.run_id);
            return self.leave(now, id, |address| UnavailableReason::OtherServer {
                address,
                used,
                found,
            });
        }
        if identity.run_id == *used && identity.eviction != up.opened.identity.eviction {
            up.opened.identity.eviction = identity.eviction;
            self.note_eviction(id);
        }
    }

    /// Leaves servers that neither Sentinels nor other nodes confirm: this node may be on the
    /// minority side of a partition.
    pub(super) fn leave_the_deserted(&mut self, now: Instant) {
        let has_company = self.registry.has_company();
        for id in self.links.ids() {
            let has_sentinels = self.links.has_sentinels(id);
            let Some(up) = self.links.up(id).filter(|_| has_sentinels) else { continue };
            if up.master_check.is_deserted(now, has_company) {
                self.leave(now, id, UnavailableReason::Alone);
            }
        }
    }

    /// Whether a server evicts keys when its memory is full.
    pub(super) fn may_evict(&mut self) -> bool {
        let ids = self.links.ids();
        ids.into_iter()
            .any(|id| self.links.up(id).is_some_and(|up| up.opened.identity.eviction.is_possible()))
    }

    /// Warns once of a server's eviction policy, and again when it evicts keys.
    pub(super) fn note_eviction(&mut self, id: LinkId) {
        let Some(up) = self.links.up(id) else { return };
        let (address, eviction) = (&up.opened.address, &up.opened.identity.eviction);
        if let Some(warning) = eviction.warning(address) {
            self.shared.warnings.add(warning);
        }
        let before = up.master_check.evicted.replace(eviction.keys).unwrap_or(eviction.keys);
        if eviction.keys > before {
            let count = eviction.keys - before;
            self.shared
                .warnings
                .add(format!("Redis at {address} has evicted {count} keys: its memory is full"));
            // Revocations may have been evicted.
            self.shared.endpoints.notify_all(&BrokerEvent::RevocationsStale);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_isolated_when_neither_sentinels_nor_other_nodes_confirm_its_master() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for is_named in [true, false] {
            let mut master_check = MasterCheck::new(start);
            assert!(!master_check.is_deserted(at(0), true));
            for second in 1..10 {
                if is_named {
                    master_check.note_named(at(second), false);
                }
                assert_eq!(master_check.is_deserted(at(second), false), !is_named && second >= 5);
            }
        }
    }

    #[test]
    fn a_node_that_never_had_other_nodes_is_not_isolated() {
        let start = Instant::now();
        let mut master_check = MasterCheck::new(start);
        master_check.note_named(start, false);
        assert!(!master_check.is_deserted(start + 2 * SENTINELS_SILENT, false));
    }
}
