//! Every bound of this crate, with its reason.

/// Locks over which the memory broker spreads its channels: enough that workers on 64 cores rarely meet.
pub const SHARDS: usize = 256;

/// Idempotency keys that one channel remembers; beyond that the oldest is forgotten before its five minutes.
pub const IDEMPOTENCY_KEYS_MAX: usize = 10_000;

/// Milliseconds that the epoch of a stream without any publication is kept when nobody listens: reading must not be a
/// way to fill the memory.
pub const EMPTY_STREAM_TTL_MS: u64 = 60_000;
