//! Commands in Protobuf: encoding and decoding preserves a command, alone or in a batch.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::limits::COMMANDS_PER_MESSAGE_MAX;
use wire::protocol::{Codec, decode_commands, encode_command};

fuzz_target!(|message: &[u8]| {
    let Ok(commands) = decode_commands(Codec::Protobuf, message) else { return };
    assert!((1..=COMMANDS_PER_MESSAGE_MAX).contains(&commands.len()));
    let mut batch = Vec::new();
    for command in &commands {
        let start = batch.len();
        encode_command(Codec::Protobuf, command, &mut batch);
        let alone = decode_commands(Codec::Protobuf, &batch[start..]);
        assert_eq!(alone.as_deref(), Ok(std::slice::from_ref(command)));
    }
    // A truncated message has fewer commands, if it is not rejected.
    let short = decode_commands(Codec::Protobuf, &batch[..batch.len() - 1]);
    assert!(short.is_err() || short.is_ok_and(|short| short == commands[..commands.len() - 1]));
    assert_eq!(decode_commands(Codec::Protobuf, &batch), Ok(commands));
});
