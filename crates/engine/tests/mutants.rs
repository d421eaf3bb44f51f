//! Mutation tests: each puts a deliberate mistake into a copy of the engine, and the simulation
//! must detect it by an expected oracle. An undetected mistake means that an oracle does not work.
//!
//! The copy is in the target folder; the product is unchanged. Run by `make mutants`; `MUTANT=word`
//! tries only those with this word in their names.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "builds changed copies of the crate"
)]

mod mutant_sources;

use std::fs;
use std::path::Path;
use std::process::Command;

use mutant_sources::copy_sources;

/// A mistake: the correct code, its replacement, and the oracles of which one must fail.
struct Mutant {
    name: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
    oracles: &'static [&'static str],
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "publications that come while a subscription joins are dropped",
        file: "session/join.rs",
        right: "joining.held.push_back(Held",
        wrong: "drop(Held",
        oracles: &["Gap"],
    },
    Mutant {
        name: "the position of a publication is not checked",
        file: "worker/fan_out.rs",
        right: "if offset > subscriber.offset + 1 {",
        wrong: "if false {",
        oracles: &["Gap"],
    },
    Mutant {
        name: "a recovery may start with a gap",
        file: "recovery.rs",
        right: "Some(first.offset) == since.offset.checked_add(1)",
        wrong: "Some(first.offset) >= since.offset.checked_add(1)",
        oracles: &["Gap"],
    },
    Mutant {
        name: "a recovery may end before the top",
        file: "recovery.rs",
        right: "&& last.offset == top.offset",
        wrong: "",
        oracles: &["Gap"],
    },
    Mutant {
        name: "a possible recovery is refused",
        file: "recovery.rs",
        right: "_ => since.offset == top.offset,",
        wrong: "_ => false,",
        oracles: &["Recovery"],
    },
    Mutant {
        name: "a position of another epoch is accepted",
        file: "recovery.rs",
        right: "let is_same_epoch = since.epoch.is_empty() || since.epoch == top.epoch;\n            let is_whole",
        wrong: "let is_same_epoch = true;\n            let is_whole",
        oracles: &["Recovery", "Order", "Gap"],
    },
    Mutant {
        name: "a repeated publication is sent again",
        file: "worker/fan_out.rs",
        right: "if has_lapsed || offset <= subscriber.offset {",
        wrong: "if has_lapsed {",
        oracles: &["Duplicate"],
    },
    Mutant {
        name: "publications overtake the reply",
        file: "worker/fan_out.rs",
        right: "if subscriber.phase == SubscriberPhase::Joining {",
        wrong: "if false {",
        oracles: &["ReplyFirst"],
    },
    Mutant {
        name: "a client that leaves stays present",
        file: "session/join.rs",
        right: "if was_present {",
        wrong: "if false {",
        oracles: &["Presence", "Leftover"],
    },
    Mutant {
        name: "no offline event is published",
        file: "worker.rs",
        right: "if session.is_online {",
        wrong: "if false {",
        oracles: &["Leftover"],
    },
    Mutant {
        name: "a channel without subscribers remains",
        file: "hub.rs",
        right: "if channel.subscribers.is_empty() {",
        wrong: "if false {",
        oracles: &["Leftover"],
    },
    Mutant {
        name: "a session closes for more than one reason",
        file: "session.rs",
        right: "            self.phase = Phase::Closed;\n            self.waiting = None;",
        wrong: "            self.waiting = None;",
        oracles: &["Close", "Lifecycle", "Reported"],
    },
    Mutant {
        name: "a bucket is never empty",
        file: "buckets.rs",
        right: "self.levels[bucket as usize] = left;",
        wrong: "let _kept = left;",
        oracles: &["Rate"],
    },
    Mutant {
        name: "a publication above the rate is published",
        file: "session/queries.rs",
        right: "metering::publish(session, turn, &request.channel).map_err(|refusal| {\n        turn.out.note(session.key, CommandKind::Publish, &request.channel, refusal)\n    })?;",
        wrong: "if let Err(refusal) = metering::publish(session, turn, &request.channel) {\n        session.refuse(turn, id, refusal);\n    }",
        oracles: &["Rate", "Answer"],
    },
    Mutant {
        name: "an outbox has no bound",
        file: "outbox.rs",
        right: "if self.is_blocked && self.weight() + frame.len() > bound {",
        wrong: "if false {",
        oracles: &["Bound"],
    },
    Mutant {
        name: "a lifetime never ends",
        file: "session/timers.rs",
        right: "if is_expired {",
        wrong: "if false && is_expired {",
        oracles: &["Expiry"],
    },
    Mutant {
        name: "a silent channel is never checked",
        file: "checks.rs",
        right: "if channel.check.is_none() {",
        wrong: "if false {",
        // Detected late, by the next join, instead of never.
        oracles: &["Gap", "Close"],
    },
    Mutant {
        name: "a reply of the broker verifies more than its position",
        file: "hub.rs",
        right: "if is_same_epoch && top.offset <= self.offset {",
        wrong: "if is_same_epoch {",
        oracles: &["Gap"],
    },
    Mutant {
        name: "a gap in a server-side subscription is reported as one of the client",
        file: "session/join.rs",
        right: "if session.subscriptions[index].traits.is_server_side {",
        wrong: "if false {",
        oracles: &["Close"],
    },
    Mutant {
        name: "every skipped publication is notified",
        file: "session/skipped.rs",
        right: "if std::mem::replace(&mut traits.was_notified_of_skip, true) {",
        wrong: "if false {",
        oracles: &["Duplicate"],
    },
    Mutant {
        name: "a name may have any length",
        file: "channel.rs",
        right: "name.len() > rules.max_length",
        wrong: "false",
        oracles: &["Answer"],
    },
    Mutant {
        name: "commands that waited are never handled",
        file: "worker.rs",
        right: "session.resume(&mut turn);",
        wrong: "",
        oracles: &["Answer", "Recovered"],
    },
    Mutant {
        name: "commands that waited for a call are forgotten",
        file: "session/waiting.rs",
        right: "self.ready.push_back(lane.commands);",
        wrong: "drop(lane.commands);",
        oracles: &["Answer", "Order", "Recovered"],
    },
    Mutant {
        name: "a command does not wait for a call about its channel",
        file: "session/waiting.rs",
        right: "subject != Subject::Nothing && self.lanes.iter().any(is_meant)",
        wrong: "false && self.lanes.iter().any(is_meant)",
        oracles: &["Order", "Answer"],
    },
    Mutant {
        name: "a result is applied to any call of the session",
        file: "session/waiting.rs",
        right: "self.end(|lane| lane.call == Some(call))",
        wrong: "{ let _any = call; self.end(|lane| lane.call.is_some()) }",
        oracles: &["Answer", "Order", "Panic"],
    },
    Mutant {
        name: "commands that wait for one call are handled in the reverse order",
        file: "session/waiting.rs",
        right: "Some(lane) => lane.commands.push_back(command),",
        wrong: "Some(lane) => lane.commands.push_front(command),",
        oracles: &["Order", "Answer"],
    },
    Mutant {
        name: "a session has any number of calls in progress",
        file: "session/waiting.rs",
        right: ".count() >= calls_max",
        wrong: ".count() == usize::MAX - calls_max",
        oracles: &["Bound"],
    },
    Mutant {
        name: "a subscription that no backend renews lives on",
        file: "session/renewal.rs",
        right: "session.push(turn, channel, PushEvent::from(UnsubscribeCode::Expired));",
        wrong: "drop(channel);",
        oracles: &["Recovered", "Gap"],
    },
];

