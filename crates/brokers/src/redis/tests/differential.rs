//! Compares the model with a real Redis: random commands, and the product's scripts with random
//! arguments.
//!
//! Invariant: both execute the same sequence, and every reply is equal, but for times, which may
//! differ by what passes between the two, and for orders that Redis leaves open.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::random::Random;
use tempfile::TempDir;

use super::model::reply::Reply;
use super::model::scripts::Interpreter;
use super::model::store::Store;
use crate::redis::resp::{Frame, RespDecoder, encode};
use crate::redis::scripts::Script;

/// Differences in milliseconds that two readings of the clock may have.
const CLOCK_DIFFERENCE_MAX: u64 = 400;

/// A real redis-server on a socket in a folder of its own.
struct RealRedis {
    child: Child,
    stream: UnixStream,
    decoder: RespDecoder,
    _folder: TempDir,
}

impl RealRedis {
    fn start() -> RealRedis {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server does not start; apt-get install redis-server");
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => {
                    assert!(start.elapsed() < Duration::from_secs(30), "{error}");
                    std::thread::yield_now();
                }
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        RealRedis { child, stream, decoder: RespDecoder::default(), _folder: folder }
    }

    fn ask(&mut self, words: &[Vec<u8>]) -> Frame {
        let mut out = Vec::new();
        encode(&mut out, &words.iter().map(|word| &word[..]).collect::<Vec<_>>());
        self.stream.write_all(&out).expect("the server reads");
        loop {
            if let Some(frame) = self.decoder.next().expect("the server speaks RESP") {
                return frame;
            }
            let mut bytes = [0; 4096];
            let length = self.stream.read(&mut bytes).expect("the server answers");
            self.decoder.buffer().extend_from_slice(&bytes[..length]);
        }
    }
}

impl Drop for RealRedis {
    fn drop(&mut self) {
        // It may have ended already.
        let _dead = self.child.kill();
        let _dead = self.child.wait();
    }
}

fn unix_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_micros()).expect("a clock before the year 290,000")
}

/// Both servers, which get the same commands.
struct Pair {
    real: RealRedis,
    model: Store,
    interpreter: Interpreter,
    random: Random,
    seed: u64,
    history: Vec<String>,
}

impl Pair {
    fn start(seed: u64) -> Pair {
        let (real, mut model) = (RealRedis::start(), Store::default());
        model.small_hash = 128;
        let (interpreter, random) = (Interpreter::new(), Random::new(seed));
        Pair { real, model, interpreter, random, seed, history: Vec::new() }
    }

    fn pick<'p>(&mut self, of: &[&'p str]) -> &'p str {
        of[self.random.below(of.len() as u64) as usize]
    }

    fn words(&mut self, line: &str) {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        self.history.push(line.to_owned());
        let real = self.real.ask(&words);
        self.model.now_us = unix_us();
        let model = self.model.execute(&words);
        let is_of_events = words[0] == b"XRANGE" && words[1].starts_with(b"{t}");
        self.compare(if is_of_events { b"EVENTS" } else { &words[0] }, real, &model);
    }

    fn script(&mut self, script: Script, keys: &[String], arguments: &[String]) {
        self.history.push(format!("{script:?} {keys:?} {arguments:?}"));
        let bytes = |texts: &[String]| -> Vec<Vec<u8>> {
            texts.iter().map(|text| text.as_bytes().to_vec()).collect()
        };
        let (keys, arguments) = (bytes(keys), bytes(arguments));
        let count = keys.len().to_string().into_bytes();
        let mut words = vec![b"EVAL".to_vec(), script.text().as_bytes().to_vec(), count];
        words.extend(keys.iter().chain(&arguments).cloned());
        let real = self.real.ask(&words);
        self.model.now_us = unix_us();
        let model = self.interpreter.run(&mut self.model, script.text(), &keys, &arguments);
        self.compare(b"SCRIPT", real, &model);
    }

    fn compare(&mut self, command: &[u8], real: Frame, model: &Reply) {
        let (mut bytes, mut decoder) = (Vec::new(), RespDecoder::default());
        model.encode(&mut bytes);
        decoder.buffer().extend_from_slice(&bytes);
        let model = decoder.next().expect("the model writes RESP").expect("whole replies");
        let (real, model) = (in_order(command, real), in_order(command, model));
        let last = &self.history[self.history.len().saturating_sub(12)..];
        assert!(
            is_equal(&real, &model),
            "seed {}: Redis replied {real:?}, the model {model:?}\n{}",
            self.seed,
            last.join("\n")
        );
    }

    /// Waits until times of a millisecond are over for both.
    fn pass_a_moment(&mut self) {
        let until = unix_us() + 3_000;
        while unix_us() < until {
            std::thread::yield_now();
        }
    }
}

