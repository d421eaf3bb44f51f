//! The counters of the consumers of this node, by name.
//!
//! Invariant: the order is that of the configuration.

use std::sync::Arc;

use consumers::{ConsumerCounters, ConsumerSnapshot};

/// Names and counters of the consumers, in the order of the configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConsumerList(Vec<(Arc<str>, Arc<ConsumerCounters>)>);

impl ConsumerList {
    pub(crate) fn new<'n>(names: impl Iterator<Item = &'n str>) -> ConsumerList {
        ConsumerList(names.map(|name| (name.into(), Arc::default())).collect())
    }

    /// Each consumer with its counters.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Arc<ConsumerCounters>)> {
        self.0.iter()
    }

    /// Each consumer with its counts now.
    pub(crate) fn snapshots(&self) -> Vec<(Arc<str>, ConsumerSnapshot)> {
        self.iter().map(|(name, counters)| (name.clone(), counters.snapshot())).collect()
    }
}
