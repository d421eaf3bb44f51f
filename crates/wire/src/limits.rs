//! The limits of this crate, each with its reason.

/// Maximum bytes of a control frame's payload (RFC 6455 §5.5).
pub const CONTROL_PAYLOAD_MAX: usize = 125;

/// Maximum bytes of the reason in a close frame: the control payload without the two bytes of the
/// code.
pub const CLOSE_REASON_MAX: usize = CONTROL_PAYLOAD_MAX - 2;

/// Default maximum bytes of an incoming message (option `websocket.message_size_limit`).
pub const MESSAGE_SIZE_DEFAULT: usize = 65_536;

/// Default maximum bytes of an inflated message, as a multiple of the message limit (option
/// `websocket.decompressed_message_size_limit`).
pub const INFLATED_SIZE_FACTOR: usize = 10;

/// Maximum number of fragments of one message. Autobahn case 9.3.1 sends 65,536; more only cost
/// time.
pub const FRAGMENTS_MAX: u32 = 131_072;

/// Maximum number of commands in one message. A client batches one connect with its subscriptions,
/// of which a session has at most 128 by default and some thousands if configured.
pub const COMMANDS_PER_MESSAGE_MAX: usize = 16_384;

/// Publications, clients, subscriptions and tags that any one message may have. The largest history
/// that a server sends by default has fewer.
pub const ITEMS_PER_MESSAGE_FREE: usize = 65_536;

/// Bytes of a message for each of them beyond that: a decoded item holds some hundred bytes, so
/// that a message of empty items would otherwise need a hundred times its size.
pub const ITEM_SIZE_MIN: usize = 64;

/// Maximum depth of arrays and objects in a JSON payload. Parsers of several client libraries
/// recurse, and none of them allows less.
pub const JSON_DEPTH_MAX: usize = 128;

const _: () =
    assert!(CLOSE_REASON_MAX == 123, "RFC 6455 §5.5 allows 125 bytes, and the code takes two");
