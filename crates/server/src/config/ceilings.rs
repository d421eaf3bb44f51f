//! Maximum number of bytes and channels that the memory engine keeps.

use brokers::memory::Ceilings;

use super::options::engine::MemorySection;
use super::schema::Setting;
use crate::memory_size;

pub(super) fn resolve_ceilings(memory: &MemorySection) -> Ceilings {
    let half = || memory_size::available().map(|bytes| bytes / 2);
    Ceilings {
        bytes: some(&memory.bytes_max).or_else(half).unwrap_or(usize::MAX),
        channels: some(&memory.channels_max).unwrap_or(usize::MAX),
    }
}

/// The number, unless it is 0.
fn some<T: Copy + Into<u64>>(setting: &Setting<T>) -> Option<usize> {
    Some(setting.count()).filter(|count| *count > 0)
}
