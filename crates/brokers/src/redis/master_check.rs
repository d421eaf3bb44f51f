//! Evidence that a link leads to the master that other nodes use.
//!
//! Invariant: a single observation of a different server does not count; address and server may
//! change at the same time.

use std::time::Duration;

use super::clock::MonotonicTime;

/// Evidence that a link's server is still the master.
#[derive(Debug)]
pub(super) struct MasterCheck {
    /// When the connection was opened.
    since: MonotonicTime,
    /// When at least half of the Sentinels last named this server.
    named_at: MonotonicTime,
    /// Whether other nodes have renewed leases at it since.
    had_other_nodes: bool,
    /// Consecutive observations of a different server at this address.
    mismatches: u32,
    /// Evicted keys at the last report.
    evicted: Option<u64>,
}

/// Whether other nodes renew their leases at the same server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherNodes {
    Present,
    Absent,
}

/// The server found at a link's address, compared with the server in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundServer {
    Same,
    Different,
}

/// A single observation may be wrong, as while a DNS name changes.
const MISMATCHES_MAX: u32 = 2;

/// Time without an answer from the Sentinels after which the presence of other nodes is required.
const SENTINELS_TIMEOUT: Duration = Duration::from_secs(5);

impl MasterCheck {
    pub(super) fn new(now: MonotonicTime) -> MasterCheck {
        MasterCheck {
            since: now,
            named_at: now,
            had_other_nodes: false,
            mismatches: 0,
            evicted: None,
        }
    }

    /// Whether an observation that began at this time is older than the connection.
    pub(super) fn is_outdated(&self, asked_at: MonotonicTime) -> bool {
        asked_at < self.since
    }

    /// Whether the Sentinels have not named this server for longer than the timeout.
    pub(super) fn is_unconfirmed(&self, now: MonotonicTime) -> bool {
        self.named_at + SENTINELS_TIMEOUT <= now
    }

    /// At least half of the Sentinels name this server.
    pub(super) fn note_named(&mut self, now: MonotonicTime, others: OtherNodes) {
        (self.named_at, self.had_other_nodes) = (now, others == OtherNodes::Present);
    }

    /// Whether neither Sentinels nor other nodes confirm this server any more.
    pub(super) fn is_isolated(&mut self, now: MonotonicTime, others: OtherNodes) -> bool {
        self.had_other_nodes |= others == OtherNodes::Present;
        self.had_other_nodes && others == OtherNodes::Absent && self.is_unconfirmed(now)
    }

    /// Records the server found at the address. Returns whether it has replaced the one in use.
    pub(super) fn is_replaced(&mut self, found: FoundServer) -> bool {
        match found {
            FoundServer::Different => self.mismatches += 1,
            FoundServer::Same => self.mismatches = 0,
        }
        self.mismatches >= MISMATCHES_MAX
    }

    /// Number of keys evicted since the last report.
    pub(super) fn newly_evicted(&mut self, keys: u64) -> u64 {
        let before = self.evicted.replace(keys).unwrap_or(keys);
        keys.saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_isolated_when_neither_sentinels_nor_other_nodes_confirm_its_master() {
        let start = MonotonicTime::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        for is_named in [true, false] {
            let mut master_check = MasterCheck::new(start);
            assert!(!master_check.is_isolated(at(0), OtherNodes::Present));
            for second in 1..10 {
                if is_named {
                    master_check.note_named(at(second), OtherNodes::Absent);
                }
                let is_isolated = master_check.is_isolated(at(second), OtherNodes::Absent);
                assert_eq!(is_isolated, !is_named && second >= 5);
            }
        }
    }

    #[test]
    fn a_node_that_never_had_other_nodes_is_not_isolated() {
        let start = MonotonicTime::default();
        let mut master_check = MasterCheck::new(start);
        master_check.note_named(start, OtherNodes::Absent);
        assert!(!master_check.is_isolated(start + 2 * SENTINELS_TIMEOUT, OtherNodes::Absent));
    }

    #[test]
    fn one_mismatch_is_not_enough_and_a_match_resets_them() {
        let mut master_check = MasterCheck::new(MonotonicTime::default());
        for identity in [FoundServer::Different, FoundServer::Same, FoundServer::Different] {
            assert!(!master_check.is_replaced(identity));
        }
        assert!(master_check.is_replaced(FoundServer::Different));
    }

    #[test]
    fn keys_count_as_evicted_from_the_first_report_on() {
        let mut master_check = MasterCheck::new(MonotonicTime::default());
        let counts = [7, 7, 10, 2].map(|keys| master_check.newly_evicted(keys));
        assert_eq!(counts, [0, 0, 3, 0]);
    }
}
