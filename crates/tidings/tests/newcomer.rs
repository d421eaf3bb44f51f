//! The first steps with the command: mistakes that are reported with what to do,
//! files that are safe from the start, and strangers' text that a terminal shows and does not obey.

#[path = "support/process.rs"]
mod process;
#[path = "support/run.rs"]
mod run;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use process::{Running, configured, tidings};
use run::{run, text};

const CONFIG: &str = r#"
[http_server]
address = "127.0.0.1"
port = 0
[http_api]
key = "key"
[client]
allowed_origins = ["https://app.example"]
[client.token]
hmac_secret_key = "secret"
[shutdown]
drain_window = "0s"
[channel.without_namespace]
allow_subscribe_for_client = true
[[channel.namespaces]]
name = "closed"
"#;

/// The command ends with status 2, and says this in one line.
fn is_misuse(arguments: &[&str], wanted: &str) {
    let output = run(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert!(said.contains(wanted), "{arguments:?}: {said}");
    assert!(said.lines().count() == 1 && output.stdout.is_empty(), "{arguments:?}: {output:?}");
}

#[test]
fn a_subscriber_does_not_repeat_a_mistake() {
    let (_folder, file) = configured(CONFIG);
    let config = file.to_str().unwrap();
    let (_server, port) = Running::serving(tidings(&["serve", "-c", config]));
    let at = |rest: &str| format!("127.0.0.1:{port}{rest}");
    let expired = run(&["token", "-c", config, "-u", "ann", "--expires-in", "1s"]).stdout;
    let foreign = text(&run(&["token", "--secret", "another", "-u", "ann"]).stdout);
    let subscribe = |channel: &str, rest: &[&str], wanted: &str| {
        is_misuse(&[&["subscribe", channel], rest].concat(), wanted);
    };
    let ws = format!("ws://{}", at("/connection/websocket"));
    for (url, wanted) in [
        (
            format!("http://{}", at("")),
            format!("did you mean ws://{}?", at("/connection/websocket")),
        ),
        (format!("ftp://{}", at("")), "begins with ws:// or wss://".to_owned()),
        ("ws://127.0.0.1:80000".to_owned(), "\"80000\" is not a port".to_owned()),
        ("ws://".to_owned(), "missing host".to_owned()),
        ("ws://nowhere.invalid".to_owned(), "nowhere.invalid has no address".to_owned()),
        (format!("ws://{}", at("/elsewhere")), "there is nothing at this path (404)".to_owned()),
        (format!("ws://{}", at("/")), "by default it is at /connection/websocket".to_owned()),
        (format!("wss://{}", at("")), "does not speak TLS".to_owned()),
    ] {
        subscribe("news", &["--url", &url], &wanted);
    }
    subscribe("news", &["--url", &ws], "give --token");
    subscribe("news", &["--url", &at("")], "give --token");
    subscribe("news", &["--url", &ws, "--token", foreign.trim()], "invalid token (3500)");
    subscribe("news", &["--url", &ws, "--token", "no token"], "(3500)");
    subscribe("nowhere:x", &["--url", &ws, "-c", config], "no such namespace or channel");
    subscribe("closed:x", &["--url", &ws, "-c", config], "does not allow this user to subscribe");
    assert!(!expired.is_empty());
    // Not HTTP at all.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _head = stream.read(&mut [0; 4096]);
        stream.write_all(b"\x15\x03\x01\x00\x02\x02\x0a").unwrap();
    });
    subscribe("news", &["--url", &url], "the address begins with wss://");
}

