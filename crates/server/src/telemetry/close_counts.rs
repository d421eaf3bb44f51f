//! Closed connections by close code.

use std::collections::BTreeMap;

/// Closed connections by close code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseCounts(pub(super) BTreeMap<u16, u64>);

impl CloseCounts {
    pub(crate) fn count(&mut self, code: u16) {
        *self.0.entry(code).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &CloseCounts) {
        for (code, count) in &other.0 {
            *self.0.entry(*code).or_default() += count;
        }
    }
}
