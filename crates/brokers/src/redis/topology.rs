//! Who answers for which slots of a Redis Cluster, and when to ask again.
//!
//! Invariant: one question at a time, and a pause behind every answer.

use std::time::{Duration, Instant};

use super::connection::SlotRange;
use super::settings::Address;
use super::unavailable::UnavailableReason;

/// See the module.
pub(super) struct Topology {
    seeds: Vec<Address>,
    ranges: Vec<SlotRange>,
    reason: Option<UnavailableReason>,
    is_asking: bool,
    is_wanted: bool,
    answered_at: Option<Instant>,
    asked: usize,
}

/// Time after which is asked even though nothing has happened.
const REFRESH_AFTER: Duration = Duration::from_secs(15);

/// Time between questions while something is amiss.
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

    /// What is known may be wrong.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Whom to ask, when it is time to.
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
        // Another one every time: who answers first may know least.
        self.asked += 1;
        let first = self.asked % members.len().max(1);
        members.rotate_left(first);
        Some(members)
    }

    /// What the cluster said.
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

    /// Why nothing is known yet.
    pub(super) fn reason(&self) -> Option<&UnavailableReason> {
        self.reason.as_ref()
    }
}
