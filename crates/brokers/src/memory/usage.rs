//! What the memory broker keeps, in bytes and channels, beside what it may keep.
//!
//! Invariant: the totals are the sums over all channels, each counted under the lock of its shard.
//! What would go beyond a ceiling is refused before anything is changed; nothing that is kept is
//! given up for something new.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use engine::broker::BrokerError;

/// What may be kept at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Bytes.
    pub bytes: usize,
    /// Channels.
    pub channels: usize,
}

/// See the module. The numbers are estimates from above of what the allocator gives.
#[derive(Debug)]
pub struct Usage {
    ceilings: Ceilings,
    bytes: AtomicUsize,
    channels: AtomicUsize,
    refused: AtomicU64,
    /// Operators know that it is near a ceiling.
    is_warned: AtomicBool,
}

impl Default for Ceilings {
    fn default() -> Ceilings {
        Ceilings { bytes: usize::MAX, channels: usize::MAX }
    }
}

impl Usage {
    /// Nothing is kept yet.
    #[must_use]
    pub fn new(ceilings: Ceilings) -> Usage {
        Usage {
            ceilings,
            bytes: AtomicUsize::new(0),
            channels: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            is_warned: AtomicBool::new(false),
        }
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Channels that are kept.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    /// Requests that were refused because of a ceiling.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// What may be kept.
    #[must_use]
    pub fn ceilings(&self) -> Ceilings {
        self.ceilings
    }

    /// Whether so much more may be kept; counts what may not.
    pub(super) fn admit(&self, more: Growth) -> Result<(), BrokerError> {
        if self.has_room(more) {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(BrokerError::Full)
    }

    /// Whether so much more may be kept.
    pub(super) fn has_room(&self, more: Growth) -> bool {
        let (bytes, channels) = match more {
            Growth::None => return true,
            Growth::Known { bytes } => (bytes, 0),
            Growth::NewChannel { bytes } => (bytes, 1),
        };
        self.bytes().saturating_add(bytes) <= self.ceilings.bytes
            && self.channels().saturating_add(channels) <= self.ceilings.channels
    }

    /// A channel that cost `before` costs `after`; one that costs nothing is not kept.
    pub(super) fn change(&self, before: usize, after: usize) {
        if after > before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else if after < before {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
        match (before, after) {
            (0, 1..) => drop(self.channels.fetch_add(1, Ordering::Relaxed)),
            (1.., 0) => drop(self.channels.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    /// Whether more than three quarters of a ceiling are used: then streams that retain nothing are
    /// forgotten at once.
    pub(super) fn is_near_a_ceiling(&self) -> bool {
        self.bytes() > self.ceilings.bytes / 4 * 3
            || self.channels() > self.ceilings.channels / 4 * 3
    }

    /// What operators should know, once for each time that it comes near a ceiling.
    pub(super) fn take_warning(&self) -> Option<String> {
        if !self.is_near_a_ceiling() {
            self.is_warned.store(false, Ordering::Relaxed);
            return None;
        }
        if self.is_warned.swap(true, Ordering::Relaxed) {
            return None;
        }
        let Ceilings { bytes, channels } = self.ceilings;
        Some(format!(
            "the memory engine keeps {} of at most {bytes} bytes and {} of at most {channels} channels, and refuses what goes \
             beyond (error 111): keep less (history_size, history_ttl, history_meta_ttl), or raise engine.memory.bytes_max and \
             engine.memory.channels_max",
            self.bytes(),
            self.channels(),
        ))
    }
}

/// What a request adds to what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// Nothing, or what is bounded elsewhere.
    None,
    /// To a channel that is kept.
    Known { bytes: usize },
    /// And its channel.
    NewChannel { bytes: usize },
}
