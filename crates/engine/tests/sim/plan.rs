//! The events of a simulation, as a list of steps generated from a seed. Every step is valid in
//! every state (an impossible one does nothing), so that a failing list can be shortened by
//! removing steps.

use engine::random::Random;

pub(crate) const NODES: usize = 3;
pub(crate) const CLIENTS: usize = 10;

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Time passes, and everything that can progress does.
    Run {
        ms: u64,
    },
    /// A worker handles this many broker events.
    Events {
        node: usize,
        count: usize,
    },
    /// A worker receives what a client has written.
    Write {
        client: usize,
    },
    /// A client reads at most this many bytes.
    Read {
        client: usize,
        bytes: usize,
    },
    /// A client connects to a worker.
    Dial {
        client: usize,
        node: usize,
    },
    Subscribe {
        client: usize,
        channel: usize,
    },
    Unsubscribe {
        client: usize,
        channel: usize,
    },
    /// A client leaves a channel and joins it again, twice, without waiting for replies.
    Rejoin {
        client: usize,
        channel: usize,
    },
    Publish {
        client: usize,
        channel: usize,
    },
    /// A backend publishes several times.
    Burst {
        channel: usize,
        count: usize,
    },
    /// A client requests history or presence.
    Ask {
        client: usize,
        channel: usize,
    },
    /// A client refreshes its connection with a token of this lifetime.
    Refresh {
        client: usize,
        seconds: i64,
    },
    /// The server API sends an order about a user.
    Order {
        client: usize,
        channel: usize,
        order: OrderKind,
    },
    /// The API removes a channel's history.
    RemoveHistory {
        channel: usize,
    },
    /// A fault.
    Fault(Fault),
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A socket breaks; both ends detect it.
    Cut { client: usize },
    /// A client vanishes; its worker does not detect it.
    HalfOpen { client: usize },
    /// A client does not read for a while.
    PauseReading { client: usize, ms: u64 },
    /// A client's token is expired, invalid or cannot be verified.
    BadToken { client: usize },
    /// The oldest publication in flight to a worker is lost.
    Lose { node: usize },
    /// The oldest publication in flight to a worker is held back.
    Delay { node: usize },
    /// What was held back arrives.
    Late { node: usize },
    /// The oldest reply in flight to a worker becomes an error.
    Fail { node: usize },
    /// The link between a worker and the broker breaks: everything in flight is lost.
    LinkCut { node: usize },
    /// The link is repaired.
    LinkUp { node: usize },
    /// The broker loses its state.
    Amnesia,
    /// A worker stops for a while.
    Stall { node: usize, ms: u64 },
    /// Calls of a worker's sessions take long for a while.
    SlowCalls { node: usize, ms: u64 },
    /// The next calls of a worker's sessions fail.
    FailCalls { node: usize, count: usize },
    /// The Unix clock jumps.
    Jump { seconds: i64 },
}

/// An order of the server API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrderKind {
    Subscribe,
    Unsubscribe,
    Disconnect,
    Refresh,
}

/// Generates `length` steps from a seed.
pub(crate) fn plan(seed: u64, length: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    // Simulations differ in their rate of faults. Without faults nothing may be missing.
    let fault_weight = [0, 4, 12, 25][random.below(4) as usize];
    let mut steps = vec![Step::Run { ms: 300 }];
    steps.extend((1..length).map(|_| step(&mut random, fault_weight)));
    steps
}

fn step(random: &mut Random, fault_weight: u64) -> Step {
    if random.below(100) < fault_weight {
        return Step::Fault(fault(random));
    }
    let client = random.below(CLIENTS as u64) as usize;
    let node = random.below(NODES as u64) as usize;
    let channel = random.below(super::channels::CHANNELS.len() as u64) as usize;
    match random.below(100) {
        0..14 => Step::Run { ms: [100, 100, 300, 1_000, 4_000][random.below(5) as usize] },
        14..30 => Step::Events { node, count: 1 + random.below(6) as usize },
        30..44 => Step::Write { client },
        44..54 => Step::Read { client, bytes: 1 + random.below(400) as usize },
        54..58 => Step::Dial { client, node },
        58..65 => Step::Subscribe { client, channel },
        65..68 => Step::Rejoin { client, channel },
        68..71 => Step::Unsubscribe { client, channel },
        71..80 => Step::Publish { client, channel },
        80..90 => {
            // A burst above a client's queue causes a gap, and so is not used without faults.
            let counts =
                if fault_weight == 0 { [1, 1, 2, 3, 4, 5] } else { [1, 2, 5, 20, 150, 600] };
            Step::Burst { channel, count: counts[random.below(6) as usize] }
        }
        90..94 => Step::Ask { client, channel },
        94..96 => Step::Refresh { client, seconds: random.below(30) as i64 - 5 },
        96..99 => {
            let kinds = [
                OrderKind::Subscribe,
                OrderKind::Subscribe,
                OrderKind::Unsubscribe,
                OrderKind::Disconnect,
                OrderKind::Refresh,
            ];
            Step::Order { client, channel, order: kinds[random.below(5) as usize] }
        }
        _ => Step::RemoveHistory { channel },
    }
}

fn fault(random: &mut Random) -> Fault {
    let client = random.below(CLIENTS as u64) as usize;
    let node = random.below(NODES as u64) as usize;
    match random.below(100) {
        0..13 => Fault::Cut { client },
        13..20 => Fault::HalfOpen { client },
        20..29 => Fault::PauseReading { client, ms: 100 << random.below(8) },
        29..33 => Fault::BadToken { client },
        33..46 => Fault::Lose { node },
        46..55 => Fault::Delay { node },
        55..64 => Fault::Late { node },
        64..72 => Fault::Fail { node },
        72..77 => Fault::LinkCut { node },
        77..82 => Fault::LinkUp { node },
        82..84 => Fault::Amnesia,
        84..88 => Fault::Stall { node, ms: 100 << random.below(8) },
        88..93 => Fault::SlowCalls { node, ms: 100 << random.below(8) },
        93..97 => Fault::FailCalls { node, count: 1 + random.below(4) as usize },
        _ => Fault::Jump { seconds: random.below(120) as i64 - 60 },
    }
}
