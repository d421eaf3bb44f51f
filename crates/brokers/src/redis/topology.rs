//! Slot assignment of a Redis Cluster, and when to refresh it.
//!
//! Invariant: one refresh at a time, with a pause after each.

use std::time::{Duration, Instant};

use super::connection::SlotRange;
use super::settings::Address;
use super::unavailable::UnavailableReason;

/// Slot assignment, as last read.
pub(super) struct Topology {
    seeds: Vec<Address>,
    ranges: Vec<SlotRange>,
    reason: Option<UnavailableReason>,
    is_asking: bool,
    is_wanted: bool,
    answered_at: Option<Instant>,
    asked: usize,
}

/// Refresh interval without a reason to refresh.
const REFRESH_AFTER: Duration = Duration::from_secs(15);

/// Refresh interval while an error suggests that the assignment is stale.
const RETRY_AFTER: Duration = Duration::from_millis(100);

impl Topology {
    pub(super) fn new(seeds: Vec<Address>) -> Topology {
        Topology {
            seeds,
            ranges: Vec::new(),
            reason: Some(UnavailableReason::Starting),
            is_asking: false,
            is_wanted: true,
            answered_at: None,
            asked: 0,
        }
    }

    /// Marks the assignment as possibly stale.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Members to ask for the slots, if a refresh is due.
    pub(super) fn asks(&mut self, now: Instant) -> Option<Vec<Address>> {
        let wait = if self.is_wanted { RETRY_AFTER } else { REFRESH_AFTER };
        let is_time = self.answered_at.is_none_or(|at| at + wait <= now);
        if self.is_asking || !is_time {
            return None;
        }
        self.is_asking = true;
        self.is_wanted = false;
        let mut members: Vec<Address> = Vec::new();
        let known = self.ranges.iter().flat_map(|range| &range.members);
        for address in known.chain(&self.seeds) {
            if !members.contains(address) {
                members.push(address.clone());
            }
        }
        // Rotates the first member: a member that replies first may have stale data.
        self.asked += 1;
        let first = self.asked % members.len().max(1);
        members.rotate_left(first);
        Some(members)
    }

    /// Stores the result of a refresh.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        slots: Result<Vec<SlotRange>, UnavailableReason>,
    ) {
        self.is_asking = false;
        self.answered_at = Some(now);
        match slots {
            Ok(ranges) => {
                self.ranges = ranges;
                self.reason = None;
            }
            Err(reason) => {
                if self.ranges.is_empty() {
                    self.reason = Some(reason);
                }
                self.is_wanted = true;
            }
        }
    }

    /// The master of a slot.
    pub(super) fn master(&self, slot: u16) -> Option<&Address> {
        let range = self.ranges.iter().find(|range| (range.first..=range.last).contains(&slot))?;
        range.members.first()
    }

    /// Why there is no assignment yet.
    pub(super) fn reason(&self) -> Option<&UnavailableReason> {
        self.reason.as_ref()
    }
}
