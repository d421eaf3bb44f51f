//! Every bound of this crate, with its reason.

/// Locks over which the memory broker spreads its channels: enough that workers on 64 cores rarely meet.
pub const SHARDS: usize = 256;

/// Idempotency keys that one channel remembers; beyond that the oldest is forgotten before its five minutes.
pub const IDEMPOTENCY_KEYS_MAX: usize = 10_000;

/// Milliseconds that a stream's offset and epoch are kept when a reader, not a publisher, created it and named no
/// time.
pub const META_TTL_DEFAULT_MS: u64 = 30 * 24 * 3600 * 1000;
