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
/// Delay between checks of partitions that are all paused.
pub const KAFKA_IDLE_POLL: Duration = Duration::from_millis(2);
/// Time between two commits. Records of this time are handled again after a crash.
pub const KAFKA_COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// Time without a heartbeat after which the partitions of a member go to others.
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

/// Servers of one DSN that are tried in turn.
pub const POSTGRES_HOSTS_MAX: usize = 16;
/// Time for connecting to PostgreSQL and logging in, unless the DSN has `connect_timeout`.
pub const POSTGRES_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes asked of the socket in one read.
pub const POSTGRES_READ_SIZE: usize = 32 * 1024;
/// Bytes of a payload in an outbox: more than any publication that the server accepts. Longer ones
/// do not leave the database.
pub const OUTBOX_PAYLOAD_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one message of PostgreSQL outside of replication: a row with the longest payload.
pub const POSTGRES_MESSAGE_MAX: usize = OUTBOX_PAYLOAD_MAX + 64 * 1024;
/// Rows of an answer that is read at once; such statements return one or two.
pub const POSTGRES_ROWS_MAX: usize = 64;
/// Notifications that wait. Further ones are dropped: the partitions are polled too.
pub const POSTGRES_NOTIFICATIONS_MAX: usize = 1_024;
/// Partitions of one outbox; each has a connection.
pub const OUTBOX_PARTITIONS_MAX: u32 = 256;
/// Rows of one transaction of an outbox.
pub const OUTBOX_SELECT_MAX: u32 = 10_000;
/// Rows up to which the lag of a partition is counted.
pub const OUTBOX_LAG_MAX: u64 = 1_000_000;
/// Time between two counts of the lag of a partition that has more rows than one transaction takes.
pub const OUTBOX_LAG_INTERVAL: Duration = Duration::from_secs(5);

/// Tables that one stream of changes describes.
pub const RELATIONS_MAX: usize = 16_384;
/// Time between two checks of a slot that another node reads.
pub const SLOT_RETRY: Duration = Duration::from_secs(1);
/// Time between two confirmations of what is done.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time without a status update; `wal_sender_timeout` is 60 s by default.
pub const STATUS_SILENCE: Duration = Duration::from_secs(10);
/// Greatest bound of a row of a stream of changes.
pub const ROW_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Messages of one pull from JetStream.
pub const JETSTREAM_BATCH: usize = 100;
/// Bytes of one pull from JetStream.
pub const JETSTREAM_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Time after which a pull is renewed.
pub const JETSTREAM_PULL_EXPIRES: Duration = Duration::from_secs(30);
/// Time between two heartbeats of a pull without messages.
pub const JETSTREAM_HEARTBEAT: Duration = Duration::from_secs(5);
/// Time after which JetStream delivers a message again that a node has not acknowledged.
pub const JETSTREAM_ACK_WAIT: Duration = Duration::from_secs(30);
/// Time between two in-progress acknowledgements (`+WPI`) of a message.
pub const JETSTREAM_PROGRESS: Duration = Duration::from_secs(10);
/// Time for a reply of JetStream.
pub const JETSTREAM_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(JETSTREAM_PROGRESS.as_millis() * 2 < JETSTREAM_ACK_WAIT.as_millis());
const _: () = assert!(STATUS_INTERVAL.as_millis() < STATUS_SILENCE.as_millis());
