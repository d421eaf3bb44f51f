//! Commands in JSON: a message decodes to what its lines decode to one by one, and encoding and
//! decoding in either codec preserves the meaning.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wire::limits::COMMANDS_PER_MESSAGE_MAX;
use wire::protocol::{Codec, Command, Request, decode_commands, encode_command};

fuzz_target!(|message: &[u8]| {
    let lines = message.strip_suffix(b"\n").unwrap_or(message).split(|byte| *byte == b'\n');
    let one_by_one: Result<Vec<_>, _> =
        lines.map(|line| decode_commands(Codec::Json, line)).collect();
    let commands = match (decode_commands(Codec::Json, message), one_by_one) {
        (Ok(commands), Ok(one_by_one)) => {
            assert_eq!(commands, one_by_one.concat());
            commands
        }
        (Err(_), Err(_)) => return,
        (Err(_), Ok(lines)) if lines.len() > COMMANDS_PER_MESSAGE_MAX => return,
        (batch, lines) => panic!("{batch:?} but {lines:?}"),
    };
    assert!((1..=COMMANDS_PER_MESSAGE_MAX).contains(&commands.len()));
    assert_eq!(again(Codec::Protobuf, &commands), commands);
    let plain: Vec<Command> = commands.iter().map(without_line_breaks).collect();
    assert_eq!(again(Codec::Json, &commands), plain);
});

fn again(codec: Codec, commands: &[Command]) -> Vec<Command> {
    let mut message = Vec::new();
    commands.iter().for_each(|command| encode_command(codec, command, &mut message));
    decode_commands(codec, &message).expect("what we write can be read")
}

/// Line breaks between the tokens of a payload are dropped by the encoder.
fn without_line_breaks(command: &Command) -> Command {
    let strip = |data: &mut Bytes| {
        *data = data.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    };
    let mut command = command.clone();
    match &mut command.request {
        Request::Connect(request) => {
            strip(&mut request.data);
            request.subs.iter_mut().for_each(|(_, request)| strip(&mut request.data));
        }
        Request::Subscribe(request) => strip(&mut request.data),
        Request::Publish(request) => strip(&mut request.data),
        Request::Rpc { data, .. } | Request::Send { data } => strip(data),
        _ => {}
    }
    command
}
