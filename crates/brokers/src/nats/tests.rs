//! The simulated world of the NATS broker: the cores of several nodes in one thread, with a model
//! of JetStream, invented time, and faults.
//!
//! A seed gives the clients' steps, every delay and the faults. Oracles: each request has one
//! reply; all endpoints receive the publications of a channel in one order, each once and without
//! an unnoticed gap; what is stored is stored once.

mod observer;
mod random;
mod server;
mod steps;
mod store;
mod world;

use world::{Faults, World};

/// Seeds of the short form; each takes some milliseconds.
const SEEDS: u64 = 600;

fn run(faults: Faults) {
    let first = std::env::var("NATS_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = first.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let run = std::panic::catch_unwind(|| World::new(seed, faults).run());
        if let Err(panic) = run {
            eprintln!("{faults:?}: seed {seed} fails; NATS_SIM_SEED={seed} plays it again");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn nodes_without_faults_lose_and_reorder_nothing() {
    run(Faults::None);
}

#[test]
fn lost_messages_cuts_and_slow_answers_leave_no_unnoticed_gap() {
    run(Faults::All);
}
