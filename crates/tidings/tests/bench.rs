//! The load generator as its users run it, against a real server: small, short, and each time with
//! a checked result.

#[path = "support/process.rs"]
mod process;

use std::net::TcpListener;
use std::process::{Command, Output};

use serde_json::Value;

use process::{PATIENCE, Running, configured, tidings};

const CONFIG: &str = r#"
[http_server]
address = "127.0.0.1"
port = 0
[http_api]
key = "key"
[client.token]
hmac_secret_key = "secret"
[shutdown]
drain_window = "0s"
# One client publishes as fast as it can.
[limits.connection]
commands = "off"
publishes = "off"
bytes = "off"
[channel.without_namespace]
allow_subscribe_for_client = true
allow_publish_for_client = true
history_size = 1000
history_ttl = "60s"
force_recovery = true
"#;

/// Bytes that an idle connection may cost the server: session, one subscription, JSON, everything
/// as by default.
const MEMORY_PER_CONNECTION_MAX: f64 = 1500.0;

/// A run against a server, with these arguments besides.
fn run(scenario: &str, arguments: &[&str]) -> Output {
    let [output] = run_each(scenario, [arguments]);
    output
}

/// Runs one after the other against the same server.
fn run_each<const N: usize>(scenario: &str, runs: [&[&str]; N]) -> [Output; N] {
    let (_folder, file) = configured(CONFIG);
    let (mut server, port) = Running::serving(tidings(&["serve", "-c", file.to_str().unwrap()]));
    let url = format!("ws://127.0.0.1:{port}/connection/websocket");
    let process = server.child.id().to_string();
    let base = ["bench", scenario, "--url", &url, "--channel", "bench", "--server-pid", &process];
    let rest = ["--duration", "500ms", "--json", "-"];
    let output =
        runs.map(|arguments| tidings(&[&base[..], &rest, arguments].concat()).output().unwrap());
    server.signal("-TERM");
    let status = server.exit();
    let words = server.last_words();
    assert!(status.success() && !words.contains("panicked"), "{words}");
    output
}

fn report(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(report: &Value, published: u64, deliveries: u64) {
    assert_eq!(report["published"], published, "{report}");
    assert_eq!(report["deliveries"], deliveries);
    assert_eq!(report["latency"]["count"], deliveries);
    assert_eq!(report["faults"]["lost"], 0);
    assert!(report["latency"]["p50_us"].as_f64().unwrap() > 0.0);
    assert!(report["server"]["ns_per_delivery"].as_f64().unwrap() > 0.0);
}

#[test]
fn fanout_delivers_to_everybody_in_both_codecs_and_by_both_ways() {
    let common = ["-s", "20", "--rate", "100", "--token-secret", "secret", "--codec"];
    for rest in [&["json", "--api-key", "key"][..], &["protobuf", "--workers", "2"]] {
        check(&report(&run("fanout", &[&common, rest].concat())), 50, 1000);
    }
}

#[test]
fn raw_has_the_same_receivers_without_a_server() {
    let raw = ["bench", "raw", "-s", "20", "--rate", "100", "-d", "500ms", "--json", "-"];
    check(&report(&tidings(&raw).output().unwrap()), 50, 1000);
}

#[test]
fn a_relay_receives_through_redis_what_it_publishes() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Command::new("redis-server");
    redis.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir"]).arg(folder.path());
    let redis = Running::start(redis);
    let mut said = std::iter::from_fn(|| redis.out.recv_timeout(PATIENCE).ok());
    assert!(said.any(|line| line.contains("Ready to accept connections")), "redis-server ended");
    let relay = |url: &str| {
        let common = ["bench", "relay", "--url", url, "--rate", "100", "--server-pid"];
        let process = redis.child.id().to_string();
        tidings(&[&common[..], &[&process, "-d", "500ms", "--json", "-"]].concat())
            .output()
            .unwrap()
    };
    check(&report(&relay(&format!("redis://127.0.0.1:{port}"))), 50, 50);
    let output = relay("redis://127.0.0.1:1");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot connect to Redis") && said.lines().count() == 1, "{said}");
}

#[test]
fn everybody_talks_and_nothing_waits() {
    let common = ["--token-secret", "secret", "-c", "3", "-s", "4"];
    check(&report(&run("rooms", &[&common[..], &["--rate", "120"]].concat())), 60, 240);
    let saturated = report(&run("saturate", &[&common[..], &["-w", "6"]].concat()));
    assert_eq!(
        saturated["deliveries"].as_u64().unwrap(),
        saturated["published"].as_u64().unwrap() * 4
    );
    let idle = report(&run("idle", &["--token-secret", "secret", "-n", "30"]));
    assert_eq!((&idle["connections"], &idle["deliveries"]), (&30.into(), &0.into()));
}