/// Sorts what Redis returns in any order.
fn in_order(command: &[u8], frame: Frame) -> Frame {
    let shown = |one: &[Frame]| format!("{one:?}");
    match (command, frame) {
        (b"SMEMBERS" | b"HKEYS" | b"HVALS", Frame::List(mut items)) => {
            items.sort_by_key(|one| shown(std::slice::from_ref(one)));
            Frame::List(items)
        }
        // A cleanup tells of clients in the order of their hash, at its own time.
        (b"EVENTS", Frame::List(items)) => {
            let event = |entry: &Frame| {
                let text = entry.list()?.get(1)?.list()?.get(1)?.str()?;
                let (before, after) = text.split_once("\"timestamp\":")?;
                Some(format!("{before}{}", after.trim_start_matches(|one: char| one.is_numeric())))
            };
            let mut events: Vec<String> = items.iter().filter_map(event).collect();
            events.sort();
            Frame::List(events.into_iter().map(|event| Frame::Text(event.into())).collect())
        }
        (b"HGETALL", Frame::List(items)) => {
            let mut pairs: Vec<&[Frame]> = items.chunks(2).collect();
            pairs.sort_by_key(|pair| shown(pair));
            Frame::List(pairs.concat())
        }
        (b"HSCAN", Frame::List(mut items)) if items.len() == 2 => {
            let page = items.pop().map(|page| in_order(b"HGETALL", page));
            items.extend(page);
            Frame::List(items)
        }
        // Age and remaining TTL of a channel.
        (b"SCRIPT", Frame::List(items)) if lifetime(&items).is_some() => {
            Frame::Integer(lifetime(&items).unwrap_or(0))
        }
        (b"SCRIPT", Frame::List(items)) => {
            // Cursor and clients, or the nodes of a lease.
            let items = items.into_iter().map(|one| in_order(b"PRESENT", one)).collect();
            in_order(b"PRESENT", Frame::List(items))
        }
        (b"PRESENT", Frame::List(mut items)) if items.iter().all(|it| it.text().is_some()) => {
            items.sort_by_key(|one| shown(std::slice::from_ref(one)));
            Frame::List(items)
        }
        (_, frame) => frame,
    }
}

fn lifetime(items: &[Frame]) -> Option<i64> {
    let [Frame::Integer(age), Frame::Integer(left)] = items else { return None };
    (*left > 10_000).then_some(age + left)
}

fn is_equal(real: &Frame, model: &Frame) -> bool {
    match (real, model) {
        (Frame::List(real), Frame::List(model)) => {
            real.len() == model.len()
                && real.iter().zip(model).all(|(real, model)| is_equal(real, model))
        }
        // A command may be wrong in two ways, and Redis names either.
        (Frame::Error(_), Frame::Error(_)) => true,
        (real, model) if real == model => true,
        (real, model) => match (number(real), number(model)) {
            (Some(real), Some(model)) if real.min(model) > 1_000 => {
                real.abs_diff(model) <= CLOCK_DIFFERENCE_MAX
            }
            _ => false,
        },
    }
}

/// A number, or the first one of a stream's id.
fn number(frame: &Frame) -> Option<u64> {
    frame.u64().or_else(|| frame.str()?.split_once('-')?.0.parse().ok())
}

const FIELDS: [&str; 5] = ["a", "b", "c", "d/e\"", "42"];

