//! What really happened: every publication that the broker accepted, in its order, recorded by an
//! observer that misses nothing. Clients are compared with it.

use std::collections::HashMap;

use bytes::Bytes;

/// One epoch of a channel's stream; the empty epoch is that of channels without a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct EpochLog {
    /// Payloads in the broker's order: with a stream, offset `n` has index `n - 1`.
    pub(crate) payloads: Vec<Bytes>,
    index: HashMap<Bytes, usize>,
    /// Offsets up to this one are certainly no longer retained.
    pub(crate) dropped: u64,
}

/// All accepted publications; see the module.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    epochs: HashMap<(String, String), EpochLog>,
    /// The current epoch of each channel.
    current: HashMap<String, String>,
}

impl Truth {
    /// Records an accepted publication.
    pub(crate) fn accept(&mut self, channel: &str, epoch: &str, offset: u64, payload: Bytes) {
        let log = self.epochs.entry((channel.to_owned(), epoch.to_owned())).or_default();
        let place = log.payloads.len();
        assert!(offset == 0 || offset == place as u64 + 1, "the broker skips an offset");
        log.payloads.push(payload.clone());
        log.index.insert(payload, place);
        self.current.insert(channel.to_owned(), epoch.to_owned());
    }

    /// Records that the broker has lost its state.
    pub(crate) fn forget(&mut self) {
        self.current.clear();
    }

    /// Records that a channel's history was removed.
    pub(crate) fn drop_retained(&mut self, channel: &str) {
        let Some(epoch) = self.current.get(channel) else { return };
        if let Some(log) = self.epochs.get_mut(&(channel.to_owned(), epoch.clone())) {
            log.dropped = log.payloads.len() as u64;
        }
    }

    /// The current epoch and top of a channel; `None` if nothing was published since the broker
    /// started.
    pub(crate) fn now(&self, channel: &str) -> Option<(&str, u64)> {
        let epoch = self.current.get(channel)?;
        let log = self.epochs.get(&(channel.to_owned(), epoch.clone()))?;
        Some((epoch, log.payloads.len() as u64))
    }

    /// Offsets that are certainly no longer retained.
    pub(crate) fn dropped(&self, channel: &str, epoch: &str) -> u64 {
        self.epochs.get(&(channel.to_owned(), epoch.to_owned())).map_or(0, |log| log.dropped)
    }

    /// The payload at an offset of an epoch.
    pub(crate) fn at(&self, channel: &str, epoch: &str, offset: u64) -> Option<&Bytes> {
        let log = self.epochs.get(&(channel.to_owned(), epoch.to_owned()))?;
        log.payloads.get(usize::try_from(offset.checked_sub(1)?).ok()?)
    }

    /// Whether a payload was ever published.
    pub(crate) fn has(&self, payload: &Bytes) -> bool {
        self.epochs.values().any(|log| log.index.contains_key(payload))
    }

    /// The index of a payload in a channel without a stream.
    pub(crate) fn place(&self, channel: &str, payload: &Bytes) -> Option<usize> {
        self.epochs.get(&(channel.to_owned(), String::new()))?.index.get(payload).copied()
    }
}
