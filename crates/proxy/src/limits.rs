//! Every bound of this crate with its reason.

use std::time::Duration;

/// Bytes of an answer: a thousand times the size of usual ones, and as much as a client's command
/// may have by default together with its reply. A longer answer is refused while it arrives.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the head of an HTTP answer.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Attempts of a call that may be repeated. The breaker ends what three attempts cannot.
pub const ATTEMPTS_MAX: u32 = 3;

/// Mean pause before the second attempt; it doubles for the third. Short beside the deadline, long
/// enough for a listener that restarts.
pub const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Time for which an idle connection is kept: below the five seconds after which Node.js and Apache
/// close theirs, so that a call rarely meets a connection that is just being closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Interval of pings on HTTP/2, and the time for an answer: all calls share one connection, and
/// without pings a dead peer would fail each of them at its deadline.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// See [`PING_INTERVAL`].
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest pause that an answer with `Retry-After` can impose: a backend must not disable itself
/// for a day by a wrong header.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Longest time for which an answer is reused, whatever lifetime the backend names.
pub const MAX_AGE_MAX: Duration = Duration::from_secs(3600);

/// Answers that one backend's cache keeps.
pub const ANSWERS_MAX: usize = 10_000;

/// Bytes of these answers with their questions.
pub const ANSWERS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Slots of a breaker's window: calls leave it in tenths.
pub const WINDOW_SLOTS: usize = 10;

/// Bytes of an error text from a backend or library in a log line.
pub const DETAIL_LENGTH_MAX: usize = 300;

/// Time between two log lines about one backend and cause.
pub const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of the headers of a client that one call forwards.
pub const FORWARDED_BYTES_MAX: usize = 32 * 1024;

const _: () =
    assert!(FORWARDED_BYTES_MAX <= ANSWERS_BYTES_MAX && ANSWER_BYTES_MAX <= ANSWERS_BYTES_MAX);
