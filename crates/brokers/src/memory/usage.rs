//! The memory broker's usage in bytes and channels, with its ceilings.
//!
//! Invariant: the totals are the sums over all channels, each counted under the lock of its shard.
//! A request that would exceed a ceiling is refused before anything is changed. Nothing stored is
//! evicted for a new request.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use engine::broker::BrokerError;

/// The maximum usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Maximum number of bytes.
    pub bytes: usize,
    /// Maximum number of channels.
    pub channels: usize,
}

/// The usage; see the module. Bytes are upper estimates of what the allocator uses.
#[derive(Debug)]
pub struct Usage {
    ceilings: Ceilings,
    bytes: AtomicUsize,
    channels: AtomicUsize,
    refused: AtomicU64,
    /// Whether a warning was raised since usage came near a ceiling.
    is_warned: AtomicBool,
}

impl Default for Ceilings {
    fn default() -> Ceilings {
        Ceilings { bytes: usize::MAX, channels: usize::MAX }
    }
}

impl Usage {
    /// Creates an empty usage.
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

    /// Bytes that are stored.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Number of channels that are stored.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels.load(Ordering::Relaxed)
    }

    /// Number of requests refused because of a ceiling.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The ceilings.
    #[must_use]
    pub fn ceilings(&self) -> Ceilings {
        self.ceilings
    }

    /// Checks that this growth fits; counts a refusal if not.
    pub(super) fn admit(&self, more: Growth) -> Result<(), BrokerError> {
        if self.has_room(more) {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(BrokerError::Full)
    }

    /// Returns whether this growth fits.
    pub(super) fn has_room(&self, more: Growth) -> bool {
        let (bytes, channels) = match more {
            Growth::None => return true,
            Growth::Known { bytes } => (bytes, 0),
            Growth::NewChannel { bytes } => (bytes, 1),
        };
        self.bytes().saturating_add(bytes) <= self.ceilings.bytes
            && self.channels().saturating_add(channels) <= self.ceilings.channels
    }

    /// Records that a channel's cost changes from `before` to `after`. A channel that costs nothing
    /// is not stored.
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

    /// Returns whether more than three quarters of a ceiling are used. Then streams without
    /// retained publications are deleted at once.
    pub(super) fn is_near_a_ceiling(&self) -> bool {
        self.bytes() > self.ceilings.bytes / 4 * 3
            || self.channels() > self.ceilings.channels / 4 * 3
    }

    /// Returns a warning, once each time that usage comes near a ceiling.
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
            "the memory engine stores {} of at most {bytes} bytes and {} of at most {channels} channels, and refuses requests \
             above a limit (error 111): retain less (history_size, history_ttl, history_meta_ttl), or raise \
             engine.memory.bytes_max and engine.memory.channels_max",
            self.bytes(),
            self.channels(),
        ))
    }
}

/// The growth by a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// None, or limited elsewhere.
    None,
    /// Growth of a channel that is stored.
    Known { bytes: usize },
    /// Growth by a new channel.
    NewChannel { bytes: usize },
}
