//! Every bound of this crate, with its reason.

/// Locks over which the memory broker spreads its channels: enough that workers on 64 cores rarely meet.
pub const SHARDS: usize = 256;

/// Idempotency keys that one channel remembers; beyond that the oldest is forgotten before its five minutes.
pub const IDEMPOTENCY_KEYS_MAX: usize = 10_000;
