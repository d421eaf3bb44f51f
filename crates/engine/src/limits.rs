//! The limits of this crate, each with its reason, and the relations between them.

/// Maximum number of commands queued while a session is blocked, for example by the verification of
/// its token. Reading from the peer stops long before; a peer that exceeds this limit floods
/// (3013).
pub const BACKLOG_COMMANDS_MAX: usize = 2 * wire::limits::COMMANDS_PER_MESSAGE_MAX;

/// Number of queued commands at which reading from the peer stops.
pub const BACKLOG_COMMANDS_PAUSE: usize = 256;

/// Maximum bytes of queued messages; a peer that exceeds it floods (3013). One read may return
/// several messages of the default size, and inflate to ten times that.
pub const BACKLOG_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of queued messages at which reading from the peer stops.
pub const BACKLOG_BYTES_PAUSE: usize = 64 * 1024;

/// Maximum number of a session's commands that await the broker. Further commands are queued until
/// half of them are answered.
pub const PENDING_COMMANDS_MAX: u16 = 128;

/// Of these, commands whose answers may be as large as a reply can be: history and presence. Few,
/// so that the answers of one session do not delay the other sessions of its worker.
pub const PENDING_HEAVY_COMMANDS_MAX: u16 = 4;

/// Maximum bytes of revocations that a node stores: some hundred thousand of them.
pub const REVOCATIONS_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of a stored revocation beside the id that it names.
pub const REVOCATION_COST: usize = 192;

/// Maximum bytes of a user id or token id. A longer id is rejected where it arrives: in a token, in
/// a proxy's header, in the server API. So every admitted user can be revoked, and brokers can
/// carry the id. OpenID Connect allows user ids of 255 characters.
pub const ID_BYTES_MAX: usize = 1024;

/// Number of effects in the queue above which no more notices are added: more of them tell an
/// operator nothing new.
pub const NOTES_MAX: usize = 256;

/// Maximum number of characters of a claim shown to operators: enough for usual user ids and
/// channels.
pub const NOTED_CHARACTERS_MAX: usize = 128;

/// Bytes that a queued frame costs beside its content: its entry in the queue, reserved header
/// space, shared-pointer state. It bounds a peer that requests millions of tiny replies and reads
/// none.
pub const FRAME_COST: usize = 128;

/// Maximum bytes of publications in one reply to a client: half of `client.queue_max_size`, so that
/// a reply that waits for a slow socket leaves as much room for publications meanwhile. History is
/// truncated there and the client reads on from the last publication. A recovery that does not fit
/// is refused (`recovered: false`). All recoveries of a connect command share the limit. One
/// publication always fits: a client must be able to read what it could be sent.
#[must_use]
pub const fn reply_bytes_max(queue_max_size: usize) -> usize {
    queue_max_size / 2
}

/// Bytes that a retained publication costs beside its texts: the struct, shared-pointer state and
/// its entry in the stream.
pub const PUBLICATION_COST: usize = 256;

/// Milliseconds of one tick of the timer wheel. No timer of a session is shorter than a second.
pub const WHEEL_TICK_MS: u64 = 128;

/// Slots of the timer wheel. With the tick, the horizon is 32 s, just above the default ping
/// interval.
pub const WHEEL_SLOTS: usize = 256;

/// Milliseconds of one tick of the wheel that schedules comparisons of channels. With its slots,
/// the horizon is two minutes, far above the default delay between two comparisons.
pub const CHECK_TICK_MS: u64 = 512;

/// Maximum number of channels that one turn compares with the broker: as many requests as take some
/// milliseconds, and a hundredth of [`PENDING_MAX`].
pub const CHECKS_PER_TURN: usize = 1_000;

/// Maximum number of publications that the server's own channels retain: changes of the dynamic
/// configuration, which a starting node reads.
pub const SYSTEM_HISTORY_SIZE: u32 = 1_000;

/// Milliseconds for which they are retained: a year, the maximum for any history.
pub const SYSTEM_HISTORY_TTL_MS: u64 = 365 * 24 * 3_600_000;

/// Maximum number of pending leave messages of one worker; above it the oldest are published early.
pub const DELAYED_LEAVES_MAX: usize = 100_000;

/// Milliseconds for which an idempotency key is stored: five minutes (docs/api.md).
pub const IDEMPOTENCY_TTL_MS: u64 = 300_000;

/// Maximum lifetime in seconds reported to a client: one year.
pub const TTL_SECONDS_MAX: i64 = 365 * 24 * 3600;

/// Seconds for which a connection or subscription continues whose backend could not say whether it
/// does; then it is asked again. As in the compatible server.
pub const RENEWAL_RETRY_SECONDS: i64 = 60;

const _: () = assert!(ID_BYTES_MAX + REVOCATION_COST < REVOCATIONS_BYTES_MAX / 1_000);
const _: () = assert!(PENDING_COMMANDS_MAX.is_multiple_of(PENDING_HEAVY_COMMANDS_MAX));
const _: () = assert!(BACKLOG_COMMANDS_MAX >= wire::limits::COMMANDS_PER_MESSAGE_MAX);
const _: () = assert!(BACKLOG_COMMANDS_PAUSE < BACKLOG_COMMANDS_MAX);
const _: () = assert!(BACKLOG_BYTES_PAUSE < BACKLOG_BYTES_MAX);
const _: () = assert!(CHECKS_PER_TURN * 100 <= PENDING_MAX);
const _: () = assert!(WHEEL_SLOTS.is_power_of_two(), "the slot of a tick is found by a mask");
const _: () = assert!(WHEEL_SLOTS >= 64, "slots are marked in words of 64 bits");

/// Maximum number of tokens of a bucket and of a rate's window; keeps their sums far from overflow.
pub const BUCKET_TOKENS_MAX: u32 = 1_000_000_000;

/// Maximum milliseconds in which an empty bucket becomes full: a week, well within the 24 days that
/// the time stamp of a connection's buckets can represent.
pub const BUCKET_FILL_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Number of buckets of users, addresses and keys that one node stores while they are not full: 16
/// bytes each, 1 MiB in total.
pub const SHARED_BUCKETS: usize = 65_536;

/// Number of channels that a worker stores as recently seen: 4 bytes each, 256 KiB in total.
/// Clients that invent channels at the default rate over a thousand connections need three seconds
/// to displace them.
pub const RECENT_CHANNELS: usize = 65_536;

const _: () = assert!(BUCKET_FILL_MS_MAX < (u32::MAX / 2) as u64);

/// Maximum number of requests of one worker that await the broker. With replies within a
/// millisecond this allows a hundred million a second. It bounds memory when the broker stops
/// answering (111).
pub const PENDING_MAX: usize = 100_000;