#[test]
fn the_model_replies_to_commands_as_redis_does() {
    for seed in 0..4 {
        let mut pair = Pair::start(seed);
        for _ in 0..3_000 {
            let key = pair.pick(&["k1", "k2", "k3", "k4"]);
            let (field, other) = (pair.pick(&FIELDS), pair.pick(&FIELDS));
            let count = pair.pick(&["0", "1", "2", "5"]);
            let from = pair.pick(&["-", "3", "(4", "5-0", "(5-1"]);
            let to = pair.pick(&["+", "6", "(6", "8-0", "2"]);
            let score = pair.pick(&["1", "2.5", "-3", "2", "(2", "-inf", "+inf", "x"]);
            let most = pair.pick(&["1", "2.5", "(2.5", "+inf", "0"]);
            let ttl = pair.pick(&["100000", "600000", "0", "-5", "x"]);
            let id = 1 + pair.random.below(12);
            let line = match pair.random.below(34) {
                0 => format!("SET {key} {field}"),
                1 => format!("SET {key} {field} NX PX 100000"),
                2 => format!("SET {key} {count} PX {ttl}"),
                3 => format!("GET {key}"),
                4 => format!("DEL {key} k1"),
                5 => format!("EXISTS {key} k2"),
                6 => format!("PTTL {key}"),
                7 => format!("PEXPIRE {key} {ttl}"),
                8 => format!("HSET {key} {field} {count} {other} x"),
                9 => format!("HSETNX {key} {field} 7"),
                10 => format!("HINCRBY {key} {field} {count}"),
                11 => format!("HMGET {key} {field} {other}"),
                12 => format!("HGETALL {key}"),
                13 => format!("HKEYS {key}"),
                14 => format!("HVALS {key}"),
                15 => format!("HLEN {key}"),
                16 => format!("HGET {key} {field}"),
                17 => format!("HEXISTS {key} {field}"),
                18 => format!("HDEL {key} {field} {other}"),
                19 => format!("HSCAN {key} 0 COUNT 10"),
                20 => format!("XADD {key} MAXLEN = 4 {id}-0 x {field} d {other}"),
                21 => format!("XRANGE {key} {from} {to}"),
                22 => format!("XRANGE {key} {from} {to} COUNT {count}"),
                23 => format!("XREVRANGE {key} {to} {from} COUNT {count}"),
                24 => format!("XTRIM {key} MINID = {id}-1"),
                25 => format!("ZADD {key} {score} {field}"),
                26 => format!("ZCARD {key}"),
                27 => format!("ZRANGE {key} {} -1 WITHSCORES", pair.pick(&["0", "-1", "1"])),
                28 => format!("ZRANGEBYSCORE {key} {score} {most}"),
                29 => format!("ZRANGEBYSCORE {key} {score} +inf LIMIT 1 {count}"),
                30 => format!("ZSCORE {key} {field}"),
                31 => format!("ZREM {key} {field} {other}"),
                32 => format!("{} {key} {field} {other}", pair.pick(&["SADD", "SREM"])),
                _ => format!("SMEMBERS {key}"),
            };
            pair.words(&line);
            if pair.random.below(200) == 0 {
                pair.words(&format!("PEXPIRE {key} 1"));
                pair.pass_a_moment();
            }
        }
    }
}

#[test]
fn the_scripts_reply_in_the_model_as_in_redis() {
    for seed in 0..4 {
        let mut pair = Pair::start(seed);
        for step in 0..2_000 {
            run_script(&mut pair, step);
        }
    }
}

/// Adds a run of publications to the arguments of the script. Sometimes a key of it is no stream.
fn publish_run(
    pair: &mut Pair,
    ttl: &str,
    (keys, arguments): (&mut Vec<String>, &mut Vec<String>),
) {
    let channel = pair.pick(&["c1", "c2", "c3"]);
    let kind = if pair.random.below(30) == 0 { "online" } else { "stream" };
    keys.extend([format!("{{t}}:meta:{channel}"), format!("{{t}}:{kind}:{channel}")]);
    let version = pair.pick(&["0", "0", "0", "9", "10", "11"]);
    let has_key = pair.random.below(3) == 0;
    if has_key {
        keys.push(format!("{{t}}:once:{}", pair.pick(&["i1", "i2", "i3"])));
    }
    let count = if has_key || version != "0" { 1 } else { 1 + pair.random.below(4) };
    let size = pair.pick(&["0", "3", "3", "40"]);
    let version_epoch = pair.pick(&["", "v"]);
    let options = [channel, size, ttl, "90000", version, version_epoch];
    arguments.extend(options.map(str::to_owned));
    arguments.extend([u64::from(has_key).to_string(), count.to_string()]);
    for _ in 0..count {
        arguments.push("p".repeat(pair.random.below(40) as usize));
    }
}

