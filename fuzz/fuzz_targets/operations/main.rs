//! One worker with the memory broker and the peers of its sessions, driven by a random list of
//! operations: commands, verdicts, broker events that are late or lost, time, blocked sockets and
//! closed sockets.
//!
//! Input: a byte that decides whether every operation is a turn of its own, then records of
//! operations.
//!
//! Assertions: each peer checks what it receives (`peer`), every operation is followed by a check
//! (`world`), and the end of the list by a final one (`ending`).

#![no_main]

mod ending;
mod operation;
mod peer;
mod rules;
mod world;

use libfuzzer_sys::fuzz_target;

use world::World;

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else { return };
    let mut world = World::new(choice & 1 == 0);
    for operation in operation::read(input).take(OPERATIONS_MAX) {
        world.happens(&operation);
    }
    ending::check(&mut world);
});

/// Maximum number of operations of one list, so that a run stays short.
const OPERATIONS_MAX: usize = 200;
