//! Every bound of this crate, with its reason, and the relations between them.

pub(crate) mod slots;
pub(crate) mod throttle;

use std::time::Duration;

/// Bytes of a worker's one read buffer: whatever one peer sends, a turn takes at most so much of it
/// at once.
pub const READ_BUFFER: usize = 64 * 1024;

/// Reads of one connection in one turn; a peer that sends without end must not keep the others
/// waiting.
pub const READS_PER_TURN: usize = 8;

/// Bytes of a configuration file: ten thousand namespaces have a tenth of that, and a file without
/// an end has more.
pub const CONFIG_FILE_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of a compiled regular expression of the configuration: two hundred times what names and
/// claims need, and nobody notices it in memory.
pub const EXPRESSION_SIZE_MAX: usize = 10 * 1024 * 1024;

/// Bytes of an error about the body of a server API call: what was expected fits, and a value of
/// megabytes is not sent back.
pub const UNREADABLE_LENGTH_MAX: usize = 300;

/// Frames written by one system call.
pub const SLICES_PER_WRITE: usize = 64;

/// Events that an inbox holds before publishers are told to wait: half a second of the fastest
/// worker.
pub const INBOX_EVENTS_MAX: usize = 500_000;

/// Milliseconds after which a turn begins no other pass: what follows waits behind the sockets of
/// all others.
pub const TURN_MS_MAX: u64 = 10;

/// Passes over inbox and effects in one turn before sockets are looked at again.
pub const PASSES_PER_TURN: usize = 64;

/// Time that a peer has to answer our close frame (protocol §1.18).
pub const CLOSE_TIMEOUT_MS: u64 = 5_000;

/// Time from our close frame to the end of our side of the stream, for a peer that has not
/// answered: what a browser needs to send what it has queued, and its own close frame.
pub const HALF_CLOSE_DELAY_MS: u64 = 1_000;

/// Bytes that a peer may send after our last word before its socket is closed whether it has read
/// that or not: what a browser has under way when it is told that a message is too large.
pub const LINGER_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Time for the head of an HTTP request. A handshake that drips is cut off here.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time in which the peer of an HTTP connection must take something of what it asked for.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP connections (handshakes and API calls) of a listener at the same time; beyond that idle
/// ones make room.
pub const HTTP_CONNECTIONS_MAX: usize = 8_192;

/// HTTP connections of one address (IPv6: of one /64). A proxy that is not trusted has one for all
/// its clients.
pub const HTTP_CONNECTIONS_PER_ADDRESS_MAX: usize = HTTP_CONNECTIONS_MAX / 2;

/// Bytes of the head of an HTTP request (431). Cookies and tokens of real requests stay below half
/// of it.
pub const HEAD_SIZE_MAX: usize = 32 * 1024;

/// Bytes of all unfinished heads of a listener together, and of requests that were sent behind the
/// one that is handled: what 8,192 handshakes of real clients need.
pub const HEADS_SIZE_MAX: usize = 32 * 1024 * 1024;

/// Bytes that WebSocket connections have sent before they are admitted, all of them together: what
/// 16,384 connect commands with tokens need. Without it each could hold an unfinished message of
/// `websocket.message_size_limit`.
pub const UNAUTHENTICATED_SIZE_MAX: usize = 64 * 1024 * 1024;

/// Bytes of an unfinished record of TLS, with its header and what ciphers add (RFC 8446, section
/// 5.2).
pub const TLS_RECORD_MAX: usize = 5 + 16 * 1024 + 256;

/// Bytes of a PROXY header, with what proxies add behind the addresses.
pub const PROXY_HEADER_MAX: usize = 4 * 1024;

/// Time between two looks at the files of a certificate.
pub const CERTIFICATE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Time for the peer of an HTTP connection to end it after us.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an API request's body.
pub const API_BODY_MAX: usize = 8 * 1024 * 1024;

/// Time for the body of an API request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Time after which a question to the broker or to a worker is given up.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// An answer of all workers is good for so many times as long as it took: whoever asks without end
/// keeps workers busy for a twentieth of their time at most.
pub const SURVEY_REUSE_FACTOR: u32 = 20;

/// But not for longer than this.
pub const SURVEY_LIFETIME_MAX: Duration = Duration::from_secs(5);

/// Publications of one broadcast, and commands of one parallel batch, that are under way at once
/// (protocol §3.3).
pub const API_CONCURRENCY: usize = 1_024;

/// Commands of one batch, and channels of one broadcast, at most.
pub const API_ITEMS_MAX: usize = 10_000;

/// Bytes of the answer to one request of the server API, all commands of a batch together. Several
/// times the largest history that is read in one piece; far below what a process may hold.
pub const API_ANSWER_MAX: usize = 32 * 1024 * 1024;

/// Histories and presences that are read for the server API at once; one more waits. Together with
/// [`API_ANSWER_MAX`] it bounds what all requests hold.
pub const API_READS_MAX: usize = 16;

