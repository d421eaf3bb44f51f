//! Slot assignment of a Redis Cluster, and when to refresh it.
//!
//! Invariant: one refresh at a time, with a pause after each.

use std::time::Duration;

use super::clock::MonotonicTime;
use super::resp::Frame;
use super::settings::Address;
use super::unavailable::UnavailableReason;

/// Slot assignment, as last read.
pub(super) struct Topology {
    seeds: Vec<Address>,
    ranges: Vec<SlotRange>,
    reason: Option<UnavailableReason>,
    is_refreshing: bool,
    is_stale: bool,
    answered_at: Option<MonotonicTime>,
    refreshes: usize,
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
            is_refreshing: false,
            is_stale: true,
            answered_at: None,
            refreshes: 0,
        }
    }

    /// Marks the assignment as possibly stale.
    pub(super) fn mark_stale(&mut self) {
        self.is_stale = true;
    }

    /// Members to ask for the slots, if a refresh is due.
    pub(super) fn begin_refresh(&mut self, now: MonotonicTime) -> Option<Vec<Address>> {
        let wait = if self.is_stale { RETRY_AFTER } else { REFRESH_AFTER };
        let is_time = self.answered_at.is_none_or(|at| at + wait <= now);
        if self.is_refreshing || !is_time {
            return None;
        }
        self.is_refreshing = true;
        self.is_stale = false;
        let mut members: Vec<Address> = Vec::new();
        let known = self.ranges.iter().flat_map(|range| &range.members);
        for address in known.chain(&self.seeds) {
            if !members.contains(address) {
                members.push(address.clone());
            }
        }
        // Rotates the first member: a member that replies first may have stale data.
        self.refreshes += 1;
        let first = self.refreshes % members.len().max(1);
        members.rotate_left(first);
        Some(members)
    }

    /// Stores the result of a refresh.
    pub(super) fn handle(
        &mut self,
        now: MonotonicTime,
        slots: Result<Vec<SlotRange>, UnavailableReason>,
    ) {
        self.is_refreshing = false;
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
                self.is_stale = true;
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

/// A range of slots: the master first, then its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) members: Vec<Address>,
}

impl SlotRange {
    /// A member without a known host is the member that was asked.
    pub(super) fn read(range: &Frame, asked: &Address) -> Option<SlotRange> {
        let [first, last, members @ ..] = range.list()? else { return None };
        let slot = |frame: &Frame| frame.u64().and_then(|slot| u16::try_from(slot).ok());
        let member = |member: &Frame| {
            let host = member.list()?.first()?.str().filter(|host| !matches!(*host, "" | "?"));
            let port = u16::try_from(member.list()?.get(1)?.u64()?).ok()?;
            Some(Address { host: host.unwrap_or(&asked.host).to_owned(), port })
        };
        let members: Vec<Address> = members.iter().filter_map(member).collect();
        (!members.is_empty()).then_some(SlotRange {
            first: slot(first)?,
            last: slot(last)?,
            members,
        })
    }
}
