//! All bounds of this crate.

use std::time::Duration;

/// First delay before a message is tried again.
pub const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Longest delay before a message is tried again. It bounds the time between the return of a broker
/// and the next message.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// First delay before a consumer that failed is started again.
pub const RESTART_DELAY: Duration = Duration::from_millis(500);
/// Longest delay before a consumer that failed is started again.
pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(20);

/// Time between two log lines of one kind from one consumer. Lines in between are counted.
pub const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Channels of one message in publication data mode; as many as one call of `broadcast` takes.
pub const CHANNELS_MAX: usize = 10_000;

/// Bytes of a reason in a log line or a dead letter.
pub const REASON_MAX: usize = 1_000;

const _: () = assert!(RETRY_DELAY.as_millis() < RETRY_DELAY_MAX.as_millis());
const _: () = assert!(RESTART_DELAY.as_millis() < RESTART_DELAY_MAX.as_millis());
