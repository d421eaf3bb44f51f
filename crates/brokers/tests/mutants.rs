//! Mutation tests of the Redis broker: each puts a deliberate mistake into a copy of the crate, and
//! the simulated world must detect it by the expected oracle. An undetected mistake means that an
//! oracle does not work.
//!
//! The copy is in the target folder; the product is unchanged. Run by `make mutants-redis`;
//! `MUTANT=word` tries only those with this word in their names.

#[path = "../../engine/tests/mutant_sources/mod.rs"]
mod mutant_sources;

use std::fs;
use std::path::Path;
use std::process::Command;

use mutant_sources::copy_sources;

/// A mistake: the correct code, its replacement, and a part of the message of the oracle that must
/// find it.
struct Mutant {
    name: &'static str,
    file: &'static str,
    right: &'static str,
    wrong: &'static str,
    oracle: &'static str,
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "joins and leaves are dropped",
        file: "core.rs",
        right: "BrokerEvent::Membership { channel: names.channel, info: Arc::new(info), change }",
        wrong: "{ let _dropped = (info, change); return; }",
        oracle: "the last messages are missing",
    },
    Mutant {
        name: "leaves of detached endpoints are not announced",
        file: "core/requests.rs",
        right: "            if announces {\n                self.announce_leave",
        wrong: "            if false {\n                self.announce_leave",
        oracle: "is published 0 times",
    },
    Mutant {
        name: "every second publication without history is dropped",
        file: "core.rs",
        right: "        let channel = names.channel.clone();\n        let event",
        wrong: "        let channel = names.channel.clone();\n        if matches!(&payload, ChannelPayload::Publication { publication, .. } if publication.offset == 0 && publication.data.last().is_some_and(|last| last % 2 == 0)) {\n            return;\n        }\n        let event",
        oracle: "behind a gap",
    },
    Mutant {
        name: "received orders are dropped",
        file: "core.rs",
        right: "                self.outputs.notify(BrokerEvent::Control(control.into()));",
        wrong: "",
        oracle: "order",
    },
    Mutant {
        name: "orders are given by their own node, too",
        file: "core/requests.rs",
        right: "CommandRequest::Control(order) => self.orders.begin(order),",
        wrong: "CommandRequest::Control(order) => {\n                self.orders.begin(order);\n                self.outputs.notify(BrokerEvent::Control(order.clone()));\n            }",
        oracle: "order",
    },
    Mutant {
        name: "received revocations are dropped",
        file: "core.rs",
        right: "                self.outputs.notify(BrokerEvent::Revocation(revocation.into()));",
        wrong: "",
        oracle: "revocation",
    },
    Mutant {
        name: "a survey does not wait for any node",
        file: "core.rs",
        right: "let others = others.chain(seen).map(str::to_owned).collect();",
        wrong: "let others = others.chain(seen).map(str::to_owned).take(0).collect();",
        oracle: "a survey is not whole",
    },
    Mutant {
        name: "clients are removed before their leaves are published",
        file: "scripts/evict.lua",
        right: "      left[#left + 1] = info\n",
        wrong: "      left[#left + 1] = info\n      forget(page[2][index])\n",
        oracle: "its leave is not published",
    },
    Mutant {
        name: "leaves count as published although they are lost",
        file: "registry.rs",
        right: "Err(_) => self.cleanup.abandon(leaves.number),",
        wrong: "Err(_) => self.cleanup.remove_left(now, &leaves, servers),",
        oracle: "its leave is not published",
    },
];

#[test]
#[ignore = "builds the crate once for each mistake; run by `make mutants-redis`"]
fn every_deliberate_mistake_is_found() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let copy = workspace.join("target/mutants");
    copy_sources(&workspace, &copy);
    let (passes, output) = simulate(&copy);
    assert!(passes, "the broker as it is must pass:\n{output}");
    let mut asleep = Vec::new();
    let word = std::env::var("MUTANT").unwrap_or_default();
    for mutant in MUTANTS.iter().filter(|mutant| mutant.name.contains(&word)) {
        let file = copy.join("crates/brokers/src/redis").join(mutant.file);
        let right = fs::read_to_string(&file).unwrap();
        let places = right.matches(mutant.right).count();
        assert_eq!(places, 1, "{}: {:?} stands there {places} times", mutant.file, mutant.right);
        fs::write(&file, right.replace(mutant.right, mutant.wrong)).unwrap();
        let (passes, output) = simulate(&copy);
        fs::write(&file, right).unwrap();
        let is_found = !passes && output.contains("SIM_SEED") && output.contains(mutant.oracle);
        println!("{}: {}", mutant.name, if is_found { "found" } else { "not found" });
        if !is_found {
            asleep.push(format!("{}:\n{output}", mutant.name));
        }
    }
    assert!(asleep.is_empty(), "not found as expected:\n{}", asleep.join("\n"));
}

/// Runs the fixed seeds. Returns whether all passed, and the output.
fn simulate(copy: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--locked", "-p", "brokers", "--lib", "redis::tests::world::run"])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", copy.join("target"))
        .env("RUSTFLAGS", "--cap-lints warn")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