#[test]
fn an_idle_connection_keeps_to_its_budget() {
    let run = |connections| ["--token-secret", "secret", "-n", connections];
    // The first run takes what a server of any size has: buffers, tables, the allocator's own.
    let [_, output] = run_each("idle", [&run("3000"), &run("12000")]);
    let bytes = report(&output)["server"]["memory_per_connection"].as_f64().unwrap();
    println!("an idle connection costs {bytes:.0} bytes");
    assert!(bytes <= MEMORY_PER_CONNECTION_MAX, "{bytes:.0} bytes");
    assert!(bytes > 300.0, "{bytes:.0} bytes: the connections were not there");
}

#[test]
fn with_tls_it_is_the_same() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (folder, file) = configured(CONFIG);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let settings = [
        "--http_server.tls.enabled=true".to_owned(),
        format!("--http_server.tls.cert_pem={certificate}"),
        format!("--http_server.tls.key_pem={key}"),
    ];
    let serve = ["serve", "-c", file.to_str().unwrap()];
    let settings = settings.iter().map(String::as_str);
    let serve: Vec<&str> = serve.into_iter().chain(settings).collect();
    let (_server, port) = Running::serving(tidings(&serve));
    let url = format!("wss://127.0.0.1:{port}/connection/websocket");
    let base = ["bench", "fanout", "--url", &url, "--channel", "bench", "--token-secret", "secret"];
    let load = ["--api-key", "key", "-s", "20", "-r", "100", "-d", "500ms", "--json", "-"];
    let bench = |rest: &[&str]| tidings(&[&base[..], &load, rest].concat()).output().unwrap();
    let trusting = report(&bench(&["--ca", &certificate]));
    assert_eq!((&trusting["published"], &trusting["deliveries"]), (&50.into(), &1000.into()));
    let output = bench(&[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("certificate") && said.lines().count() == 1, "{said}");
    let said = String::from_utf8_lossy(&bench(&["--ca", &key]).stderr).into_owned();
    assert!(said.contains("--ca") && said.contains("certificates as PEM"), "{said}");
}

#[test]
fn the_example_runs_several_at_the_same_time() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/example.toml");
    let text = std::fs::read_to_string(example).unwrap();
    let config = "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n[client]\n\
        allow_anonymous_connect_without_token = true\n[[channel.namespaces]]\nname = \"demo\"\n\
        allow_subscribe_for_client = true\nallow_subscribe_for_anonymous = true\n\
        allow_publish_for_client = true\nallow_publish_for_anonymous = true\n";
    let (folder, file) = configured(config);
    let (_server, port) = Running::serving(tidings(&["serve", "-c", file.to_str().unwrap()]));
    let text = text.replace(":8000", &format!(":{port}")).replace("\"5s\"", "\"500ms\"");
    let mix = folder.path().join("mix.toml");
    std::fs::write(&mix, text).unwrap();
    let bench = ["bench", "file", mix.to_str().unwrap(), "--json", "-"];
    let output = tidings(&bench).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let reports: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let deliveries: Vec<u64> =
        reports.iter().map(|report| report["deliveries"].as_u64().unwrap()).collect();
    assert_eq!(deliveries, [50 * 10, 25 * 200, 0]);
    std::fs::write(&mix, "[[run]]\nscenario = \"fanout\"\nrat = 1").unwrap();
    let said = String::from_utf8_lossy(&tidings(&bench).output().unwrap().stderr).into_owned();
    assert!(said.contains("run 1 (fanout): unexpected argument '--rat'"), "{said}");
}

#[test]
fn a_storm_recovers_what_every_client_missed() {
    let common = ["--token-secret", "secret", "--api-key", "key", "-c", "3", "-w", "8"];
    for rest in [&["--codec", "protobuf", "--recover", "7"][..], &["--workers", "2"]] {
        let report = report(&run("storm", &[&common, rest].concat()));
        let joins = report["joins"].as_u64().unwrap();
        let each = if rest.contains(&"--recover") { 7 } else { 10 };
        assert!(joins > 8, "{report}");
        assert_eq!(report["deliveries"].as_u64().unwrap(), joins * each);
        assert_eq!(report["joining"]["count"], joins);
    }
}

