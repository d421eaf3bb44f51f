//! One worker with the memory broker and the peers of its sessions, driven by a random list of operations: what peers
//! say, verdicts, broker events that come late or never, time, sockets that take no more and sockets that are gone.
//!
//! What must hold is asserted where it shows: by each peer about what it hears (`peer`), after every operation
//! (`world`), and when nothing is on its way any more (`ending`).

#![no_main]

mod ending;
mod operation;
mod peer;
mod rules;
mod world;

use libfuzzer_sys::fuzz_target;

use operation::Script;
use world::World;

fuzz_target!(|script: Script| {
    let mut world = World::new(script.is_eager);
    for operation in script.operations.iter().take(OPERATIONS_MAX) {
        world.happens(operation);
    }
    ending::check(&mut world);
});

/// Operations of one list that are done, so that one run stays short.
const OPERATIONS_MAX: usize = 200;
