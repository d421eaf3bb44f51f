//! Every bound of this crate, with its reason.

/// Locks over which the memory broker spreads its channels: enough that workers on 64 cores rarely meet.
pub const SHARDS: usize = 256;

/// Idempotency keys that one channel remembers; beyond that the oldest is forgotten before its five minutes.
pub const IDEMPOTENCY_KEYS_MAX: usize = 10_000;

/// Bytes of one text from Redis: an entry of a stream is a publication, far smaller; Redis itself allows 512 MiB.
pub const RESP_BULK_MAX: usize = 64 * 1024 * 1024;

/// Items of one list from Redis: two for every client of the largest presence.
pub const RESP_ITEMS_MAX: usize = 4_000_000;

/// Bytes of a line from Redis; the longest are its errors.
pub const RESP_LINE_MAX: usize = 64 * 1024;

/// Lists within lists from Redis; our deepest is a stream's entry within entries within an answer.
pub const RESP_NESTING_MAX: usize = 8;

/// Questions that wait for the Redis broker's thread; beyond, they are refused: half a second of Redis' work.
pub const QUEUE_MAX: usize = 100_000;

/// Commands that one Redis server has not answered; beyond, the connection is given up and what was asked fails.
pub const IN_FLIGHT_MAX: usize = 400_000;

/// Channels in one command to hear them, and clients in one to keep them present: such a command takes Redis no longer
/// than a fraction of a millisecond.
pub const NAMES_PER_COMMAND: usize = 128;

/// Parts into which a Redis Cluster's slots are divided: many times the servers of a large one, few enough to look at
/// all of them in a turn.
pub const PARTITIONS: usize = 256;

/// Departures that are remembered while Redis cannot be reached; beyond, they end by their time.
pub const DEPARTURES_MAX: usize = 100_000;

/// Milliseconds that a stream without publications is remembered after it was last read: many times the interval in which
/// whoever hears it reads it, and little for whoever makes up channels.
pub const EMPTY_STREAM_TTL_MS: u64 = 600_000;
