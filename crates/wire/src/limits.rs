//! Every bound of this crate, with its reason. Nothing else in the crate may invent a number of its
//! own.

/// Bytes of a control frame's payload at most (RFC 6455 §5.5).
pub const CONTROL_PAYLOAD_MAX: usize = 125;

/// Bytes of the reason text in a close frame: the control payload less the two bytes of the code.
pub const CLOSE_REASON_MAX: usize = CONTROL_PAYLOAD_MAX - 2;

/// Bytes of one incoming message by default (option `websocket.message_size_limit`, protocol §2.3).
pub const MESSAGE_SIZE_DEFAULT: usize = 65_536;

/// Bytes of an inflated message, as a multiple of the message limit, when nothing else is
/// configured (option `websocket.decompressed_message_size_limit`, protocol §2.3).
pub const INFLATED_SIZE_FACTOR: usize = 10;

/// Fragments of one message at most. Autobahn case 9.3.1 sends 65,536; beyond that a peer only
/// burns our time.
pub const FRAGMENTS_MAX: u32 = 131_072;

/// Commands in one message at most. A client batches one connect and its subscriptions, of which a
/// session holds 128 by default and some thousands where that is configured.
pub const COMMANDS_PER_MESSAGE_MAX: usize = 16_384;

/// Levels of arrays and objects in a JSON payload at most. Parsers of several client libraries
/// recurse, and none of them allows less.
pub const JSON_DEPTH_MAX: usize = 128;

const _: () = assert!(CLOSE_REASON_MAX == 123, "protocol §1.18 states 123");