/// Runs one script with random arguments on both.
#[expect(clippy::too_many_lines, reason = "a table of scripts, a few lines each")]
fn run_script(pair: &mut Pair, step: u64) {
    let owned =
        |texts: &[&str]| -> Vec<String> { texts.iter().map(|&text| text.to_owned()).collect() };
    let channel = pair.pick(&["c1", "c2"]);
    let node = pair.pick(&["n1", "n2", "n3"]);
    let of = |kind: &str, name: &str| format!("{{t}}:{kind}:{name}");
    let stream_keys = [of("meta", channel), of("stream", channel)];
    let presence_keys =
        [of("clients", channel), of("users", channel), of("ends", channel), of("node", node)];
    let registry_keys = ["nodes", "names", "claims"].map(|name| of(name, ""));
    let node_keys = [of("online", node), of("owners", node)];
    let ttl_keys = [of("life", channel), of("lived", channel)];
    let client = pair.pick(&["x1", "x2", "x3", "x4", "\u{1}/\"\\é"]);
    let user = pair.pick(&["", "ann", "bob:1"]);
    let epoch = format!("{step:016x}");
    let replica = pair.pick(&["r1", "r1", "r1", "r1", "r1", "r2"]);
    let short = pair.random.below(20) == 0;
    let ttl = if short { "1" } else { "60000" };
    match pair.random.below(18) {
        0..=3 => {
            let (mut keys, mut arguments) =
                (Vec::new(), owned(&["PUBLISH", replica, &epoch, "300000"]));
            for _ in 0..=pair.random.below(3) {
                publish_run(pair, ttl, (&mut keys, &mut arguments));
            }
            pair.script(Script::Publish, &keys, &arguments);
        }
        4..=6 => {
            let first = pair.pick(&["-", "3", "7"]);
            let (last, limit) = (pair.pick(&["+", "9"]), pair.pick(&["-1", "0", "1", "20"]));
            let (way, budget) = (pair.pick(&["", "reverse"]), pair.pick(&["100", "300", "9999"]));
            let arguments =
                owned(&[&epoch, "90000", "600000", first, last, limit, way, "", replica, budget]);
            pair.script(Script::Read, &stream_keys, &arguments);
        }
        7 => {
            let info = format!("info-{step}");
            let arguments =
                owned(&[node, ttl, channel, client, user, &info, pair.pick(&["0", "1"])]);
            pair.script(Script::Enter, &presence_keys, &arguments);
        }
        8 => {
            let last = pair.pick(&["", "last"]);
            pair.script(Script::Leave, &presence_keys, &owned(&[node, last, channel, client]));
        }
        9 => pair.script(Script::Present, &presence_keys[..3], &owned(&["0", "1000"])),
        10 => pair.script(Script::Count, &presence_keys[..3], &[]),
        11 => {
            // Either Redis announces the leaves, or another broker.
            let announces = pair.pick(&["channel", ""]);
            let mut arguments = owned(&[node, channel, "PUBLISH", announces, "0", "200"]);
            pair.script(Script::Evict, &presence_keys, &arguments);
            if announces.is_empty() {
                arguments.extend(owned(&[client, "absent"]));
                pair.script(Script::Evict, &presence_keys, &arguments);
            }
        }
        12 => {
            let keys = [&registry_keys[..], &node_keys, &[of("options", "")]].concat();
            let told = pair.pick(&["", "0", "1", "2"]);
            let lease = if short { "1" } else { "12000" };
            let arguments = owned(&[
                node,
                pair.pick(&["name", "name", "other"]),
                lease,
                "86400000",
                "free",
                told,
                pair.pick(&["", "digest", "other"]),
                "text",
                "PUBLISH",
                "control",
                "look",
            ]);
            pair.script(Script::Lease, &keys, &arguments);
            // Leases end at different times for both, or their order would be open.
            pair.pass_a_moment();
        }
        13 => {
            let keys = [&registry_keys[..1], &node_keys, &[of("events", "")]].concat();
            let sign = pair.pick(&["+", "+", "-"]);
            let arguments = owned(&[
                "name",
                "1000",
                "604800000",
                "86400000",
                "PUBLISH",
                "life",
                sign,
                client,
                user,
                "1700000000000",
                "why",
            ]);
            pair.script(Script::Lifecycle, &keys, &arguments);
            pair.words(&format!("XRANGE {} - +", of("events", "")));
        }
        14 => {
            let events = [of("events", ""), of("names", ""), of("claims", ""), of("options", "")];
            let keys = [&registry_keys[..1], &node_keys, &events].concat();
            let own = pair.pick(&["", "", "self"]);
            let arguments =
                owned(&[node, "1000", "604800000", "PUBLISH", "life", "lost", "200", own, "0"]);
            pair.script(Script::CleanUp, &keys, &arguments);
        }
        15 => {
            let keys = [&ttl_keys[..], &stream_keys].concat();
            let begins = pair.pick(&["0", "70000", "90000"]);
            pair.script(Script::ChannelTtl, &keys, &owned(&[begins]));
            if pair.random.below(3) == 0 {
                pair.script(Script::End, &keys, &[]);
            }
        }
        16 => {
            let keys = [of("revocations", ""), of("revocation_ends", "")];
            let change = format!("{:0>8}", pair.random.below(4));
            let ends_at = unix_us() / 1_000_000 + 100 - 200 * i64::from(short);
            let arguments = owned(&[client, &ends_at.to_string(), &change, "PUBLISH", "control"]);
            pair.script(Script::Revoke, &keys, &arguments);
        }
        _ => {
            let base = "{t}:".to_owned();
            let arguments = [base, user.to_owned(), client.to_owned(), "PUBLISH".to_owned()];
            let arguments = [&arguments[..], &["message".to_owned()]].concat();
            pair.script(Script::Order, &registry_keys[..1], &arguments);
            pair.script(Script::Survey, &registry_keys[..1], &owned(&["PUBLISH", "c", "q"]));
            pair.script(Script::Clear, &stream_keys[1..], &[]);
            pair.script(Script::Probe, &["probe".to_owned()], &owned(&["c", "PUBLISH", "all"]));
        }
    }
    if short {
        pair.pass_a_moment();
    }
}
