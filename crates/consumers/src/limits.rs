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

/// Bytes of the template of a channel: as long as a channel name may be configured to be.
pub const TEMPLATE_LENGTH_MAX: usize = 1_000;

/// Records of one partition of Kafka that are handled at the same time. Each waits for the reply of
/// a broker, so that this many fill a pipeline.
pub const KAFKA_CONCURRENCY: usize = 128;
/// Bytes of one partition in memory above which it is paused. One more response of a broker may
/// come on top.
pub const KAFKA_PARTITION_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of one response of a broker, if not configured.
pub const KAFKA_FETCH_BYTES: u32 = 16 * 1024 * 1024;
/// Records that the library keeps decoded before they are taken over.
pub const KAFKA_BUFFERED_RECORDS: i32 = 2_000;
/// Time of one poll. It is also the longest time until finished offsets are committed while no
/// records arrive.
pub const KAFKA_POLL_TIMEOUT: Duration = Duration::from_millis(200);
/// Delay between looks at partitions that are all paused.
pub const KAFKA_IDLE_POLL: Duration = Duration::from_millis(2);
/// Time between two commits. Records of this time are handled again after a crash.
pub const KAFKA_COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// Time without a sign of life after which the partitions of a member go to others.
pub const KAFKA_SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a member must answer a rebalance.
pub const KAFKA_REBALANCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time in which started records must finish when their partition is taken away.
pub const KAFKA_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for leaving the group at a stop.
pub const KAFKA_CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of a request to a broker.
pub const KAFKA_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Polls in a row that may fail before the consumer connects anew.
pub const KAFKA_FAULTS_MAX: u32 = 20;

const _: () = assert!(KAFKA_DRAIN_TIMEOUT.as_millis() < KAFKA_REBALANCE_TIMEOUT.as_millis());
