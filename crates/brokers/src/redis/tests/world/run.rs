//! Runs of the simulated world from seeds, and what must hold at their end.
//!
//! Invariant: a failing run names its seed, and the seed alone replays it.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::broker::JoinRead;

use super::faults;
use super::simulation::{LEASE_MS, PRESENCE_TTL_MS, World};
use super::workload::{HISTORIES, PLAIN, Workload};
use crate::Endpoint;

/// Time with faults in one run.
const FAULTS_MS: u64 = 30_000;
/// Time within which a healed world must answer everything.
const SETTLE_MS: u64 = 30_000;

/// Time after which presence and leases of nodes that have failed are gone.
const CONVERGE_MS: u64 = 3 * LEASE_MS + 2 * PRESENCE_TTL_MS + 10_000;

/// Runs one seed; returns the number of requests that succeeded.
fn run(seed: u64) -> u64 {
    let (mut world, mut workload) = (World::new(seed), Workload::default());
    settle(&mut world, &mut workload);
    let until_ms = world.now_ms + FAULTS_MS;
    let mut has_lost_data = false;
    while world.now_ms < until_ms {
        world.step();
        workload.act(&mut world);
        if world.random.below(40) == 0 {
            has_lost_data |= faults::fail(&mut world, &mut workload);
        }
    }
    faults::heal(&mut world);
    settle(&mut world, &mut workload);
    pass(&mut world, &mut workload, CONVERGE_MS);
    settle(&mut world, &mut workload);
    check_positions(&mut world, &mut workload);
    check_plain(&mut world, &mut workload);
    check_presence(&mut world, &mut workload);
    check_lifecycle(&world, &workload, has_lost_data);
    let nodes = world.nodes.iter().flatten();
    nodes.flat_map(|node| node.endpoints.0.values()).map(|endpoint| endpoint.successes).sum()
}

fn pass(world: &mut World, workload: &mut Workload, time_ms: u64) {
    let until_ms = world.now_ms + time_ms;
    while world.now_ms < until_ms {
        world.step();
        (0..world.nodes.len()).for_each(|node| workload.answer_questions(world, node));
    }
}

/// Runs until every node is ready and every request is answered.
fn settle(world: &mut World, workload: &mut Workload) {
    let until_ms = world.now_ms + SETTLE_MS;
    loop {
        pass(world, workload, 1_000);
        let is_settled = world.nodes.iter().flatten().all(|node| {
            node.health.is_none() && node.endpoints.0.values().all(|it| it.open.is_empty())
        });
        if is_settled {
            return;
        }
        if world.now_ms > until_ms {
            for node in world.nodes.iter().flatten() {
                let open: Vec<_> = node.endpoints.0.values().map(|it| &it.open).collect();
                println!("{}: {:?}, open {open:?}", node.name, node.health);
            }
            panic!("the world does not settle");
        }
    }
}

/// All endpoints of all nodes.
fn places(world: &World) -> Vec<(usize, Endpoint)> {
    let nodes = world.nodes.iter().enumerate();
    let places = nodes.filter_map(|(index, node)| Some((index, node.as_ref()?)));
    places
        .flat_map(|(index, node)| node.endpoints.0.keys().map(move |endpoint| (index, *endpoint)))
        .collect()
}

/// Every position is the top of its stream: the reply to a second subscribe says so, or its check
/// fails.
fn check_positions(world: &mut World, workload: &mut Workload) {
    for node in world.nodes.iter_mut().flatten() {
        let interruptions = &node.interruptions;
        node.endpoints.0.values_mut().for_each(|it| it.expect_certainty(interruptions));
    }
    for at in places(world) {
        let node = world.nodes[at.0].as_ref().expect("it lives");
        let endpoint = &node.endpoints.0[&at.1];
        let tracked = endpoint.subscribed.iter().filter(|(_, it)| it.position.is_some());
        let channels: Vec<Arc<str>> = tracked.map(|(channel, _)| channel.clone()).collect();
        for channel in channels {
            let read = JoinRead::Position { meta_ttl_ms: 86_400_000 };
            workload.subscribe_to(world, at, channel, read);
        }
    }
    settle(world, workload);
}

