//! Every bound of this crate, with its reason, and the relations between them.

/// Commands that wait while a session waits for something itself, such as the verdict on its token.
/// Its peer is not read any further long before: more than this is a flood (3013).
pub const BACKLOG_COMMANDS_MAX: usize = 2 * wire::limits::COMMANDS_PER_MESSAGE_MAX;

/// Commands that wait before the peer is not read any further.
pub const BACKLOG_COMMANDS_WANTED: usize = 256;

/// Bytes of messages that wait; beyond, it is a flood (3013). One read may hold several messages of
/// the default size, and inflate to ten times that.
pub const BACKLOG_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of messages that wait before the peer is not read any further.
pub const BACKLOG_BYTES_WANTED: usize = 64 * 1024;

/// Commands of one session that the broker has not answered; more wait until half of them are.
pub const QUESTIONS_MAX: u16 = 128;

/// Such commands whose answers may be as large as a reply can be: histories and presences. So few
/// that the answers of one session do not keep the others of its worker waiting.
pub const HEAVY_QUESTIONS_MAX: u16 = 4;

/// Bytes of revocations that a node holds: some hundred thousand of them.
pub const REVOCATIONS_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes that one takes beside the id that it names.
pub const REVOCATION_COST: usize = 192;

/// Bytes of a user id or token id. A longer one is refused where it arrives: in a token, in a
/// header of a proxy, in the server API. So whoever is admitted can be revoked, and brokers can
/// carry the name. OpenID Connect allows user ids 255 characters.
pub const ID_BYTES_MAX: usize = 1024;

/// Effects that wait for the driver before refusals are not noted any more: an operator learns
/// nothing from more of them.
pub const NOTES_MAX: usize = 256;

/// Characters of a claim that operators are shown: enough for any user id or channel that is meant.
pub const NOTED_CHARACTERS_MAX: usize = 128;

/// Bytes that a queued frame costs beside its own: its place in the queue, its header's room, what
/// shares it. A peer that asks for millions of tiny answers and reads none is bounded by this.
pub const FRAME_COST: usize = 128;

/// Bytes of publications in one reply to a client, of `client.queue_max_size`: half of them, so
/// that a reply that waits for a slow socket leaves as much room for what is published meanwhile.
/// History is cut there and the client reads on from the last publication; a recovery that does not
/// fit is refused (`recovered: false`); all recoveries of a connect command share it. One
/// publication always fits: a client must be able to read what it could be sent.
#[must_use]
pub const fn reply_bytes_max(queue_max_size: usize) -> usize {
    queue_max_size / 2
}

/// Bytes that a retained publication costs beside its texts: the publication, what shares it and
/// its place in the stream.
pub const PUBLICATION_COST: usize = 256;

/// Milliseconds of one turn of the timer wheel. Nothing that a session waits for is shorter than a
/// second.
pub const WHEEL_TICK_MS: u64 = 128;

/// Slots of the timer wheel: with the tick, a horizon of 32 s, just above the usual ping interval.
pub const WHEEL_SLOTS: usize = 256;

/// Milliseconds of one turn of the wheel of channels that wait to be compared with the broker: with
/// its slots, a horizon of two minutes, far above the usual delay between two comparisons.
pub const CHECK_TICK_MS: u64 = 512;

/// Channels that one turn compares with the broker: as many questions as are asked within some
/// milliseconds, a hundred times fewer than may be open.
pub const CHECKS_PER_TURN: usize = 1_000;

/// Publications that the channels of the server itself retain: changes of options that a starting
/// node reads.
pub const SYSTEM_HISTORY_SIZE: u32 = 1_000;

/// Milliseconds for which they retain them: a year, as long as any history may be kept.
pub const SYSTEM_HISTORY_TTL_MS: u64 = 365 * 24 * 3_600_000;

/// Departures that one worker keeps back; of more, the oldest are told before their time.
pub const DEPARTURES_MAX: usize = 100_000;

/// Milliseconds that an idempotency key is remembered (protocol §3.3: five minutes).
pub const IDEMPOTENCY_TTL_MS: u64 = 300_000;

/// Seconds of a lifetime told to a client at most: one year (protocol §1.11).
pub const TTL_SECONDS_MAX: i64 = 365 * 24 * 3600;

const _: () = assert!(ID_BYTES_MAX + REVOCATION_COST < REVOCATIONS_BYTES_MAX / 1_000);
const _: () = assert!(QUESTIONS_MAX.is_multiple_of(HEAVY_QUESTIONS_MAX));
const _: () = assert!(BACKLOG_COMMANDS_MAX >= wire::limits::COMMANDS_PER_MESSAGE_MAX);
const _: () = assert!(BACKLOG_COMMANDS_WANTED < BACKLOG_COMMANDS_MAX);
const _: () = assert!(BACKLOG_BYTES_WANTED < BACKLOG_BYTES_MAX);
const _: () = assert!(CHECKS_PER_TURN * 100 <= PENDING_MAX);
const _: () = assert!(WHEEL_SLOTS.is_power_of_two(), "the slot of a tick is found by a mask");

/// Tokens of a bucket, and of a rate's window, at most: what keeps sums of them far from overflow.
pub const BUCKET_TOKENS_MAX: u32 = 1_000_000_000;

/// Milliseconds in which an empty bucket must be full again: a week, well within the 24 days that
/// the time stamp of a connection's buckets tells apart.
pub const BUCKET_FILL_MS_MAX: u64 = 7 * 24 * 3_600_000;

/// Buckets of users, addresses and keys that one node remembers while they are not full: 16 bytes
/// each, 1 MiB.
pub const SHARED_BUCKETS: usize = 65_536;

/// Channels that a worker remembers as known: 4 bytes each, 256 KiB. Whoever makes up channels at
/// the default rate on a thousand connections takes three seconds to displace as many.
pub const RECENT_CHANNELS: usize = 65_536;

const _: () = assert!(BUCKET_FILL_MS_MAX < (u32::MAX / 2) as u64);

/// Questions to the broker that one worker may have open. With answers within a millisecond this is
/// a hundred million a second; with a broker that stopped answering, it keeps memory bounded (111).
pub const PENDING_MAX: usize = 100_000;