/// Lines about refusals of one subject that are logged at once: enough to see who is meant.
pub const REFUSAL_LINES_MAX: f64 = 20.0;

/// And in a second in the long run: a day of them is a few hundred megabytes at most.
pub const REFUSAL_LINES_PER_SECOND: f64 = 2.0;

/// Bytes of what a peer sent that stand in one line of the log.
pub const LOGGED_BYTES_MAX: usize = 256;

/// Bytes of a pattern of channel names: several times the longest usual name.
pub const PATTERN_LENGTH_MAX: usize = 1024;

/// Bytes of a compiled pattern: what the longest pattern needs, with its classes.
pub const PATTERN_SIZE_MAX: usize = 1024 * 1024;

/// Time for comparing the names of this node's channels with a pattern; then the answer is cut.
/// Less than the time that other nodes wait for it.
pub const PATTERN_TIMEOUT: Duration = Duration::from_millis(500);

/// Names compared between two looks at the clock.
pub const NAMES_PER_LOOK: usize = 256;

/// Questions of other nodes that wait for this one; one more is not answered.
pub const QUESTIONS_MAX: usize = 64;

/// Questions of this node to all others at once; one more waits. Their answers stay far below the 8
/// MiB that Redis lets pile up.
pub const SURVEYS_MAX: usize = 4;

/// Bytes of channel names in the answer of one node: what the smallest message limit of the brokers
/// (NATS, 1 MiB) takes.
pub const ANSWER_SIZE_MAX: usize = 512 * 1024;

/// Clients in the answer of one node: with a hundred channels each it has the size of the largest
/// answer.
pub const CLIENTS_ANSWER_MAX: usize = 200;

/// Time in which a starting node that does not wait for its broker has read what was changed
/// before.
pub const START_PATIENCE: Duration = Duration::from_secs(10);

/// Time for the broker to tell other nodes that this one is gone.
pub const BROKER_END_TIMEOUT: Duration = Duration::from_secs(5);

/// Time after which changes of the configuration are read again that could not be read.
pub const CONFIG_RETRY_AFTER: Duration = Duration::from_millis(500);

/// Time between two looks at which revocations are over.
pub const REVOCATIONS_EXPIRE_EVERY: Duration = Duration::from_secs(30);

/// Time between two comparisons with what the broker stores: for so long may a node that starts not
/// know what somebody has deleted there.
pub const REVOCATIONS_READ_EVERY: Duration = Duration::from_secs(10);

/// A comparison that takes longer is repeated after so many times its duration: it takes half a
/// percent of the time.
pub const REVOCATIONS_READ_SHARE: u32 = 200;

/// Attempts of one call to change what is revoked while other nodes change the same subject. Each
/// is behind a change that another node has made meanwhile.
pub const REVOCATION_ATTEMPTS_MAX: u32 = 5;

/// Revocations in one answer of the server API: a megabyte with the longest ids.
pub const REVOCATIONS_PER_PAGE_MAX: usize = 1_000;

/// The same when the caller does not say how many.
pub const REVOCATIONS_PER_PAGE: usize = 100;

/// Seconds for which something is revoked when nobody says how long: longer than tokens live.
pub const REVOCATION_TTL_S: i64 = 365 * 24 * 3600;

/// Seconds for which something is revoked at most: what is to last longer belongs into the backend
/// that issues tokens.
pub const REVOCATION_TTL_MAX_S: i64 = 10 * REVOCATION_TTL_S;

/// Tokens that wait for verification outside the workers, and as many for their keys; beyond that
/// the verdict is "unavailable" at once.
pub const VERIFICATIONS_MAX: usize = 4_096;

/// Threads that verify tokens which cost much; one more waits for key servers, one fetch at a time.
pub const VERIFIER_THREADS: usize = 2;

/// Connections that wait to be accepted by the kernel.
pub const LISTEN_BACKLOG: u32 = 4_096;

const _: () = assert!(READ_BUFFER >= 2 * wire::limits::CONTROL_PAYLOAD_MAX);

/// Pause before a task that has ended is started again; it doubles with each end up to
/// [`TASK_RESTART_DELAY_MAX`], so that a task that cannot run neither fills the log nor takes a
/// core.
pub const TASK_RESTART_DELAY: Duration = Duration::from_millis(100);

/// Longest pause before a task is started again: what an operator waits for after the cause has
/// gone.
pub const TASK_RESTART_DELAY_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(TASK_RESTART_DELAY.as_millis() < TASK_RESTART_DELAY_MAX.as_millis());

/// Bytes of log lines that wait for standard error to be read: some seconds of the busiest log.
/// Twice as much is held while they are written.
pub const LOG_QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Time for a line of level error to be written before its thread goes on, which may end the
/// process.
pub const LOG_ERROR_WAIT: Duration = Duration::from_millis(200);

/// Time at the end of the process for the log to be written.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
