//! What clients make grow by asking, counted in bytes, and what remains of many subscriptions.

use std::time::{Duration, Instant};

use crate::case::Case;
use crate::peer::{Peer, Received};
use crate::server::sum;

/// Channels without a namespace keep as much as the cases want.
const KEPT: &[(&str, &str)] = &[
    ("channel.without_namespace.history_size", "300"),
    ("channel.without_namespace.history_ttl", "600s"),
    ("channel.without_namespace.force_recovery", "true"),
    ("channel.without_namespace.allow_subscribe_for_client", "true"),
    ("channel.without_namespace.allow_subscribe_for_anonymous", "true"),
    ("channel.without_namespace.allow_history_for_client", "true"),
    ("channel.without_namespace.allow_history_for_anonymous", "true"),
];

/// Bytes of a publication.
const PUBLICATION: usize = 60_000;

/// Kilobytes of one reply at most: half of the default of `client.queue_max_size`.
const REPLY_KB_MAX: u64 = 512;

/// Kilobytes that remain of what was large for a moment.
const LEFT_KB: u64 = 4 * 1024;

/// Kilobytes by which the allocator and the fill may differ.
const SLACK_KB: u64 = 12 * 1024;

/// No turn of the worker keeps a neighbour waiting for longer.
const WAIT_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 5_000 } else { 300 });

/// The allocator gives back within this time what is not used any more.
const DECAY_MAX: Duration = Duration::from_secs(25);

/// A case with so many publications in each of these channels, which are not counted as growth.
fn filled(name: &'static str, channels: &[String], count: usize) -> Case {
    let mut case = Case::busy(name, KEPT);
    let data = format!("\"{}\"", "x".repeat(PUBLICATION - 2));
    for channel in channels {
        (0..count).for_each(|_| case.server.publish(channel, &data));
    }
    case.begin_again(SLACK_KB);
    case
}

fn counted(case: &Case, command: &str) -> u64 {
    sum(&case.server.metrics(), &format!("tidings_commands_total{{command=\"{command}\"}}"))
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        // No event reports that another process has counted.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kilobytes above `before` once the allocator has given back what it will: a few remain, or the
/// time is over.
fn decayed(case: &Case, before: u64) -> u64 {
    let left = || case.server.footprint().resident_kb.saturating_sub(before);
    let began = Instant::now();
    while left() > LEFT_KB && began.elapsed() < DECAY_MAX {
        std::thread::sleep(Duration::from_millis(200));
    }
    left()
}

#[test]
fn histories_that_nobody_reads() {
    const CLIENTS: usize = 50;
    let case = filled("50 clients ask for 18 MB and do not read", &["big".to_owned()], 300);
    let ask = r#"{"id":2,"history":{"channel":"big","limit":-1}}"#;
    let dial = |_| Peer::dial_narrow(case.server.address).admit();
    let mut peers: Vec<Peer> = (0..CLIENTS).map(dial).collect();
    peers.iter_mut().for_each(|peer| peer.say(ask));
    until("all are answered", || counted(&case, "history") == CLIENTS as u64);
    // Repeated requests are answered only as far as the queue allows.
    let again = [ask; 20].join("\n");
    peers[..10].iter_mut().for_each(|peer| peer.say(&again));
    until("they end", || {
        let page = case.server.metrics();
        sum(&page, "tidings_connections_closed_total{code=\"3008\"}") == 10
    });
    let growth = case.growth_kb();
    let most = case.longest_wait();
    drop(peers);
    decayed(&case, case.before.resident_kb);
    case.finish(format!("+{growth} kB for {CLIENTS} clients, longest wait {most:.1?}"));
    let bound = CLIENTS as u64 * (REPLY_KB_MAX + 64) + SLACK_KB;
    assert!(growth <= bound, "grew by {growth} kB, more than {bound}");
    assert!(most <= WAIT_MAX, "the neighbour waited {most:?}");
}

#[test]
fn connects_that_recover_everything() {
    const CLIENTS: usize = 10;
    let channels: Vec<String> = (0..20).map(|number| format!("big{number}")).collect();
    let case = filled("connects that recover 20 channels of 5 × 60 KB", &channels, 5);
    let subs: Vec<String> =
        channels.iter().map(|name| format!(r#""{name}":{{"recover":true}}"#)).collect();
    let connect = format!(r#"{{"id":1,"connect":{{"subs":{{{}}}}}}}"#, subs.join(","));
    let mut longest = 0;
    for _ in 0..CLIENTS {
        let mut peer = Peer::upgraded(case.server.address);
        peer.say(&connect);
        let reply = peer.receive();
        longest = longest.max(reply.len() as u64 / 1024);
        assert_eq!(reply.matches(r#""was_recovering":true"#).count(), 20);
        assert_eq!(reply.matches(r#""recovered":true"#).count(), 1, "one of 300 KB fits");
    }
    let growth = case.growth_kb();
    let most = case.longest_wait();
    case.finish(format!("replies of at most {longest} kB, longest wait {most:.1?}"));
    assert!(longest <= REPLY_KB_MAX + 16, "a reply of {longest} kB");
    assert!(growth <= CLIENTS as u64 * REPLY_KB_MAX + SLACK_KB, "grew by {growth} kB");
    assert!(most <= WAIT_MAX, "the neighbour waited {most:?}");
}

#[test]
fn subscriptions_of_distinct_channels_leave_nothing() {
    const CHANNELS: usize = 20_000;
    const OF_ONE: usize = 100;
    let case = Case::quiet("20,000 subscriptions of distinct channels, all gone again", KEPT);
    let mut peers: Vec<Peer> =
        (0..CHANNELS / OF_ONE).map(|index| Peer::dial_as(case.server.address, index)).collect();
    peers = peers.into_iter().map(Peer::admit).collect();
    // What the connections themselves cost is not of interest here.
    let before = case.server.footprint();
    let mut most = 0;
    for round in 0..2 {
        let command = |action: &str, client: usize| {
            let one = |channel| {
                format!(r#"{{"id":2,"{action}":{{"channel":"{round}-{client}-{channel}"}}}}"#)
            };
            (0..OF_ONE).map(one).collect::<Vec<_>>().join("\n")
        };
        for action in ["subscribe", "unsubscribe"] {
            for (client, peer) in peers.iter_mut().enumerate() {
                peer.say(&command(action, client));
                let mut answers = 0;
                while answers < OF_ONE {
                    let Received::Text(text) = peer.next() else { panic!("the client is served") };
                    answers += text.lines().filter(|line| line.contains(action)).count();
                }
            }
            most = most.max(case.server.footprint().resident_kb - before.resident_kb);
        }
    }
    let left = decayed(&case, before.resident_kb);
    drop(peers);
    decayed(&case, case.before.resident_kb);
    case.finish(format!("+{most} kB at the most, +{left} kB when all channels were gone"));
    assert!(left <= SLACK_KB, "{left} kB remain");
}
