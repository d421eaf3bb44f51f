//! One worker with the memory broker and the peers of its sessions, driven by a random list of
//! operations: what peers say, verdicts, broker events that come late or never, time, sockets that
//! take no more and sockets that are gone.
//!
//! Input: a byte that says whether every operation is a turn of its own, then records of
//! operations.
//!
//! What must hold is asserted where it shows: by each peer about what it hears (`peer`), after
//! every operation (`world`), and when nothing is on its way any more (`ending`).

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

/// Operations of one list that are done, so that one run stays short.
const OPERATIONS_MAX: usize = 200;
