//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Locks over which the memory broker spreads its channels: enough that workers on 64 cores rarely
/// meet.
pub const SHARDS: usize = 256;

/// Idempotency keys that one channel remembers; beyond that the oldest is forgotten before its five
/// minutes.
pub const IDEMPOTENCY_KEYS_MAX: usize = 10_000;

/// Bytes that a channel of the memory broker costs beside its name: its entry in the table, and a
/// listener.
pub const CHANNEL_COST: usize = 256;

/// Bytes that a channel costs more of which something is kept.
pub const KEPT_COST: usize = 384;

/// Bytes that an idempotency key costs beside twice its text.
pub const KEY_COST: usize = 192;

/// Bytes that a client costs that is present in a channel.
pub const PRESENCE_COST: usize = 256;

/// Requests that wait for one broker's link; more are refused (111). At ten thousand a second this
/// is six seconds, twice the time after which they are refused anyway.
pub const REQUESTS_MAX: usize = 65_536;

/// Bytes that those requests may hold together: a second of publications at 64 MB/s.
pub const REQUESTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a request costs beside its payload: names, its place in queues.
pub const REQUEST_OVERHEAD: usize = 512;

/// Bytes that were handed to the connection to NATS and of which NATS has not shown yet that it has
/// them; beyond, publications are refused (111). Many times what fits into a socket's buffers.
pub const NATS_IN_FLIGHT_MAX: usize = 32 * 1024 * 1024;

/// Reads of stored messages at the same time: NATS sends a history as fast as it can, and what is
/// on its way is in our memory. Enough for thousands of short histories a second.
pub const NATS_READS_MAX: usize = 16;

/// Commands of all tasks that wait for the connection to NATS.
pub const NATS_COMMANDS_MAX: usize = 1_024;

/// Bytes of a subject. A client's line may have 4,096 bytes (`max_control_line`), with the command,
/// the subject for the answer and sizes beside the subject.
pub const NATS_SUBJECT_MAX: usize = 4_096 - 128;

/// Bytes in the subject of a presence entry beside prefix and channel: words, node, endpoint and
/// client.
pub const NATS_SUBJECT_RESERVE: usize = 128;

/// Bytes of `broker.nats.prefix`: the names of streams begin with it, and JetStream allows them
/// 255.
pub const NATS_PREFIX_MAX: usize = 200;

/// Refused subjects that are remembered and tried again; of more, some are enough.
pub const NATS_REFUSALS_MAX: usize = 16;

/// How long a task of a broker must live after it was started again before the node counts as
/// whole.
pub const TASK_PROBATION: Duration = Duration::from_secs(5);

/// Pause before a task that has failed is started again.
pub const TASK_RESTART: Duration = Duration::from_millis(500);

/// How long an answer of NATS may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a node that starts waits for JetStream in a cluster whose servers have not agreed on
/// leaders. Servers that start together on a busy machine take up to half of it.
pub const JETSTREAM_WAIT: Duration = Duration::from_secs(60);

/// Pause between two attempts to find JetStream ready.
pub const JETSTREAM_RETRY: Duration = Duration::from_millis(100);

/// How often NATS is pinged; a link is given up after two pings without an answer. Below
/// [`ANSWER_TIMEOUT`], so that a frozen server is noticed by then.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Longest pause between two attempts to connect again. Short: the server that comes back has few
/// clients like us.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);

/// Pause before NATS is asked again when a temporary channel ends.
pub const END_RETRY: Duration = Duration::from_secs(1);

/// How long a channel without subscribers keeps what it knows of its stream, which saves the next
/// publisher a question.
pub const CHANNEL_TASK_IDLE: Duration = Duration::from_secs(10);

/// After such a silence a reader of a stored range knows that nothing more comes, and NATS that the
/// reader is gone.
pub const READER_IDLE: Duration = Duration::from_millis(500);

/// Streams and presences that are put right at the same time after the link was cut.
pub const VERIFICATIONS_MAX: usize = 128;

/// Messages of a stream between two removals of what is not retained any more.
pub const TRIM_EVERY: u64 = 64;

/// How long a message from NATS that overtook another waits for it: many times what a busy server
/// is late.
pub const TURN_WAIT: Duration = Duration::from_millis(100);

/// Messages of one channel that wait for another: more than NATS takes at once from all nodes.
pub const HELD_MAX: usize = 256;

