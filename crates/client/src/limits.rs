//! Every bound of this crate, with its reason.

use std::time::Duration;

/// Bytes of one received message. A server sends at most its own bound of a client's queue at once
/// (1 MiB by default); a recovery of 300 publications of 64 KiB is 19 MiB.
pub const MESSAGE_SIZE_MAX: u32 = 64 * 1024 * 1024;

/// Bytes of commands that wait for the socket or for a reply. Beyond it new calls are refused by
/// the session, and wait in the driver.
pub const OUTGOING_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of events that wait for the application. Beyond it the driver stops reading the socket, so
/// that the server sees a slow client.
pub const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of the names and positions of server-side subscriptions: each push may add one.
pub const SERVER_SUBSCRIPTION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of the epoch in a position that is kept; servers use fewer than 64.
pub const EPOCH_SIZE_MAX: usize = 256;

/// Bytes of a frame to which further commands are added. Servers accept 64 KiB in a message by
/// default.
pub const FRAME_SIZE_MAX: usize = 32 * 1024;

/// Bytes of the head of the server's answer to the handshake; servers and proxies allow 8 to 16
/// KiB.
pub const RESPONSE_HEAD_MAX: usize = 16 * 1024;

/// Bytes of the body of a refused handshake that are read for its first line.
pub const REFUSAL_BODY_MAX: usize = 1024;

/// Bytes that are counted for a command beside its payload and channel.
pub const COMMAND_OVERHEAD: usize = 128;

/// Calls that may wait in the channel between the handles and the driver.
pub const REQUEST_QUEUE_MAX: usize = 64;

/// Bytes read from the socket at once.
pub const READ_SIZE: usize = 64 * 1024;

/// Time for the last bytes of a connection, among them the close frame.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that a connection must have lived for the next delay to be the first one again, and time
/// between two subscriptions to a channel that are made at once after the server ended one. A
/// server that accepts and ends at once would be asked without a pause otherwise.
pub const STABLE_TIME: Duration = Duration::from_secs(5);

/// Least and most time before a failed refresh of the connection token is tried again, as in the
/// official SDKs.
pub const REFRESH_RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

/// Least and most time before a failed refresh of a subscription token is tried again, as in the
/// official SDKs.
pub const SUB_REFRESH_RETRY: (Duration, Duration) =
    (Duration::from_secs(10), Duration::from_secs(20));

/// Least time until a token is renewed, whatever lifetime the server gives it: a lifetime of zero
/// would have the application's backend asked without a pause.
pub const TTL_MIN: Duration = Duration::from_secs(1);

/// Longest time of any timer, so that adding it to an instant never overflows: lifetimes that a
/// server gives, and options, are cut to it. The server cuts lifetimes to one year as well.
pub const TIMER_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Time after which the next address of a host is tried while the last one has not answered (RFC
/// 8305 §5 recommends 250 ms).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of a host that are tried: those that begin within the 5 s of an attempt to connect.
pub const ADDRESSES_MAX: usize = 20;

const _: () = assert!(FRAME_SIZE_MAX < OUTGOING_BYTES_MAX);