#[test]
#[ignore = "builds the engine once for each mistake; run by `make mutants`"]
fn every_deliberate_mistake_is_found() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let copy = workspace.join("target/mutants");
    copy_sources(&workspace, &copy);
    let (passes, output) = simulate(&copy);
    assert!(passes, "the engine as it is must pass:\n{output}");
    let mut asleep = Vec::new();
    let word = std::env::var("MUTANT").unwrap_or_default();
    for mutant in MUTANTS.iter().filter(|mutant| mutant.name.contains(&word)) {
        let file = copy.join("crates/engine/src").join(mutant.file);
        let right = fs::read_to_string(&file).unwrap();
        let places = right.matches(mutant.right).count();
        assert_eq!(places, 1, "{}: {:?} stands there {places} times", mutant.file, mutant.right);
        fs::write(&file, right.replace(mutant.right, mutant.wrong)).unwrap();
        let (_, output) = simulate(&copy);
        fs::write(&file, right).unwrap();
        let found = output.split(" breaks ").nth(1).and_then(|text| text.split(':').next());
        println!("{}: {}", mutant.name, found.unwrap_or("not found"));
        if !found.is_some_and(|oracle| mutant.oracles.contains(&oracle)) {
            asleep.push(format!("{}: {found:?}\n{output}", mutant.name));
        }
    }
    assert!(asleep.is_empty(), "not found as expected:\n{}", asleep.join("\n"));
}

/// Runs the fixed seeds. Returns whether all passed, and the output.
fn simulate(copy: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--locked", "-p", "engine", "--test", "sim", "fixed_seeds"])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", copy.join("target"))
        .env("RUSTFLAGS", "--cap-lints warn")
        .env("RUST_BACKTRACE", "0")
        .env("SIM_SEEDS", "200")
        .env("SIM_SHORTEN", "0")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
