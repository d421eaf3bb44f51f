//! All clients are cut off at once, and come back at once.

use std::time::Duration;

use crate::plan::Plan;
use crate::storm::{Storm, is_long};

const SEED: u64 = 0x7469_6469_6e67_7302;

/// Publications while they are away and come back.
const PUBLICATIONS: u64 = 20;

#[test]
fn all_at_once_come_back_and_miss_nothing() {
    let (processes, clients, rounds) = if is_long() { (4, 10_000, 3) } else { (2, 1_000, 2) };
    println!("avalanche: seed {SEED:#x}");
    let mut storm = Storm::start(processes, clients, |plan| Plan { seed: SEED, ..plan });
    for round in 1..=rounds {
        storm.publish(PUBLICATIONS / 2, Duration::from_millis(10));
        storm.order("cut");
        storm.publish(PUBLICATIONS, Duration::from_millis(10));
        let took = storm.gather();
        println!("avalanche: round {round}: {clients} live again after {took:.2?}");
    }
    storm.finish("avalanche");
}
