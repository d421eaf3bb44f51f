//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Bytes of memory that a queued event takes beside its text: its place in a queue whose capacity
/// doubles, the header of shared bytes, and what the allocator adds to both.
pub const EVENT_OVERHEAD: usize = 192;

/// Smallest queue of a sink.
pub const QUEUE_BYTES_MIN: usize = 64 * 1024;

/// Bytes that a queue has at least for each event of a batch, so that batches become full before
/// the queue is.
pub const QUEUE_BYTES_PER_BATCHED: usize = 1024;

/// Bytes of one batch, above which no further event is added: what frameworks accept by default.
/// An event that is larger by itself is a batch of its own.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Delay before the second attempt; it doubles up to the longest.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// Longest delay between two attempts: a receiver that is back is noticed soon, and one that is
/// away gets few requests.
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(10);

/// Longest delay that a receiver can ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Longest delay between two attempts while the node stops.
pub const STOPPING_BACKOFF: Duration = Duration::from_millis(250);

/// Bytes of an answer that are read, so that its connection can be used again.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Time for which the rest of an answer is awaited behind its status. A connection whose answer
/// ends later is closed.
pub const WEBHOOK_ANSWER_TIMEOUT: Duration = Duration::from_millis(100);

/// Bytes of the head of an answer.
pub const WEBHOOK_HEAD_BYTES_MAX: usize = 64 * 1024;

/// Time after which an idle connection is closed: below the 60 s after which load balancers do.
pub const WEBHOOK_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Time between two pings of an HTTP/2 connection with a request under way.
pub const WEBHOOK_PING_INTERVAL: Duration = Duration::from_secs(10);

/// Time within which such a ping is answered; the connection is closed otherwise.
pub const WEBHOOK_PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Events that are tried one by one behind an event that the receiver rejects, to find one that it
/// accepts. One at first, and twice as many after each failure.
pub const PROBES_MAX: usize = 32;

/// Time between two log lines about one cause.
pub const EVENT_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of a secret (Standard Webhooks).
pub const SECRET_BYTES_MIN: usize = 24;

/// Bytes of a secret (Standard Webhooks).
pub const SECRET_BYTES_MAX: usize = 64;

const _: () = assert!(BACKOFF_FIRST.as_millis() < BACKOFF_LONGEST.as_millis());
const _: () = assert!(SECRET_BYTES_MIN < SECRET_BYTES_MAX);
