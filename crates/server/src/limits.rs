//! Every bound of this crate with its reason, and the relations between bounds. The modules enforce
//! bounds on peers: `slots` on connections, `throttle` on rates.

pub(crate) mod slots;
pub(crate) mod throttle;

use std::time::Duration;

/// Bytes that an HTTP connection holds without being accounted: more than the separators of usual
/// heads, which cannot be told from bytes behind the head, and much less than its read buffer.
pub const HELD_FREE_MAX: usize = 256;

/// Bytes of a worker's read buffer, which bounds one read of a connection.
pub const READ_BUFFER: usize = 64 * 1024;

/// Reads of one connection in one turn, so that a peer that sends continuously does not starve
/// others.
pub const READS_PER_TURN: usize = 8;

/// Bytes of a configuration file: ten times the size of ten thousand namespaces. The bound protects
/// against endless files such as `/dev/zero`.
pub const CONFIG_FILE_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of a compiled regular expression of the configuration: two hundred times the size of usual
/// ones, and negligible in memory.
pub const EXPRESSION_SIZE_MAX: usize = 10 * 1024 * 1024;

/// Bytes of an error text about the body of an API call: enough for what was expected, without
/// returning a value of megabytes.
pub const UNREADABLE_LENGTH_MAX: usize = 300;

/// Calls to backends in progress on a node, with those that wait for their turn: what all queues of
/// a few backends take. Further ones fail at once, with a temporary error.
pub const BACKEND_CALLS_MAX: usize = 65_536;

/// Bytes of these calls, so that large data cannot fill the memory while a backend is slow.
pub const BACKEND_CALL_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Time between two heartbeats of a node to the receivers of events: three of them within the time
/// after which other nodes clean up after a node that has failed, and some more.
pub const EVENTS_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Time for which a node that stops waits until the receivers of events have taken what is queued.
pub const EVENTS_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Frames written by one system call.
pub const SLICES_PER_WRITE: usize = 64;

/// Events that an inbox holds before publishers are refused: half a second of work of the fastest
/// worker.
pub const INBOX_EVENTS_MAX: usize = 500_000;

/// Milliseconds after which a turn starts no further pass, so that sockets are served in between.
pub const TURN_MS_MAX: u64 = 10;

/// Passes over inbox and effects in one turn before sockets are polled again.
pub const PASSES_PER_TURN: usize = 64;

/// Milliseconds that a peer has to answer our close frame.
pub const CLOSE_TIMEOUT_MS: u64 = 5_000;

/// Milliseconds between our close frame and the shutdown of writing on a failed connection: enough
/// for a browser to send its queued data and its own close frame.
pub const HALF_CLOSE_DELAY_MS: u64 = 1_000;

/// Bytes that are discarded during a lingering close before the socket is closed regardless: what a
/// browser may have in flight when its message is refused as too large.
pub const LINGER_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Time for the head of an HTTP request, which bounds slow handshakes.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time in which the peer of an HTTP connection must read some of a response.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Concurrent HTTP connections (handshakes and API calls) of a listener; beyond that idle ones are
/// evicted.
pub const HTTP_CONNECTIONS_MAX: usize = 8_192;

/// HTTP connections of one address (IPv6: of one /64). All clients behind a proxy that is not
/// trusted share one address.
pub const HTTP_CONNECTIONS_PER_ADDRESS_MAX: usize = HTTP_CONNECTIONS_MAX / 2;

/// Bytes of the head of an HTTP request (status 431): twice the size of real requests with cookies
/// and tokens.
pub const HEAD_SIZE_MAX: usize = 32 * 1024;

/// Total bytes of all unfinished heads and pipelined requests of a listener: enough for 8,192
/// handshakes of real clients.
pub const HEADS_SIZE_MAX: usize = 32 * 1024 * 1024;

/// Total bytes that unauthenticated WebSocket connections hold: enough for 16,384 connect commands
/// with tokens. Without it each of them could hold an unfinished message of
/// `websocket.message_size_limit`.
pub const UNAUTHENTICATED_SIZE_MAX: usize = 64 * 1024 * 1024;

/// Bytes of an unfinished TLS record with its header and the expansion of ciphers (RFC 8446,
/// section 5.2).
pub const TLS_RECORD_MAX: usize = 5 + 16 * 1024 + 256;

/// Bytes of a PROXY header, including extensions behind the addresses.
pub const PROXY_HEADER_MAX: usize = 4 * 1024;

/// Interval between checks of the files of a certificate.
pub const CERTIFICATE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Time for the peer of an HTTP connection to close after our shutdown of writing.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Concurrent connections to the gRPC API: backends share few. Unauthenticated ones hold at most a
/// window of bytes each.
pub const GRPC_CONNECTIONS_MAX: usize = 1_024;

