//! Runs of the simulated world from seeds, and what must hold at their end.
//!
//! Invariant: a failing run names its seed, and the seed alone replays it.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::broker::{JoinRead, Membership};

use super::endpoint::{SimEndpoint, change_of};
use super::faults;
use super::messages::PlainMessage;
use super::node::LeaveBroker;
use super::simulation::{LEASE_MS, PRESENCE_TTL_MS, World};
use super::workload::{HISTORIES, PLAIN, Workload, announces};
use crate::redis::settings::RedisParts;

/// Time with faults in one run.
const FAULTS_MS: u64 = 30_000;
/// Time of a run without faults.
const CALM_MS: u64 = 6_000;
/// Time within which a healed world must answer everything.
const SETTLE_MS: u64 = 30_000;

/// Time after which presence and leases of nodes that have failed are gone.
const CONVERGE_MS: u64 = 3 * LEASE_MS + 2 * PRESENCE_TTL_MS + 10_000;

/// Runs one seed; returns the number of requests that succeeded.
fn run(seed: u64) -> u64 {
    let (mut world, mut workload) = (World::new(seed, RedisParts::All), Workload::default());
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
    check_messages(&mut world, &mut workload);
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

/// Every position is the top of its stream: the reply to a second subscribe says so, or its check
/// fails.
fn check_positions(world: &mut World, workload: &mut Workload) {
    for node in world.nodes.iter_mut().flatten() {
        let interruptions = &node.interruptions;
        node.endpoints.0.values_mut().for_each(|it| it.expect_certainty(interruptions));
    }
    for at in world.places() {
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

/// A publication without history, a join and a leave reach every subscriber.
fn check_plain(world: &mut World, workload: &mut Workload) {
    let from = world.places()[0];
    for channel in PLAIN {
        workload.publish_to(world, from, channel.into());
    }
    for channel in HISTORIES {
        for change in [Membership::Join, Membership::Leave] {
            workload.announce(world, from, (channel.into(), "last0".to_owned()), change);
        }
    }
    settle(world, workload);
    for node in world.nodes.iter().flatten() {
        for endpoint in node.endpoints.0.values() {
            endpoint.expect_messages(&node.interruptions, &world.truth);
        }
    }
}

/// An order and a revocation reach every endpoint, and a survey every node.
fn check_messages(world: &mut World, workload: &mut Workload) {
    let from = world.places()[0];
    let order = workload.order(world, from);
    let change = change_of(&workload.revoke(world, from));
    workload.survey(world, from);
    settle(world, workload);
    for (index, endpoint) in world.places() {
        let node = world.nodes[index].as_ref().expect("it lives");
        let endpoint = &node.endpoints.0[&endpoint];
        assert_eq!(endpoint.orders.get(&order), Some(&1), "the last order at {}", node.name);
        let times = endpoint.revocations.get(&change);
        assert_eq!(times, Some(&1), "the last revocation at {}", node.name);
    }
    let asker = &world.nodes[from.0].as_ref().expect("it lives").endpoints.0[&from.1];
    let survey = asker.surveys.last().expect("the survey has succeeded");
    check_survey(world, from.0, survey);
}

/// Every other node has answered.
fn check_survey(world: &World, from: usize, (nodes, missing): &(Vec<String>, usize)) {
    let others = world.nodes.iter().enumerate().filter(|(index, _)| *index != from);
    let mut others: Vec<String> =
        others.filter_map(|(_, node)| Some(node.as_ref()?.name.clone())).collect();
    others.sort();
    assert_eq!((nodes, *missing), (&others, 0), "a survey is not whole");
}

/// Without a fault nothing fails, is lost or happens twice.
fn run_without_faults(seed: u64) {
    let mut world = World::new(seed, RedisParts::All);
    let mut workload = Workload::default();
    settle(&mut world, &mut workload);
    // Leases are known to all nodes.
    pass(&mut world, &mut workload, LEASE_MS);
    let until_ms = world.now_ms + CALM_MS;
    while world.now_ms < until_ms {
        world.step();
        workload.act(&mut world);
    }
    // Endpoints that are behind catch up.
    faults::heal(&mut world);
    settle(&mut world, &mut workload);
    check_plain(&mut world, &mut workload);
    for membership in workload.memberships.iter().filter(|(_, client, _)| client != "last0") {
        check_membership(&world, membership);
    }
    let stored: Vec<_> = endpoints(&world).flat_map(|(_, it)| it.stored.clone()).collect();
    assert!(!stored.is_empty() && !workload.orders.is_empty(), "the workload is too small");
    for (index, endpoint) in endpoints(&world) {
        for survey in &endpoint.surveys {
            check_survey(&world, index, survey);
        }
        assert!(endpoint.orders.values().all(|times| *times == 1), "an order is given twice");
    }
    for (order, places) in &workload.orders {
        let living =
            places.iter().filter_map(|at| world.nodes[at.0].as_ref()?.endpoints.0.get(&at.1));
        for endpoint in living {
            assert!(endpoint.orders.contains_key(order), "the order {order} is lost");
        }
    }
    let oldest = world.nodes.iter().flatten().filter_map(|node| {
        node.endpoints.0.first_key_value().filter(|(endpoint, _)| endpoint.0 == 0)
    });
    for (_, endpoint) in oldest {
        for change in &stored {
            assert_eq!(endpoint.revocations.get(change), Some(&1), "a revocation is lost");
        }
    }
}

fn endpoints(world: &World) -> impl Iterator<Item = (usize, &SimEndpoint)> {
    let nodes = world.nodes.iter().enumerate();
    let nodes = nodes.filter_map(|(index, node)| Some((index, node.as_ref()?)));
    nodes.flat_map(|(index, node)| node.endpoints.0.values().map(move |it| (index, it)))
}

/// A join or leave was published once, and a leave behind its join.
fn check_membership(world: &World, (channel, client, change): &(Arc<str>, String, Membership)) {
    let places = |change| {
        let message = PlainMessage::Membership(client.clone(), change);
        world.truth.messages.places(channel, &message)
    };
    let [place] = places(*change)[..] else {
        panic!("{client} in {channel}: {change:?} is published {} times", places(*change).len());
    };
    if *change == Membership::Leave {
        let join = places(Membership::Join);
        assert!(join.iter().all(|join| join.1 < place.1), "{client} leaves before it joins");
    }
}

/// The leaves of the clients of failed nodes are published by another broker, which may fail too.
/// No server loses data.
fn run_presence_only(seed: u64) {
    let mut world = World::new(seed, RedisParts::Presence);
    let mut workload = Workload::default();
    settle(&mut world, &mut workload);
    let mut failed: Vec<(Arc<str>, String)> = Vec::new();
    for _ in 0..3 {
        for at in world.places() {
            (0..4).for_each(|_| workload.change_presence(&mut world, at));
        }
        settle(&mut world, &mut workload);
        let node = world.random.below(world.nodes.len() as u64) as usize;
        let of_node = workload.present.iter().filter(|(_, at)| at.0 == node);
        failed.extend(of_node.map(|(key, _)| key.clone()));
        world.kill_node(node);
        workload.forget_node(node);
        let until_ms = world.now_ms + 3 * LEASE_MS;
        while world.now_ms < until_ms {
            world.step();
            if world.random.below(30) == 0 {
                fail_cleanup(&mut world);
            }
        }
        faults::heal(&mut world);
        world.leave_broker = LeaveBroker::Takes;
        settle(&mut world, &mut workload);
    }
    pass(&mut world, &mut workload, 6 * LEASE_MS);
    settle(&mut world, &mut workload);
    if world.has_one_server() {
        check_presence(&mut world, &mut workload);
    }
    for (channel, client) in failed.into_iter().filter(|(_, client)| announces(client)) {
        let has_left = world.truth.left.contains(&(channel.clone(), client.clone()));
        // A cleanup leaves out a server that it cannot reach.
        let is_present = !world.has_one_server() && world.has_client(&channel, &client);
        assert!(
            has_left || is_present,
            "{client} is gone from {channel}, and its leave is not published"
        );
    }
}

/// Something that a cleanup must survive.
fn fail_cleanup(world: &mut World) {
    let until_ms = world.now_ms + world.random.below(2_000);
    let wire = world.random.below(world.wires.len().max(1) as u64) as usize;
    match world.random.below(5) {
        0 if wire < world.wires.len() => world.cut(wire),
        1 if wire < world.wires.len() => world.wires[wire].to_node.stall(until_ms),
        2 | 3 => world.leave_broker = LeaveBroker::Loses,
        _ => world.leave_broker = LeaveBroker::Takes,
    }
}

/// Presence is that of the clients that are there.
fn check_presence(world: &mut World, workload: &mut Workload) {
    let at = world.places()[0];
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

/// Seeds of the runs without faults, and with presence only.
const OTHER_SEEDS: u64 = 8;

/// Runs some seeds of a world.
fn run_seeds(run: impl Fn(u64)) {
    let seeds = number("SIM_SEED").map_or(0..OTHER_SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(seed)));
        if let Err(panic) = result {
            println!("seed {seed} failed; SIM_SEED={seed} replays it");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn without_faults_nothing_is_lost() {
    run_seeds(run_without_faults);
}

#[test]
fn leaves_are_published_before_presence_ends() {
    run_seeds(run_presence_only);
}

/// The same seed gives the same run.
#[test]
fn a_run_follows_from_its_seed() {
    assert_eq!(run_named(7), run_named(7));
}
