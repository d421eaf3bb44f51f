//! The limits of this crate, each with its reason.

use std::time::Duration;

/// Number of shards of the memory broker, each with a lock: enough that workers on 64 cores rarely
/// contend.
pub const SHARDS: usize = 256;

/// Maximum number of idempotency keys that one channel stores; above it the oldest is dropped
/// before its five minutes.
pub const IDEMPOTENCY_KEYS_MAX: usize = 10_000;

/// Bytes that a channel of the memory broker costs beside its name: its entry in the table and one
/// subscriber.
pub const CHANNEL_COST: usize = 256;

/// Additional bytes of a channel with a stream, presence or keys.
pub const KEPT_COST: usize = 384;

/// Bytes that an idempotency key costs beside twice its text.
pub const KEY_COST: usize = 192;

/// Bytes that a client in a channel's presence costs.
pub const PRESENCE_COST: usize = 256;

/// Maximum number of requests in all queues of one broker; more are refused (111). At ten thousand
/// a second this is six seconds, twice their timeout.
///
/// With [`REQUESTS_BYTES_MAX`] this bounds the queues of the NATS broker that have no bound of
/// their own: its inputs, the inputs of channel tasks, requests that share a read, surveys, and
/// waiters for an echo. Requests without a reply count, too. Above the bound announcements and
/// answers to questions are dropped, presence entries wait as state, and only the ends of what was
/// begun are queued: see `admission`. Orders are bounded by the rate of the server API.
pub const REQUESTS_MAX: usize = 65_536;

/// Maximum bytes of those requests together: a second of publications at 64 MB/s.
pub const REQUESTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes that a request costs beside its payload: names, entries in queues.
pub const REQUEST_OVERHEAD: usize = 512;

/// Maximum bytes passed to the connection to NATS whose arrival NATS has not shown yet; above it
/// publications are refused (111). Many times what fits into a socket's buffers.
pub const NATS_IN_FLIGHT_MAX: usize = 32 * 1024 * 1024;

/// Maximum number of concurrent reads of stored messages. NATS sends a history as fast as it can,
/// and bytes in flight use our memory. Enough for thousands of short histories a second.
pub const NATS_READS_MAX: usize = 16;

/// Maximum number of commands of all tasks that await the connection to NATS.
pub const NATS_COMMANDS_MAX: usize = 1_024;

/// Maximum bytes of a subject. A client's line may have 4,096 bytes (`max_control_line`), with the
/// command, the reply subject and sizes beside the subject.
pub const NATS_SUBJECT_MAX: usize = 4_096 - 128;

/// Bytes in the subject of a presence entry beside prefix and channel: tokens, node, endpoint and
/// client.
pub const NATS_SUBJECT_RESERVE: usize = 128;

/// Maximum bytes of `broker.nats.prefix`: the names of streams begin with it, and JetStream allows
/// them 255.
pub const NATS_PREFIX_MAX: usize = 200;

/// Maximum number of echoes that have not returned; the oldest fails beyond. Each has a waiter,
/// which is a request.
pub const NATS_ECHOES_MAX: usize = REQUESTS_MAX;

/// Maximum number of nodes of a NATS installation whose announcements and answers are kept: more
/// than the largest installations have. `max_payload` of the server bounds a message of a node.
pub const NODES_MAX: usize = 1_024;

/// Maximum number of failures of tasks that wait to be logged. Each makes the node unready, so that
/// more add nothing.
pub const TASK_FAILURES_MAX: usize = 64;

/// Maximum number of refused subjects that are stored and retried; some of them suffice to detect a
/// change.
pub const NATS_REFUSALS_MAX: usize = 16;

/// Time that a restarted task of a broker must run before the node is ready again.
pub const TASK_PROBATION: Duration = Duration::from_secs(5);

/// Delay before a failed task is restarted.
pub const TASK_RESTART: Duration = Duration::from_millis(500);

/// Timeout of a request to NATS.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum time that a starting node waits for JetStream in a cluster that has not elected leaders.
/// Servers that start together on a busy machine need up to half of it.
pub const JETSTREAM_WAIT: Duration = Duration::from_secs(60);

/// Delay between two checks whether JetStream is ready.
pub const JETSTREAM_RETRY: Duration = Duration::from_millis(100);

/// Interval of pings to NATS; a connection is given up after two without an answer. Below
/// [`ANSWER_TIMEOUT`], so that a frozen server is detected by then.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum delay between two attempts to reconnect. Short, because a NATS server has few clients of
/// this kind.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);

/// Delay before a temporary channel's expiry is retried at NATS.
pub const END_RETRY: Duration = Duration::from_secs(1);

/// Maximum number of messages that a channel's task handles before it looks at its other inputs.
pub const MESSAGES_PER_TURN: usize = 64;

/// Time for which the state of a stream is kept for a channel without subscribers; it saves the
/// next publisher a request.
pub const CHANNEL_TASK_IDLE: Duration = Duration::from_secs(10);

/// Maximum number of channel tasks that wait in this way; beyond it the one that has waited longest
/// ends. A client may use new names of channels as fast as it can.
pub const IDLE_TASKS_MAX: usize = 8_192;

/// Silence after which the reader of a stored range assumes its end, and NATS removes the reader.
pub const READER_IDLE: Duration = Duration::from_millis(500);

/// Maximum number of streams and presences that are verified concurrently after a reconnect.
pub const VERIFICATIONS_MAX: usize = 128;

/// Number of messages of a stream between two removals of messages that are no longer retained.
pub const TRIM_EVERY: u64 = 64;