/// Connections to the gRPC API from one address (IPv6: of one /64).
pub const GRPC_CONNECTIONS_PER_ADDRESS_MAX: usize = GRPC_CONNECTIONS_MAX / 2;

/// Concurrent calls on one HTTP/2 connection; clients queue further ones.
pub const HTTP2_STREAMS_MAX: u32 = 256;

/// Bytes that a peer may send before they are read, on one HTTP/2 connection and on one of its
/// streams: the bandwidth of 100 Mbit/s over a round trip of 20 ms.
pub const HTTP2_WINDOW: u32 = 256 * 1024;

/// Bytes of an answer that are buffered per HTTP/2 stream before its peer takes them.
pub const HTTP2_SEND_BUFFER_MAX: usize = 256 * 1024;

/// Interval between pings on an HTTP/2 connection that receives nothing.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// Time for the answer to a ping.
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval between looks at the timeouts of an HTTP/2 connection.
pub const HTTP2_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Time in which the peer of an HTTP/2 connection must have taken an answer.
pub const ANSWER_TAKEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Total bytes of the messages of all gRPC calls under way: it bounds their number, further ones
/// wait unread.
pub const GRPC_MESSAGES_SIZE_MAX: usize = 1024 * 1024 * 1024;

/// Concurrent gRPC calls under way: what a broker answers within milliseconds.
pub const GRPC_CALLS_MAX: usize = 1_024;

/// Bytes of a gRPC message if `grpc_api.max_receive_message_size` is 0, as in other servers.
pub const GRPC_MESSAGE_MAX: usize = 4 * 1024 * 1024;

/// Time between two looks at readiness for a watch of the gRPC health service.
pub const GRPC_HEALTH_INTERVAL: Duration = Duration::from_secs(1);

const _: () = assert!(GRPC_MESSAGES_SIZE_MAX / GRPC_MESSAGE_MAX >= 256);

/// Bytes of an API request's body.
pub const API_BODY_MAX: usize = 8 * 1024 * 1024;

/// Time for the body of an API request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout of a request to the broker or to a worker.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(3);

/// An answer of all workers is reused for this multiple of its duration, so that continuous
/// requests take at most a twentieth of the workers' time.
pub const SURVEY_REUSE_FACTOR: u32 = 20;

/// Longest time for which an answer of all workers is reused.
pub const SURVEY_LIFETIME_MAX: Duration = Duration::from_secs(5);

/// Concurrent publications of one broadcast, and concurrent commands of one parallel batch.
pub const API_CONCURRENCY: usize = 1_024;

/// Consecutive publications of one batch that do not wait for each other's replies: what one
/// command to Redis carries. Other requests run between two such groups.
pub const API_PIPELINE: usize = 64;

/// Commands of one request, as lines or in batches, and channels of one broadcast.
pub const API_ITEMS_MAX: usize = 10_000;

/// Bytes of the response to one request of the server API, with all commands of a batch: several
/// times the largest history that is read at once, and far below the memory of a server.
pub const API_RESPONSE_MAX: usize = 32 * 1024 * 1024;

/// Bytes of a reply that every command of a request may have, whatever the others have: more than
/// results of methods that change something, and than usual errors.
pub const API_REPLY_FREE: usize = 256;

/// Bytes around a reply: the name of its method and punctuation.
pub const API_REPLY_FRAME: usize = 64;

const _: () = assert!(API_ITEMS_MAX * (API_REPLY_FREE + API_REPLY_FRAME) < API_RESPONSE_MAX / 8);

/// Bytes of a broadcast's result about one channel: offset, epoch and names of fields. They are
/// reserved before the broadcast runs.
pub const API_PUBLISHED_MAX: usize = 128;

const _: () = assert!(API_ITEMS_MAX * API_PUBLISHED_MAX < API_RESPONSE_MAX / 8);

/// Concurrent reads of histories and presences for the server API; further ones wait. Together with
/// [`API_RESPONSE_MAX`] it bounds the memory of all requests.
pub const API_READS_MAX: usize = 16;

/// Log lines about refusals of one subject at once: enough to identify the clients.
pub const REFUSAL_LINES_MAX: f64 = 20.0;

/// Log lines about refusals of one subject per second in the long run: at most a few hundred
/// megabytes a day.
pub const REFUSAL_LINES_PER_SECOND: f64 = 2.0;

/// Bytes of a peer's text in one log line.
pub const LOGGED_BYTES_MAX: usize = 256;

/// Bytes of a pattern of channel names: several times the length of usual names.
pub const PATTERN_LENGTH_MAX: usize = 1024;

/// Bytes of a compiled pattern: enough for the longest pattern with its classes.
pub const PATTERN_SIZE_MAX: usize = 1024 * 1024;

