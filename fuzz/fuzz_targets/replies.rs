//! Replies as a client decodes them: after one encoding and decoding they stay the same.
//!
//! Input: a codec, then a message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::protocol::{Codec, Reply, decode_replies, encode_reply};

fuzz_target!(|input: &[u8]| {
    let Some((choice, message)) = input.split_first() else { return };
    let codec = if choice & 1 == 0 { Codec::Json } else { Codec::Protobuf };
    let Ok(replies) = decode_replies(codec, message) else { return };
    let written = write(codec, &replies);
    let again = decode_replies(codec, &written).expect("what we write can be read");
    assert_eq!(write(codec, &again), written);
    if codec == Codec::Protobuf || !message.contains(&b'\r') {
        // A payload's line breaks are dropped by the encoder.
        assert_eq!(again, replies);
    }
});

fn write(codec: Codec, replies: &[Reply]) -> Vec<u8> {
    let mut message = Vec::new();
    replies.iter().for_each(|reply| encode_reply(codec, reply, &mut message));
    message
}