/// How often a node says at NATS that it lives while its lease runs: one answer may be late, and
/// another one lost.
pub const LEASE_RENEWALS: u64 = 4;

/// Silence of a node after which its clients are present nowhere.
pub const LEASE_MS: u64 = 12_000;

/// Bytes of one text from Redis: an entry of a stream is a publication, far smaller; Redis itself
/// allows 512 MiB.
pub const RESP_BULK_MAX: usize = 64 * 1024 * 1024;

/// Items of one list from Redis: two for every client of the largest presence.
pub const RESP_ITEMS_MAX: usize = 4_000_000;

/// Bytes of a line from Redis; the longest are its errors.
pub const RESP_LINE_MAX: usize = 64 * 1024;

/// Lists within lists from Redis; our deepest is a stream's entry within entries within an answer.
pub const RESP_NESTING_MAX: usize = 8;

/// Questions that wait for the Redis broker's thread; beyond, they are refused: half a second of
/// Redis' work.
pub const QUEUE_MAX: usize = 100_000;

/// Commands that one Redis server has not answered; beyond, the connection is given up and what was
/// asked fails.
pub const IN_FLIGHT_MAX: usize = 400_000;

/// Channels in one command to hear them, and clients in one to keep them present: such a command
/// takes Redis no longer than a fraction of a millisecond.
pub const NAMES_PER_COMMAND: usize = 128;

/// Parts into which a Redis Cluster's slots are divided: many times the servers of a large one, few
/// enough to look at all of them in a turn.
pub const PARTITIONS: usize = 256;

/// Clients that came or went and of which a broker was not told yet, before those are left out of
/// whom nobody heard: many times what comes together while a broker works.
pub const LIFECYCLE_BACKLOG: usize = 65_536;

/// How long other nodes may take to answer a question: less than whoever asks waits.
pub const SURVEY_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Milliseconds for which Redis keeps what it knows of a node and its clients without hearing of
/// it: many times the longest outage after which the node goes on.
pub const REGISTRY_TTL_MS: u64 = 24 * 3_600_000;

/// Milliseconds for which events of clients that come and go are kept.
pub const LIFECYCLE_TTL_MS: u64 = 7 * 24 * 3_600_000;

/// Clients of a node that is gone in one step: such a step takes Redis about a millisecond.
pub const CLEANED_PER_COMMAND: u32 = 200;

/// Clock differences between a node and Redis that are worth a word: lifetimes of tokens are
/// counted in seconds.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(2);

/// Revocations that are read from Redis in one command: a fraction of a millisecond, and some
/// hundred kilobytes at most.
pub const REVOCATIONS_PER_COMMAND: u32 = 200;

/// Attempts to keep a revocation while other nodes change the same subject.
pub const REVOCATION_CONFLICTS_MAX: usize = 8;

/// Revocations that are over and are removed from NATS whenever somebody reads: the rest is removed
/// the next time.
pub const REVOCATIONS_FORGOTTEN_MAX: usize = 256;

/// Departures that are remembered while Redis cannot be reached; beyond, they end by their time.
pub const DEPARTURES_MAX: usize = 100_000;

/// Milliseconds that a stream without publications is remembered after it was last read: many times
/// the interval in which every subscriber reads it, and little for whoever makes up channels.
pub const EMPTY_STREAM_TTL_MS: u64 = 600_000;

/// Bytes of the first page of a long answer of Redis: what most clients have missed after a short
/// absence.
pub const PAGE_FIRST: usize = 16 * 1024;

/// Bytes of a further page at most: Redis reads it in a few milliseconds, in which it does nothing
/// else.
pub const PAGE_MAX: usize = 512 * 1024;

/// Bytes of long answers that one Redis server may have on their way to a node. Half of what Redis
/// lets wait for a subscriber for a minute (`client-output-buffer-limit pubsub 32mb 8mb 60`);
/// publications need the rest.
pub const READ_WINDOW: usize = 4 * 1024 * 1024;

/// Bytes of pages of unfinished answers that a node holds of one Redis server before it begins no
/// other.
pub const READ_HELD_MAX: usize = 64 * 1024 * 1024;

// The subject of a revocation, whose id may take three bytes for each of its own.
const _: () = assert!(NATS_PREFIX_MAX + 32 + 3 * engine::limits::ID_BYTES_MAX <= NATS_SUBJECT_MAX);
const _: () = assert!(PAGE_FIRST <= PAGE_MAX && PAGE_MAX <= READ_WINDOW);