/// Time for matching this node's channels with a pattern, after which the answer is truncated. Less
/// than the time that other nodes wait for it.
pub const PATTERN_TIMEOUT: Duration = Duration::from_millis(500);

/// Names matched between two reads of the clock.
pub const NAMES_PER_LOOK: usize = 256;

/// Queued questions of other nodes; further ones are not answered.
pub const NODE_QUERIES_QUEUED_MAX: usize = 64;

/// Concurrent questions of this node to all others; further ones wait. Their answers stay far below
/// the 8 MiB that Redis buffers for a subscriber.
pub const SURVEYS_MAX: usize = 4;

/// Bytes of channel names in the answer of one node: below the smallest message limit of the
/// brokers (NATS, 1 MiB).
pub const ANSWER_SIZE_MAX: usize = 512 * 1024;

/// Clients in the answer of one node: with a hundred channels each they fill the largest answer.
pub const CLIENTS_ANSWER_MAX: usize = 200;

/// Subscribers in one response of the server API: with usual ids they fit into the answer of one
/// node.
pub const SUBSCRIBERS_PER_PAGE_MAX: usize = 1_000;

/// Subscribers in one response of the server API if the call has no limit.
pub const SUBSCRIBERS_PER_PAGE: usize = 100;

/// Time in which a starting node that does not wait for its broker must have read the dynamic
/// configuration.
pub const START_PATIENCE: Duration = Duration::from_secs(10);

/// Time for the broker to notify other nodes of the end of this one.
pub const BROKER_END_TIMEOUT: Duration = Duration::from_secs(5);

/// Delay before dynamic configuration is read again after a failure.
pub const CONFIG_RETRY_AFTER: Duration = Duration::from_millis(500);

/// Interval between removals of expired revocations.
pub const REVOCATIONS_EXPIRE_EVERY: Duration = Duration::from_secs(30);

/// Interval between comparisons with the revocations of the broker. For this time, a node that
/// starts may miss revocations that were deleted there.
pub const REVOCATIONS_READ_EVERY: Duration = Duration::from_secs(10);

/// A long comparison is repeated after this multiple of its duration, so that comparisons take at
/// most half a percent of the time.
pub const REVOCATIONS_READ_SHARE: u32 = 200;

/// Attempts of one call to change a revocation while other nodes change the same subject. Each
/// attempt follows a concurrent change of another node.
pub const REVOCATION_ATTEMPTS_MAX: u32 = 5;

/// Revocations in one response of the server API: a megabyte with the longest ids.
pub const REVOCATIONS_PER_PAGE_MAX: usize = 1_000;

/// Revocations in one response of the server API if the call has no limit.
pub const REVOCATIONS_PER_PAGE: usize = 100;

/// Default duration of a revocation in seconds: longer than the lifetime of usual tokens.
pub const REVOCATION_TTL_S: i64 = 365 * 24 * 3600;

/// Longest duration of a revocation in seconds. Permanent blocks belong into the backend that
/// issues tokens.
pub const REVOCATION_TTL_MAX_S: i64 = 10 * REVOCATION_TTL_S;

/// Tokens that wait for verification outside the workers, and tokens that wait for their keys;
/// beyond that the verdict is "unavailable" at once.
pub const VERIFICATIONS_MAX: usize = 4_096;

/// Threads that verify expensive tokens. One more thread fetches keys, one fetch at a time.
pub const VERIFIER_THREADS: usize = 2;

/// Connections that the kernel queues before they are accepted.
pub const LISTEN_BACKLOG: u32 = 4_096;

const _: () = assert!(READ_BUFFER >= 2 * wire::limits::CONTROL_PAYLOAD_MAX);

/// Delay before a task that has ended is restarted. It doubles with each end up to
/// [`TASK_RESTART_DELAY_MAX`], so that a task that cannot run neither floods the log nor occupies a
/// core.
pub const TASK_RESTART_DELAY: Duration = Duration::from_millis(100);

/// Longest delay before a task is restarted, which bounds the recovery time after the cause is
/// removed.
pub const TASK_RESTART_DELAY_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(TASK_RESTART_DELAY.as_millis() < TASK_RESTART_DELAY_MAX.as_millis());

/// Bytes of queued log lines: some seconds of the busiest log. Twice as much is held while they are
/// written.
pub const LOG_QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Time for which a thread waits until its line of level error is written, because it may end the
/// process.
pub const LOG_ERROR_WAIT: Duration = Duration::from_millis(200);

/// Time to write the queued log lines at the end of the process.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Time in which consumers must stop: they finish what has started, and leave their groups.
pub const CONSUMERS_STOP_TIMEOUT: Duration = Duration::from_secs(10);
