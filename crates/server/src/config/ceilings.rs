//! Maximum number of bytes and channels that the memory engine keeps.

use brokers::memory::Ceilings;

use super::values::Values;
use crate::memory_size;

pub(super) fn resolve_ceilings(values: &Values<'_>) -> Ceilings {
    let some = |path: &str| Some(values.count(path)).filter(|count| *count > 0);
    let half = || memory_size::available().map(|bytes| bytes / 2);
    Ceilings {
        bytes: some("engine.memory.bytes_max").or_else(half).unwrap_or(usize::MAX),
        channels: some("engine.memory.channels_max").unwrap_or(usize::MAX),
    }
}