#[test]
fn what_cannot_be_recovered_is_a_fault() {
    // The history holds a thousand.
    let common = ["--token-secret", "secret", "--api-key", "key", "--recover", "1001"];
    let output = run("storm", &common);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(report["faults"]["lost"].as_u64().unwrap() >= 1001, "{report}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("deliveries are not as they must be"));
}

#[test]
fn those_that_are_cut_come_back_to_everything() {
    let common = ["--token-secret", "secret", "--api-key", "key", "-n", "20", "-s", "10"];
    let report = report(&run("jitter", &[&common[..], &["-r", "200", "--deaths", "100"]].concat()));
    let joins = report["joins"].as_u64().unwrap();
    assert!((10..=50).contains(&joins), "{report}");
    assert_eq!((&report["published"], &report["deliveries"]), (&100.into(), &1000.into()));
    assert_eq!(report["joins_refused"], 0);
}

#[test]
fn batches_carry_what_waits() {
    let common = ["--token-secret", "secret", "--api-key", "key", "-c", "2", "-s", "3"];
    let report = report(&run("saturate", &[&common[..], &["-w", "20", "--batch", "5"]].concat()));
    assert_eq!(report["deliveries"].as_u64().unwrap(), report["published"].as_u64().unwrap() * 3);
}

#[test]
fn what_goes_wrong_is_one_line() {
    let says = |output: &Output, status: i32, wanted: &str| {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains(wanted) && said.lines().count() == 1, "{said}");
    };
    says(&run("storm", &["--token-secret", "secret"]), 2, "give --api-key");
    let refused = run("fanout", &["--token", "no.such.token"]);
    says(&refused, 1, "the server closed a connection: 3500");
    let bench =
        |arguments: &[&str]| tidings(&[&["bench", "fanout"], arguments].concat()).output().unwrap();
    says(&bench(&["--url", "ws://127.0.0.1:1/", "--json", "-"]), 1, "cannot connect");
    let unreached = bench(&["--url", "ws://127.0.0.1:1/"]);
    says(&unreached, 1, "cannot connect");
    assert!(unreached.stdout.is_empty(), "nobody needs a table of zeroes: {unreached:?}");
    says(&bench(&["--url", "http://127.0.0.1:1/"]), 2, "begins with ws:// or wss://");
    let elsewhere = ["--publish-by", "client", "--publish-url", "http://127.0.0.1:1/"];
    says(&bench(&elsewhere), 2, "begins with ws:// or wss://");
    says(&bench(&["--size", "3"]), 2, "--size must be");
}

#[test]
fn a_scenario_offers_what_it_has_a_use_for() {
    let help = |scenario: &str| {
        let output = tidings(&["bench", scenario, "--help"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (idle, fanout, file) = (help("idle"), help("fanout"), help("file"));
    assert!(
        idle.contains("--connections") && !idle.contains("--rate") && !idle.contains("--batch")
    );
    assert!(fanout.contains("--rate") && fanout.contains("--batch"), "{fanout}");
    assert!(!fanout.contains("--deaths") && !fanout.contains("--raw-core"), "{fanout}");
    assert!(file.contains("--url") && file.contains("--html"), "{file}");
    let words: Vec<&str> = fanout.split_whitespace().collect();
    assert!(
        words.join(" ").contains("an n in curly braces stands for the number of each"),
        "{fanout}"
    );
    let raw = ["bench", "raw", "-s", "1", "-d", "100ms", "--deaths", "3"];
    let output = tidings(&raw).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("no use for --deaths"), "{said}");
}

#[test]
fn numbers_that_mean_nothing_are_left_out() {
    let options = ["-n", "3", "--token-secret", "secret", "--codec", "json"];
    let report = report(&run("idle", &options));
    assert_eq!(report["server"]["memory_per_connection"], Value::Null);
    let (_folder, file) = configured(CONFIG);
    let (_server, port) = Running::serving(tidings(&["serve", "-c", file.to_str().unwrap()]));
    let url = format!("ws://127.0.0.1:{port}/connection/websocket");
    let table = ["bench", "idle", "--url", &url, "--channel", "bench", "-d", "200ms"];
    let output = tidings(&[&table[..], &options].concat()).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("(JSON)") && table.contains("1 process,"), "{table}");
    assert!(!table.contains("bytes a connection") && table.contains("3 in 3 channels"), "{table}");
}

/// A server API that answers in every form that HTTP/1.1 knows, one request after the other.
fn answer_in_every_form(mut stream: std::net::TcpStream, form: &mut usize) {
    use std::io::{Read as _, Write as _};
    let mut seen = Vec::new();
    let mut part = [0; 4096];
    loop {
        while let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..end]).to_lowercase();
            let length: usize = head
                .split("content-length: ")
                .nth(1)
                .unwrap()
                .lines()
                .next()
                .unwrap()
                .parse()
                .unwrap();
            if seen.len() < end + 4 + length {
                break;
            }
            seen.drain(..end + 4 + length);
            *form += 1;
            let (answer, closes): (&[u8], bool) = match *form % 4 {
                0 => (b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}", false),
                1 => (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"res\r\n8\r\nult\":{}}\r\n0\r\n\r\n", false),
                2 => (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 13\r\n\r\n{\"result\":{}}", true),
                _ => (b"HTTP/1.0 200 OK\r\n\r\n{\"result\":{}}", true),
            };
            stream.write_all(answer).unwrap();
            if closes {
                return;
            }
        }
        match stream.read(&mut part) {
            Ok(count) if count > 0 => seen.extend_from_slice(&part[..count]),
            _ => return,
        }
    }
}

#[test]
fn an_api_may_answer_in_any_form() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}/api", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut form = 0;
        while let Ok((stream, _)) = listener.accept() {
            answer_in_every_form(stream, &mut form);
        }
    });
    // Nothing reaches a channel through it, so that all deliveries are missing; but each answer is
    // understood.
    let options = ["--token-secret", "secret", "--api-key", "key", "--api-url", &api];
    let output = run("fanout", &[&options[..], &["-s", "1", "--rate", "40"]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["published"], &report["failures"]),
        (&20.into(), &Value::Array(Vec::new()))
    );
    assert_eq!(report["faults"]["lost"], 20);
}