/// A publication without history reaches every subscriber once.
fn check_plain(world: &mut World, workload: &mut Workload) {
    let from = places(world)[0];
    for channel in PLAIN {
        let before: Vec<(usize, usize)> = plain_counts(world, channel);
        workload.publish_to(world, from, channel.into());
        settle(world, workload);
        for ((had, is_subscribed), (has, _)) in before.iter().zip(plain_counts(world, channel)) {
            assert_eq!(has - had, *is_subscribed, "{channel}: a publication is missing");
        }
    }
}

/// The contents that each endpoint has received in a channel, and whether it is subscribed.
fn plain_counts(world: &World, channel: &str) -> Vec<(usize, usize)> {
    let of = format!("/{channel}#");
    let nodes = world.nodes.iter().flatten();
    let endpoints = nodes.flat_map(|node| node.endpoints.0.values());
    endpoints
        .map(|endpoint| {
            let received = endpoint.received.iter();
            let is_of = |data: &&Vec<u8>| String::from_utf8_lossy(data).contains(&of);
            let is_subscribed = endpoint.subscribed.contains_key(channel);
            (received.filter(is_of).count(), usize::from(is_subscribed))
        })
        .collect()
}

/// Presence is that of the clients that are there.
fn check_presence(world: &mut World, workload: &mut Workload) {
    let at = places(world)[0];
    for channel in HISTORIES {
        workload.read_presence(world, at, channel.into());
    }
    settle(world, workload);
    let node = world.nodes[at.0].as_ref().expect("it lives");
    for channel in HISTORIES {
        let present = workload.present.keys().filter(|(of, _)| **of == *channel);
        let present: BTreeSet<String> = present.map(|(_, client)| client.clone()).collect();
        assert_eq!(node.endpoints.0[&at.1].presence[channel], present, "presence in {channel}");
    }
}

/// Every event of a running node was published. Clients that are online are so in the last event,
/// and every client of a node that has failed is offline.
fn check_lifecycle(world: &World, workload: &Workload, has_lost_data: bool) {
    for (client, event, _) in &workload.announced {
        // A server without its data does not know who was online.
        if event == "offline" && has_lost_data {
            continue;
        }
        let key = (client.clone(), event.clone());
        assert!(world.truth.lifecycle.contains(&key), "{client} was never {event}");
    }
    for (client, event) in &world.truth.lifecycle {
        let offline = (client.clone(), "offline".to_owned());
        if event == "online" && !workload.online.contains_key(client) && !has_lost_data {
            assert!(world.truth.lifecycle.contains(&offline), "{client} never went offline");
        }
    }
}

/// Runs a seed, and names it if it fails.
fn run_named(seed: u64) -> u64 {
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(seed)));
    result.unwrap_or_else(|panic| {
        println!("seed {seed} failed; SIM_SEED={seed} replays it");
        std::panic::resume_unwind(panic)
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs some seeds; `SIM_SECONDS` runs new ones for a time, from `SIM_FIRST` on, and `SIM_SEED`
/// replays one.
#[test]
fn the_guarantees_hold_whatever_fails() {
    if let Some(seed) = number("SIM_SEED") {
        run_named(seed);
        return;
    }
    let (start, first) = (Instant::now(), number("SIM_FIRST").unwrap_or(0));
    let time = number("SIM_SECONDS").map(Duration::from_secs);
    let mut successes = 0;
    for seed in first.. {
        let is_over = time.map_or(seed >= first + SEEDS, |time| start.elapsed() >= time);
        if is_over {
            println!("{} seeds, {successes} requests succeeded", seed - first);
            break;
        }
        successes += run_named(seed);
    }
    assert!(successes > 0);
}

/// Seeds of the short form.
const SEEDS: u64 = 20;

/// The same seed gives the same run.
#[test]
fn a_run_follows_from_its_seed() {
    assert_eq!(run_named(7), run_named(7));
}
