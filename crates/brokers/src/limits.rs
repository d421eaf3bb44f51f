//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Locks over which the memory broker spreads its channels: enough that workers on 64 cores rarely meet.
pub const SHARDS: usize = 256;

/// Idempotency keys that one channel remembers; beyond that the oldest is forgotten before its five minutes.
pub const IDEMPOTENCY_KEYS_MAX: usize = 10_000;

/// Requests that wait for one broker's link; more are refused (111). At ten thousand a second this is six seconds, twice
/// the time after which they are refused anyway.
pub const REQUESTS_MAX: usize = 65_536;

/// How long an answer of NATS or Redis may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How often NATS and Redis are pinged; a link to NATS is given up after two pings without an answer. Below [`ANSWER_TIMEOUT`], so that
/// a frozen server is noticed by then.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Longest pause between two attempts to connect again. Short: the server that comes back has few clients like us.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);

/// How long a channel that nobody hears keeps what it knows of its stream, which saves the next publisher a question.
pub const ROOM_IDLE: Duration = Duration::from_secs(10);

/// After such a silence a reader of a stored range knows that nothing more comes, and NATS that the reader is gone.
pub const READER_IDLE: Duration = Duration::from_millis(500);

/// Streams and presences that are put right at the same time after the link was cut.
pub const PROOFS_MAX: usize = 128;

/// Messages of a stream between two removals of what is not retained any more.
pub const TRIM_EVERY: u64 = 64;

/// How often a node says that it lives.
pub const LEASE_INTERVAL: Duration = Duration::from_secs(3);

/// Silence of a node after which its clients are present nowhere: four times it could have spoken.
pub const LEASE_MS: u64 = 12_000;

/// How long a client is present in Redis without its node saying so again. Three times it could have.
pub const PRESENCE_MS: u64 = 30_000;

/// Seconds over which a node spreads saying who is present, so that each is named once in that time.
pub const PRESENCE_TURNS: u64 = 10;

/// Clients that one command to Redis names at most: 100 of 10 KB each block it for about a millisecond.
pub const MEMBERS_MAX: usize = 100;

/// Requests taken from the queue before Redis is written to and read from again.
pub const TURN_MAX: usize = 1024;

/// Bytes that wait to be written to Redis; nothing more is taken from the queue then.
pub const OUT_MAX: usize = 4 << 20;

/// Removals from presence remembered while Redis is away; what goes beyond ends with [`PRESENCE_MS`].
pub const REMOVALS_MAX: usize = 65_536;

/// Bytes of one value from Redis: the longest history, ten thousand publications of 64 KB at worst, hardly fits more.
pub const VALUE_MAX: usize = 768 << 20;

/// Levels of values within values from Redis: an answer with stream entries has four.
pub const VALUE_DEPTH_MAX: usize = 8;

/// Longest milliseconds that Redis is asked to keep something: a hundred years, as far as it can count.
pub const KEEP_MS_MAX: u64 = 3_155_760_000_000;