/// Time that a message of NATS which overtook another waits for it: many times the delay in a busy
/// server.
pub const REORDER_WAIT: Duration = Duration::from_millis(100);

/// Maximum number of messages of one channel that wait for an earlier one: more than NATS accepts
/// at once from all nodes.
pub const HELD_MAX: usize = 256;

/// Maximum bytes of those messages together: eight of the largest that NATS takes by default.
pub const HELD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Lease renewals at NATS within one lease: one reply may be late, and another lost.
pub const LEASE_RENEWALS: u64 = 4;

/// Milliseconds of a node's lease; after its expiry the node's clients are removed from presence.
pub const LEASE_MS: u64 = 12_000;

/// Maximum bytes of one string from Redis. An entry of a stream is a publication and far smaller;
/// Redis itself allows 512 MiB.
pub const RESP_BULK_MAX: usize = 64 * 1024 * 1024;

/// Maximum items of one array from Redis: two for every client of the largest presence.
pub const RESP_ITEMS_MAX: usize = 4_000_000;

/// Maximum bytes of a line from Redis; errors are the longest.
pub const RESP_LINE_MAX: usize = 64 * 1024;

/// Maximum nesting depth of arrays from Redis; the deepest used is a stream's entry within entries
/// within a reply.
pub const RESP_NESTING_MAX: usize = 8;

/// Maximum number of requests queued for the Redis broker's thread; more are refused. Redis needs
/// half a second for as many.
pub const QUEUE_MAX: usize = 100_000;

/// Maximum bytes of the publications in that queue.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Maximum number of commands in flight to one Redis server; above it the connection is closed and
/// they fail.
pub const IN_FLIGHT_MAX: usize = 400_000;

/// Maximum bytes of those commands together; above it requests are refused (111), presence waits as
/// state, and joins and leaves are not announced: a second of publications at 64 MB/s.
pub const IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Maximum bytes of the requests that wait for partitions to resume, such as while a cluster moves
/// them; above it the same applies to those partitions.
pub const HELD_REQUESTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Maximum number of channels or clients in one command: Redis needs a fraction of a millisecond
/// for it.
pub const NAMES_PER_COMMAND: usize = 128;

/// Maximum number of publications that one command makes. Redis needs 5 µs for each of a channel,
/// and up to 12 µs for each of different ones, so less than a millisecond, in which it does nothing
/// else.
pub const BATCH_MAX: usize = 64;

/// Maximum bytes of those publications together; a larger one is a command by itself.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Number of partitions of a Redis Cluster's slots: many times the servers of a large cluster, few
/// enough to visit in one turn.
pub const PARTITIONS: usize = 256;

/// Number of unsent lifecycle events above which events of short-lived clients are dropped: many
/// times what a working broker accumulates.
pub const LIFECYCLE_BACKLOG: usize = 65_536;

/// Timeout for the answers of other nodes: shorter than that of the server API.
pub const SURVEY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Maximum bytes of the answers to one survey: more than all clients of a large cluster need.
pub const SURVEY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Milliseconds for which Redis stores a node's entry and clients without a renewal: many times the
/// longest outage after which the node continues.
pub const REGISTRY_TTL_MS: u64 = 24 * 3_600_000;

/// Milliseconds for which lifecycle events are stored.
pub const LIFECYCLE_TTL_MS: u64 = 7 * 24 * 3_600_000;

/// Maximum number of a failed node's clients removed by one command: Redis needs about a
/// millisecond.
pub const CLEANED_PER_COMMAND: u32 = 200;

/// Difference between the clocks of a node and Redis above which a warning is raised: expiry of
/// tokens has a resolution of seconds.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);

/// Maximum number of revocations read from Redis by one command: a fraction of a millisecond, and
/// some hundred kilobytes at most.
pub const REVOCATIONS_PER_COMMAND: u32 = 200;

/// Maximum number of attempts to store a revocation while other nodes change the same subject.
pub const REVOCATION_CONFLICTS_MAX: usize = 8;

/// Maximum number of expired revocations that one read removes from NATS; the next one removes
/// more.
pub const REVOCATIONS_FORGOTTEN_MAX: usize = 256;

/// Maximum number of departures stored while Redis is unreachable; the others expire by themselves.
pub const DEPARTURES_MAX: usize = 100_000;

/// Milliseconds for which a stream without publications is stored after its last read: many times
/// the interval in which every subscriber reads it, and a short time for invented channels.
pub const EMPTY_STREAM_TTL_MS: u64 = 600_000;

/// Bytes of the first page of a long reply of Redis: what most clients miss in a short absence.
pub const PAGE_FIRST: usize = 16 * 1024;

/// Maximum bytes of a further page: Redis reads it in a few milliseconds, in which it does nothing
/// else.
pub const PAGE_MAX: usize = 512 * 1024;

/// Maximum bytes of long replies in flight from one Redis server to a node. Half of what Redis
/// queues for a subscriber for a minute (`client-output-buffer-limit pubsub 32mb 8mb 60`);
/// publications need the rest.
pub const READ_WINDOW: usize = 4 * 1024 * 1024;

/// Bytes of pages of unfinished replies from one Redis server above which a node starts no further
/// one.
pub const READ_HELD_MAX: usize = 64 * 1024 * 1024;

// A revocation's subject contains an id whose bytes may take three bytes each.
const _: () = assert!(NATS_PREFIX_MAX + 32 + 3 * engine::limits::ID_BYTES_MAX <= NATS_SUBJECT_MAX);
const _: () = assert!(PAGE_FIRST <= PAGE_MAX && PAGE_MAX <= READ_WINDOW);
