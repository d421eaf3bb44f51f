//! What happens in a world, as a list made from a seed. Every step makes sense in every state (what
//! cannot happen then does not), so that a failing list can be shortened by leaving steps out.

use engine::random::Random;

pub(crate) const NODES: usize = 3;
pub(crate) const CLIENTS: usize = 10;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Time passes, and everything that can move moves.
    Run {
        ms: u64,
    },
    /// A worker handles so many broker events.
    Events {
        node: usize,
        count: usize,
    },
    /// What a client has written reaches its worker.
    Write {
        client: usize,
    },
    /// A client reads at most so many bytes.
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
    Publish {
        client: usize,
        channel: usize,
    },
    /// A backend publishes several times.
    Burst {
        channel: usize,
        count: usize,
    },
    /// A client asks for history, or for presence.
    Ask {
        client: usize,
        channel: usize,
    },
    /// A client prolongs its connection with a token that lives so long.
    Refresh {
        client: usize,
        seconds: i64,
    },
    /// The server API acts on a user.
    Order {
        client: usize,
        channel: usize,
        order: OrderKind,
    },
    /// A backend drops what a channel retains.
    RemoveHistory {
        channel: usize,
    },
    /// What follows is a fault.
    Fault(Fault),
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A socket breaks, and both ends know.
    Cut { client: usize },
    /// A client vanishes, and its worker does not know.
    HalfOpen { client: usize },
    /// A client does not read for a while.
    PauseReading { client: usize, ms: u64 },
    /// A client's token is refused as expired, invalid or not to be verified.
    BadToken { client: usize },
    /// The oldest publication on its way to a worker is lost.
    Lose { node: usize },
    /// The oldest publication on its way to a worker is held back.
    Delay { node: usize },
    /// What was held back arrives.
    Late { node: usize },
    /// The oldest answer on its way to a worker becomes an error.
    Fail { node: usize },
    /// The link between a worker and the broker breaks: what was on its way is lost.
    LinkCut { node: usize },
    /// It is repaired.
    LinkUp { node: usize },
    /// The broker loses its memory.
    Amnesia,
    /// A worker does nothing for a while.
    Stall { node: usize, ms: u64 },
    /// The wall clock jumps.
    Jump { seconds: i64 },
}

/// What the server API does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrderKind {
    Subscribe,
    Unsubscribe,
    Disconnect,
    Refresh,
}

/// The plan of a seed: `length` steps.
pub(crate) fn plan(seed: u64, length: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    // Worlds differ in how rough they are. Where nothing goes wrong, nothing may be missing.
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
        58..66 => Step::Subscribe { client, channel },
        66..71 => Step::Unsubscribe { client, channel },
        71..80 => Step::Publish { client, channel },
        80..90 => {
            // What is too much for a client's queue is told, and so no place for it where nothing
            // goes wrong.
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
        0..14 => Fault::Cut { client },
        14..22 => Fault::HalfOpen { client },
        22..32 => Fault::PauseReading { client, ms: 100 << random.below(8) },
        32..37 => Fault::BadToken { client },
        37..51 => Fault::Lose { node },
        51..61 => Fault::Delay { node },
        61..71 => Fault::Late { node },
        71..79 => Fault::Fail { node },
        79..85 => Fault::LinkCut { node },
        85..91 => Fault::LinkUp { node },
        91..93 => Fault::Amnesia,
        93..97 => Fault::Stall { node, ms: 100 << random.below(8) },
        _ => Fault::Jump { seconds: random.below(120) as i64 - 60 },
    }
}