#[test]
fn a_time_without_a_unit_gets_a_suggestion() {
    is_misuse(&["token", "--secret", "s", "--expires-in", "10"], "did you mean 10s");
    is_misuse(&["token", "--secret", "s", "--expires-in", "soon"], "such as 250ms, 10s");
    is_misuse(&["token", "--secret", "s", "--expires-in", "10ms"], "the least is 1s");
    is_misuse(&["token", "--secret", "s", "--info", "Ann"], "--info is not JSON");
    is_misuse(
        &["bench", "raw", "-d", "10"],
        "--duration 10: a time needs a unit; did you mean 10s",
    );
    is_misuse(&["bench", "raw", "-d", "1ms"], "--duration must be from 100ms");
    is_misuse(&["token", "--secret", "", "-u", "ann"], "the secret is empty");
    is_misuse(&["bench", "file", "/nowhere.toml"], "/nowhere.toml cannot be read");
    for arguments in
        [&["subscribe", ""][..], &["publish", "", "1"], &["subscribe", "x", "--count=0"]]
    {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let output = run(&["bench", "fanout", "--url", "127.0.0.1:1"]);
    assert!(text(&output.stderr).contains("cannot connect to"), "{output:?}");
    is_misuse(&["bench", "fanout", "--size", "3"], "--size must be");
    is_misuse(&["bench", "fanout", "--url", "http://127.0.0.1:1"], "begins with ws:// or wss://");
}

#[test]
fn a_sample_is_its_owners_alone_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    let path = file.to_str().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let output = run(&["sample-config", "-o", path]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(mode(&file), 0o600);
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(run(&["check", "-c", path]).status.code(), Some(0));
    let output = run(&["sample-config", "-o", path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is not overwritten"), "{output:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
    // A shell's redirection.
    let redirected = folder.path().join("redirected.toml");
    let into_file = |mode: u32| {
        let file = std::fs::File::create(&redirected).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        text(
            &tidings(&["sample-config"])
                .stdout(file)
                .stderr(Stdio::piped())
                .output()
                .unwrap()
                .stderr,
        )
    };
    assert!(into_file(0o644).contains("others may read it (mode 0644)"));
    assert_eq!(into_file(0o600), "");
    assert_eq!(text(&run(&["sample-config"]).stderr), "");
}

#[test]
fn a_token_for_nobody_says_so() {
    let output = run(&["token", "--secret", "s"]);
    assert!(output.status.success() && text(&output.stderr).contains("anonymous"), "{output:?}");
    let output = run(&["token", "--secret", "s", "-u", "ann"]);
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn publishing_names_the_line_and_what_is_missing() {
    let (_folder, file) = configured(CONFIG);
    let config = file.to_str().unwrap();
    let (_server, port) = Running::serving(tidings(&["serve", "-c", config]));
    let url = format!("127.0.0.1:{port}");
    let mut child = tidings(&["publish", "news", "-", "-c", config, "--url", &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"1\n\n{\"a\":2}\nnonsense\n4\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(2), 2));
    let said = text(&output.stderr);
    assert!(said.contains("line 4 of standard input: the data is not JSON"), "{said}");
    is_misuse(&["publish", "news", "1", "--url", &url], "give --api-key, or -c FILE");
    is_misuse(&["publish", "news", "1", "--url", &url, "--api-key", "x"], "refuses this key (401)");
    let elsewhere = format!("{url}/elsewhere");
    is_misuse(
        &["publish", "news", "1", "--url", &elsewhere, "--api-key", "x"],
        "is not there (404)",
    );
    let ws = format!("ws://{url}/connection/websocket");
    is_misuse(&["publish", "news", "1", "--url", &ws], &format!("did you mean http://{url}/api?"));
    is_misuse(&["publish", "nowhere:x", "1", "-c", config, "--url", &url], "unknown channel");
}

#[test]
fn whoever_has_seen_enough_ends_a_command_without_a_word() {
    let script = format!("{} sample-config --all | head -c 1", env!("CARGO_BIN_EXE_tidings"));
    let output =
        Command::new("bash").args(["-c", &format!("{script}; exit ${{PIPESTATUS[0]}}")]).output();
    let output = output.unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

/// A peer that answers the handshake and says this.
fn recite(replies: &str) -> String {
    use wire::websocket::encoder::{self, FrameKind};
    use wire::websocket::handshake::{self, RequestHead};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let frame = encoder::frame(FrameKind::Text, replies.as_bytes());
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(&stream).lines().map(Result::unwrap);
        let request: Vec<(String, String)> = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned())))
            .collect();
        let headers = request.iter().map(|(name, value)| (&**name, value.as_bytes())).collect();
        let head = RequestHead { method: "GET", is_http_1_1: true, headers };
        let accept = handshake::accept(&head).unwrap().accept;
        let head = format!("HTTP/1.1 101 -\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        (&stream).write_all(&[head.as_bytes(), &frame].concat()).unwrap();
        let _rest = (&stream).read_to_end(&mut Vec::new());
    });
    url
}

#[test]
fn a_terminal_obeys_nothing_that_strangers_publish() {
    let hidden = "\u{9b}31m\u{7f}\u{202e}\u{2066}\u{200b}\u{feff}";
    let url = recite(&format!(
        "{{\"id\":1,\"connect\":{{\"client\":\"c\",\"version\":\"1\"}}}}\n{{\"id\":2,\"subscribe\":{{}}}}\n\
         {{\"push\":{{\"channel\":\"news\",\"pub\":{{\"data\":{{\"a\": \"{hidden}ü\"}}}}}}}}\n\
         {{\"push\":{{\"channel\":\"news\",\"unsubscribe\":{{\"code\":2000,\"reason\":\"{hidden}\"}}}}}}"
    ));
    let output = run(&["subscribe", "news", "--url", &url]);
    let shown = "\\u009b31m\\u007f\\u202e\\u2066\\u200b\\ufeff";
    assert_eq!(text(&output.stdout), format!("{{\"a\": \"{shown}ü\"}}\n"));
    assert!(text(&output.stderr).contains(&format!("ended the subscription: {shown} (2000)")));
    assert_eq!(output.status.code(), Some(1), "it was live");
    // Typed arguments are reported in the same way.
    is_misuse(&["publish", "news", "1", "--url", "x\u{9b}://h"], "x\\u009b://h");
}

/// Asks for a WebSocket from a page of this origin; gives the answer.
fn ask(port: u16, request: &str, origin: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_refused_origin_is_reported_to_the_page_and_to_the_operator() {
    let (_folder, file) = configured(CONFIG);
    let serve = ["serve", "-c", file.to_str().unwrap(), "--log.format=json"];
    let (server, port) = Running::serving(tidings(&serve));
    for request in ["GET /connection/websocket", "POST /connection/websocket"] {
        let answer = ask(port, request, "http://127.0.0.1:3000");
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("client.allowed_origins"), "{answer}");
        assert!(answer.to_lowercase().contains("access-control-allow-origin: *"), "{answer}");
        let line = server.says("\"WARN\"");
        assert!(line.contains("\"origin\":\"http://127.0.0.1:3000\""), "{line}");
        assert!(line.contains("client.allowed_origins"), "{line}");
    }
    assert!(
        ask(port, "POST /connection/websocket", "https://app.example").starts_with("HTTP/1.1 405")
    );
    // Refusals without end fill no log.
    for number in 0..100 {
        ask(port, "GET /connection/websocket", &format!("http://{number}"));
    }
    server.signal("-TERM");
    let lines = server.says_until("\"stopped\"");
    let reported = lines.iter().filter(|line| line.contains("\"WARN\"")).count();
    assert!((1..=25).contains(&reported), "{reported} lines");
}

#[test]
fn the_front_page_says_what_is_served_and_how_to_see_the_demo() {
    let (_folder, file) = configured(CONFIG);
    let config = file.to_str().unwrap();
    let (_server, port) = Running::serving(tidings(&["serve", "-c", config]));
    let page = ask(port, "GET /", "http://x");
    for wanted in
        ["200 OK", "/connection/websocket", "/api", "/ready", "/metrics", "[demo]\nenabled = true"]
    {
        assert!(page.replace("  ", "").contains(wanted), "{wanted} is not in {page}");
    }
    let nothing = ask(port, "GET /elsewhere", "http://x");
    assert!(
        nothing.contains("404") && nothing.contains("there is nothing at this path\n"),
        "{nothing}"
    );
    // What the page says is enough.
    let reported = page.split("elsewhere:\n\n").nth(1).unwrap().split("\n\nOr").next().unwrap();
    let lines: Vec<&str> = reported.lines().map(str::trim).collect();
    let merged = CONFIG.replace("[client]\nallowed_origins = [\"https://app.example\"]\n", "");
    let (_folder, file) = configured(&format!("{merged}\n{}", lines.join("\n")));
    let (_server, port) = Running::serving(tidings(&["serve", "-c", file.to_str().unwrap()]));
    assert!(ask(port, "GET /", "http://x").contains("<title>Tidings</title>"));
    let url = format!("127.0.0.1:{port}");
    let subscriber =
        Running::start(tidings(&["subscribe", "demo:ticker", "--url", &url, "--count", "1"]));
    subscriber.says("live: demo:ticker");
    let quote = subscriber.out.recv_timeout(process::PATIENCE).unwrap();
    assert!(quote.contains("\"symbol\""), "{quote}");
    // A port of its own for operators: the public one does not speak of it.
    let internal = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let flag = format!("--http_server.internal_port={internal}");
    let (_server, port) = Running::serving(tidings(&["serve", "-c", config, &flag]));
    let (outside, inside) = (ask(port, "GET /", "http://x"), ask(internal, "GET /", "http://x"));
    assert!(
        outside.contains("/connection/websocket") && !outside.contains("/metrics"),
        "{outside}"
    );
    assert!(!inside.contains("/connection/websocket") && inside.contains("/metrics"), "{inside}");
}

#[test]
fn a_pipe_gets_no_colours() {
    let (_folder, file) = configured(CONFIG);
    let serve = ["serve", "-c", file.to_str().unwrap(), "--log.format=pretty"];
    let mut server = Running::start(tidings(&serve));
    let line = server.says("serving");
    assert!(
        !line.contains('\u{1b}') && line.contains("address=") && line.contains("127.0.0.1:"),
        "{line:?}"
    );
    server.signal("-TERM");
    assert_eq!(server.exit().code(), Some(0));
    let rest = server.last_words();
    assert!(rest.contains("stopped") && !rest.contains('\u{1b}'), "{rest}");
}
