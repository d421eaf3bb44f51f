//! Every socket is killed again and again while publications go on.

use std::time::Duration;

use crate::plan::Plan;
use crate::storm::{Storm, is_long};

const SEED: u64 = 0x7469_6469_6e67_7301;

struct Form {
    processes: usize,
    clients: usize,
    publications: u64,
    life: Duration,
    away: Duration,
}

const SHORT: Form = Form {
    processes: 2,
    clients: 300,
    publications: 20,
    life: Duration::from_secs(3),
    away: Duration::from_secs(1),
};

const LONG: Form = Form {
    processes: 2,
    clients: 5_000,
    publications: 120,
    life: Duration::from_secs(15),
    away: Duration::from_secs(2),
};

#[test]
fn whoever_dies_again_and_again_misses_nothing() {
    let Form { processes, clients, publications, life, away } =
        if is_long() { LONG } else { SHORT };
    println!("jitter: seed {SEED:#x}, lives of about {life:?}, away for about {away:?}");
    let mut storm =
        Storm::start(processes, clients, |plan| Plan { seed: SEED, life, away, ..plan });
    storm.order("go");
    storm.publish(publications, Duration::from_millis(500));
    storm.finish("jitter");
}
