//! The command as its users see it: what it prints, how it exits, what its parts do together.

#[path = "support/process.rs"]
mod process;
#[path = "support/run.rs"]
mod run;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use server::token::{TokenSettings, Verifier};
use wire::websocket::encoder::{self, FrameKind};
use wire::websocket::handshake::{self, RequestHead};

use process::{PATIENCE, Running, configured, lines, tidings};
use run::{run, text};

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
[channel.without_namespace]
allow_subscribe_for_client = true
history_size = 10
history_ttl = "60s"
force_recovery = true
"#;

/// A server with this configuration, and its port.
fn serve(file: &Path, port: u16) -> (Running, u16) {
    let port = format!("--http_server.port={port}");
    Running::serving(tidings(&["serve", "-c", file.to_str().unwrap(), &port]))
}

fn prints(running: &Running) -> String {
    running.out.recv_timeout(PATIENCE).expect("a line on standard output")
}

#[test]
fn help_shows_examples_and_settings() {
    let help = text(&run(&["--help"]).stdout);
    assert!(help.contains("Examples:") && help.contains("tidings subscribe news"), "{help}");
    for action in ["serve", "token", "publish", "subscribe"] {
        assert!(text(&run(&[action, "--help"]).stdout).contains("Examples:"), "{action}");
    }
    assert!(text(&run(&["serve", "--help"]).stdout).contains("--client.ping_interval"));
    assert!(!text(&run(&["serve", "-h"]).stdout).contains("--client.ping_interval"));
    for version in ["version", "--version", "-V"] {
        let said = text(&run(&[version]).stdout);
        assert_eq!(said, concat!("tidings ", env!("CARGO_PKG_VERSION"), "\n"), "{version}");
    }
    assert_eq!(run(&["serve", "--no.such.setting=1"]).status.code(), Some(2));
}

#[test]
fn samples_are_without_mistakes_and_secrets_differ() {
    let starter = run(&["sample-config"]).stdout;
    assert_ne!(starter, run(&["sample-config"]).stdout);
    for content in [starter, run(&["sample-config", "--all"]).stdout] {
        let (_folder, file) = configured(&text(&content));
        let output = run(&["check", "-c", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("no mistakes"));
    }
}

#[test]
fn every_mistake_is_named_and_nothing_starts() {
    let bad = "[http_server]\nport = \"many\"\n[client]\nping_intervall = \"1s\"\nqueue_max_size = -1\n\
               [[channel.namespaces]]\nname = \"chat\"\nhistory_size = 10\n";
    let (_folder, file) = configured(bad);
    for action in ["check", "serve"] {
        let output = run(&[action, "-c", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{action}");
        let said = text(&output.stderr);
        for place in [
            "http_server.port",
            "client.ping_intervall",
            "client.ping_interval",
            "client.queue_max_size",
            "channel.namespaces[0].history_ttl",
        ] {
            assert!(said.contains(place), "{place} is not named:\n{said}");
        }
    }
    let output = run(&["serve", "-c", "/nowhere/tidings.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nowhere/tidings.toml"));
}

#[test]
fn a_port_in_use_and_an_unreadable_certificate_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = run(&["serve", &format!("--http_server.port={port}")]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    let output = run(&[
        "serve",
        "--http_server.port=0",
        "--http_server.tls.enabled",
        "--http_server.tls.cert_pem=/nowhere/cert.pem",
        "--http_server.tls.key_pem=/nowhere/key.pem",
    ]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("http_server.tls.cert_pem") && said.contains("/nowhere/cert.pem"),
        "{said}"
    );
}

#[test]
fn check_reads_certificate_and_key() {
    let (folder, file) = configured(CONFIG);
    let key = folder.path().join("key.pem");
    std::fs::write(&key, "no key").unwrap();
    let key = key.to_str().unwrap();
    let output = run(&[
        "check",
        "-c",
        file.to_str().unwrap(),
        "--http_server.tls.enabled",
        &format!("--http_server.tls.cert_pem={key}"),
        &format!("--http_server.tls.key_pem={key}"),
    ]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains(&format!("cert_pem: {key} contains no certificate")), "{said}");
}

#[test]
fn development_mode_says_in_three_lines_what_it_serves() {
    let mut server = Running::start(tidings(&["serve", "--http_server.port=0"]));
    let greeting: Vec<String> = (0..3).map(|_| prints(&server)).collect();
    assert!(greeting[0].contains("http://127.0.0.1:"), "{greeting:?}");
    assert!(greeting[1].contains("curl -X POST -H 'X-API-Key: "), "{greeting:?}");
    // The command works as it stands there.
    let line = greeting[1].split_once("curl").unwrap().1;
    let output = Command::new("sh").args(["-c", &format!("curl -sS {line}")]).output().unwrap();
    assert!(text(&output.stdout).contains("\"offset\":1"), "{output:?}");
    server.signal("-TERM");
    assert_eq!(server.exit().code(), Some(0));
    let rest = server.last_words();
    assert!(rest.contains("stopped") && !rest.contains("panicked"), "{rest}");
}

#[test]
fn a_token_opens_a_subscription_that_survives_a_restart() {
    let (_folder, file) = configured(CONFIG);
    let config = file.to_str().unwrap();
    let (mut server, port) = serve(&file, 0);
    let url = format!("ws://127.0.0.1:{port}/connection/websocket");
    let api = format!("http://127.0.0.1:{port}/api");
    let token = text(&run(&["token", "-c", config, "--user", "ann"]).stdout);
    let mut subscriber = Running::start(tidings(&[
        "subscribe",
        "news",
        "--url",
        &url,
        "--token",
        token.trim(),
        "--count",
        "3",
    ]));
    subscriber.says("live: news");
    let publish = |data: &str| run(&["publish", "news", data, "-c", config, "--url", &api]);
    let output = publish(r#"{"n": 1}"#);
    assert!(text(&output.stdout).contains("\"offset\":1"), "{output:?}");
    assert_eq!(prints(&subscriber), r#"{"n": 1}"#);
    // An order of the operator, and a restart on the same port.
    server.signal("-TERM");
    assert_eq!(server.exit().code(), Some(0));
    subscriber.says("shutdown (3001); reconnecting");
    let (_server, _) = serve(&file, port);
    subscriber.says("live again");
    publish("2");
    publish("3");
    assert_eq!([prints(&subscriber), prints(&subscriber)], ["2", "3"]);
    assert_eq!(subscriber.exit().code(), Some(0));
}

#[test]
fn refusals_are_reported_and_final() {
    let (_folder, file) = configured(CONFIG);
    let config = file.to_str().unwrap();
    let (_server, port) = serve(&file, 0);
    let url = format!("ws://127.0.0.1:{port}/connection/websocket");
    let api = format!("http://127.0.0.1:{port}/api");
    let output = run(&["subscribe", "news", "--url", &url]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("3501"), "{output:?}");
    let output = run(&["subscribe", "news", "--url", &url.replace("websocket", "nothing")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is nothing at this path (404)"), "{output:?}");
    let output = run(&["subscribe", "nowhere:x", "-c", config, "--url", &url]);
    assert!(text(&output.stderr).contains("unknown channel (102)"), "{output:?}");
    let output = run(&["publish", "news", "1", "--url", &api, "--api-key", "wrong"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("401"), "{output:?}");
    let output = run(&["publish", "news", "no json", "-c", config, "--url", &api]);
    assert!(text(&output.stderr).contains("not JSON"), "{output:?}");
    let output = run(&["token", "--user", "ann"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_subscriber_ends_when_nobody_reads_it_any_more() {
    let (_folder, file) = configured(CONFIG);
    let config = file.to_str().unwrap();
    let (_server, port) = serve(&file, 0);
    let url = format!("ws://127.0.0.1:{port}/connection/websocket");
    let api = format!("http://127.0.0.1:{port}/api");
    let mut child = tidings(&["subscribe", "news", "-c", config, "--url", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let err = lines(child.stderr.take().unwrap());
    let (sender, out) = channel();
    drop(sender);
    let mut subscriber = Running { child, out, err };
    subscriber.says("live: news");
    run(&["publish", "news", "1", "-c", config, "--url", &api]);
    assert_eq!(subscriber.exit().code(), Some(0));
}

/// Answers the next handshake, says all of this at once, and closes.
fn recite(listener: &TcpListener, replies: &str, code: u16) {
    let (stream, _) = listener.accept().unwrap();
    let request: Vec<(String, String)> = BufReader::new(&stream)
        .lines()
        .map(|line| line.unwrap())
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned())))
        .collect();
    let headers = request.iter().map(|(name, value)| (&**name, value.as_bytes())).collect();
    let head = RequestHead { method: "GET", is_http_1_1: true, headers };
    let accept = handshake::accept(&head).unwrap().accept;
    let mut said = format!("HTTP/1.1 101 -\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").into_bytes();
    said.extend_from_slice(&encoder::frame(FrameKind::Text, replies.as_bytes()));
    said.extend_from_slice(&encoder::close_frame(code, "enough"));
    (&stream).write_all(&said).unwrap();
    // Closing with something unread would take back what was said.
    let _rest = (&stream).read_to_end(&mut Vec::new());
}

#[test]
fn publications_before_a_close_are_printed_and_a_gap_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/connection/websocket", listener.local_addr().unwrap());
    let mut subscriber = Running::start(tidings(&["subscribe", "news", "--url", &url]));
    for (data, code) in [("1", 3001), ("2", 3500)] {
        let replies = format!(
            "{{\"id\":1,\"connect\":{{\"client\":\"c\",\"version\":\"1\"}}}}\n{{\"id\":2,\"subscribe\":{{}}}}\n\
             {{\"push\":{{\"channel\":\"news\",\"pub\":{{\"data\":{data}}}}}}}"
        );
        recite(&listener, &replies, code);
        assert_eq!(prints(&subscriber), data);
    }
    subscriber.says("live: news");
    subscriber.says("enough (3001); reconnecting");
    subscriber.says("may be missing");
    subscriber.says("enough (3500)");
    assert_eq!(subscriber.exit().code(), Some(1));
}

#[test]
fn a_hangup_reads_the_keys_of_the_server_api_again_and_ends_nothing() {
    let (_folder, file) = configured(CONFIG);
    let (mut server, port) = serve(&file, 0);
    let status = |key: &str| {
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            tcp,
            "POST /api/info HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!((status("key"), status("another")), ("200".to_owned(), "401".to_owned()));
    std::fs::write(&file, CONFIG.replace("key = \"key\"", "key = \"another\"")).unwrap();
    server.signal("-HUP");
    server.says("API keys and TLS certificates reloaded");
    assert_eq!((status("key"), status("another")), ("401".to_owned(), "200".to_owned()));
    std::fs::write(&file, "[http_api]\nkey = [1]\n").unwrap();
    server.signal("-HUP");
    server.says("configuration invalid");
    assert_eq!(status("another"), "200");
    server.signal("-TERM");
    assert_eq!(server.exit().code(), Some(0));
}

#[test]
fn commands_of_clients_name_every_mistake_of_their_configuration() {
    let bad = CONFIG.replace("port = 0", "port = \"many\"\nprot = 0");
    let (_folder, file) = configured(&bad);
    let unknown = CONFIG.replace("port = 0", "port = 1\nprot = 0");
    let (_other_folder, unknown) = configured(&unknown);
    for arguments in [&["token"][..], &["publish", "news", "1"], &["subscribe", "news"]] {
        let output = tidings(arguments).arg("-c").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains("http_server.port") && said.contains("http_server.prot"), "{said}");
        if arguments[0] != "subscribe" {
            let mut command = tidings(arguments);
            let output = command.arg("--allow-unknown-keys").arg("-c").arg(&unknown).output();
            let said = text(&output.unwrap().stderr);
            assert!(said.contains("there is no such key") && !said.contains("mistake"), "{said}");
        }
    }
}

#[test]
fn a_subscription_token_is_signed_with_the_secret_of_its_own() {
    let own = "[client.subscription_token]\nenabled = true\nhmac_secret_key = \"own\"\n";
    let (_folder, file) = configured(&format!("{CONFIG}\n{own}"));
    let with_secret = |secret: &str| TokenSettings {
        hmac_secret_key: Some(secret.to_owned()),
        ..TokenSettings::default()
    };
    let own = Verifier::new(&with_secret("own")).unwrap();
    let general = Verifier::new(&with_secret("general")).unwrap();
    let token = |extra: &[&str]| {
        let mut command = tidings(&["token", "--user", "ann", "--expires-in", "0"]);
        command.args(extra).arg("-c").arg(&file);
        let output = command.env("TIDINGS_CLIENT_TOKEN_HMAC_SECRET_KEY", "general").output();
        text(&output.unwrap().stdout).trim().to_owned()
    };
    assert!(own.verify_subscription(&token(&["--channel", "$x"]), 0).is_ok());
    assert!(general.verify_connection(&token(&[]), 0).is_ok());
    let given = token(&["--channel", "$x", "--secret", "general"]);
    assert!(general.verify_subscription(&given, 0).is_ok());
}

#[test]
fn no_token_is_made_that_the_server_would_refuse() {
    let jwks = "hmac_secret_key = \"secret\"\njwks_public_endpoint = \"https://keys.example/\"";
    let (_folder, file) = configured(&CONFIG.replace("hmac_secret_key = \"secret\"", jwks));
    for extra in [&[][..], &["--secret", "secret"]] {
        let mut command = tidings(&["token", "--user", "ann", "-c", file.to_str().unwrap()]);
        let output = command.args(extra).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains("jwks_public_endpoint"), "{output:?}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let (_folder, file) = configured(&CONFIG.replace("\"0s\"", "\"20s\""));
    let (mut server, port) = serve(&file, 0);
    let url = format!("ws://127.0.0.1:{port}/connection/websocket");
    let config = file.to_str().unwrap();
    let subscriber = Running::start(tidings(&["subscribe", "news", "-c", config, "--url", &url]));
    subscriber.says("live: news");
    server.signal("-INT");
    server.says("stopping");
    assert!(server.child.try_wait().unwrap().is_none(), "it waits for its clients");
    server.signal("-INT");
    assert_eq!(server.exit().code(), Some(1));
    server.says("a second signal");
}

#[test]
fn a_hangup_during_the_start_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("tidings.toml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let server =
        Running::start(tidings(&["serve", "--http_server.port=0", "-c", pipe.to_str().unwrap()]));
    // Once it reads there; it waits for what is written.
    let mut writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    server.signal("-HUP");
    writer.write_all(CONFIG.as_bytes()).unwrap();
    drop(writer);
    server.says("\"serving\"");
}

#[test]
fn a_standard_error_that_takes_nothing_fails_no_command() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (arguments, code) in [
        (&["check", "-c", "/nowhere.toml"][..], 2),
        (&["token", "--secret", "0123456789abcdef0123456789abcdef"], 0),
        (&["serve", "-c", "/nowhere.toml"], 2),
        (&["publish", "news", "{}", "--url", "127.0.0.1:1"], 1),
    ] {
        let output = tidings(arguments).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    }
}

#[test]
fn mistakes_in_arguments_are_told_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = folder.path().join("tidings.yaml");
    let (folder, yaml) = (folder.path().to_str().unwrap(), yaml.to_str().unwrap());
    for (arguments, wanted) in [
        (&["sample-config", "-o", yaml][..], "let it end in .toml"),
        (&["publish", "news", "{}", "--url", "127.0.0.1:99999"], "\"99999\" is not a port"),
        (&["publish", "news", "{}", "--url", "http://[::1"], "IPv6"),
        (&["publish", "news", "{}", "--url", "127.0.0.1:1", "--api-key", "a\nb"], "--api-key"),
        (&["subscribe", "news", "--url", "127.0.0.1:0"], "\"0\" is not a port"),
        (&["bench", "idle", "--url", "127.0.0.1:99999"], "\"99999\" is not a port"),
        (&["bench", "idle", "--url", ""], "missing host"),
        (&["bench", "idle", "--html", folder], "is a folder"),
        (&["bench", "idle", "--json", "/nowhere/at/all.json"], "no such folder"),
        (&["token", "--secret", "s", "--expires-in", "-5m"], "--expires-in -5m: expected a time"),
        (&["token", "--secret", "s", "--subscribe", ""], "--subscribe"),
        (&["check", "--port", "80"], "--http_server.port"),
        (&["check", "--api_key=x"], "--http_api.key"),
        (&["check", "--health.enabled", "no"], "unexpected argument 'no'"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains(wanted), "{arguments:?}: {output:?}");
    }
    assert!(!std::fs::exists(yaml).unwrap());
    for switch in ["--health.enabled", "--admin.enabled"] {
        assert_eq!(run(&["check", switch, "false"]).status.code(), Some(0), "{switch}");
    }
}

#[test]
fn settings_come_from_the_environment_and_unknown_ones_are_reported() {
    let check = |name: &str, value: &str, strict: &[&str]| {
        let mut command = tidings(&["check"]);
        command.args(strict);
        command.env(name, value).output().unwrap()
    };
    assert_eq!(check("TIDINGS_HTTP_SERVER_PORT", "9000", &[]).status.code(), Some(0));
    assert_eq!(check("CENTRIFUGO_ADMIN_ENABLED", "false", &["--strict"]).status.code(), Some(0));
    for (strict, code) in [(&[][..], 0), (&["--allow-unknown-keys"], 0), (&["--strict"], 2)] {
        let output = check("TIDINGS_HTTP_SERVER_PROT", "9000", strict);
        assert_eq!(output.status.code(), Some(code), "{strict:?}");
        assert!(text(&output.stderr).contains("TIDINGS_HTTP_SERVER_PROT"), "{output:?}");
    }
    let output = check("TIDINGS_HTTP_SERVER_PORT", "many", &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("http_server.port (TIDINGS_HTTP_SERVER_PORT): expected"), "{said}");
}

#[test]
fn flags_of_what_is_not_here_may_switch_it_off_and_not_on() {
    let off = ["check", "--sse.enabled=false", "--admin.password", "p", "-p", "9000"];
    let output = run(&off);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = run(&["check", "--sse.enabled", "--strict"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        text(&output.stderr).contains("--sse.enabled: a transport over HTTP is not supported yet")
    );
}

#[test]
fn dangerous_options_are_reported_by_check_and_at_the_start() {
    let (_folder, file) =
        configured(&format!("{CONFIG}[websocket]\nmessage_size_limit = 1000000000\n"));
    let output = run(&["check", "-c", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stderr);
    for part in [
        "warnings in the configuration:",
        "websocket.message_size_limit (line ",
        "http_api.key (line ",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(text(&output.stdout).ends_with("no mistakes\n"), "{output:?}");
    let server = Running::start(tidings(&["serve", "-c", file.to_str().unwrap()]));
    let line = server.says("websocket.message_size_limit");
    assert!(line.contains("\"kind\":\"limit\"") && line.contains("WARN"), "{line}");
}

#[test]
fn only_a_port_and_the_log_leave_development_mode() {
    let mode = |arguments: &[&str]| {
        let output = run(&[&["check"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        text(&output.stdout).contains("(development mode)")
    };
    assert!(mode(&[]) && mode(&["-p", "9000", "--log.format=json"]));
    assert!(!mode(&["-p", "9000", "--http_server.address="]));
    assert!(!mode(&["--client.insecure"]));
    let mut command = tidings(&["check"]);
    let output = command.env("TIDINGS_CLIENT_TOKEN_HMAC_SECRET_KEY", "secret").output().unwrap();
    assert!(!text(&output.stdout).contains("development mode"), "{output:?}");
}

#[test]
fn every_setting_has_a_flag() {
    let output = run(&[
        "check",
        "--client.token.hmac_secret_key=secret",
        "--client.subscription_token.audience=here",
        "--channel.without_namespace.presence",
        "--channel.without_namespace.history_size=many",
        "--client.allowed_origins=https://a.example,https://b.example",
    ]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = text(&output.stderr);
    let one =
        "1 mistake in the configuration:\n  --channel.without_namespace.history_size: expected";
    assert!(said.contains(one), "{said}");
}

#[test]
fn an_environment_with_other_bytes_than_text_is_no_obstacle() {
    use std::os::unix::ffi::OsStrExt as _;
    let (_folder, file) = configured(CONFIG);
    for arguments in [&["check", "-c"][..], &["token", "--user", "ann", "-c"]] {
        let mut command = tidings(arguments);
        command.arg(&file).env("OTHER", std::ffi::OsStr::from_bytes(b"\xff"));
        let output = command.env("TIDINGS_TOKEN", "x").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

#[test]
fn publish_reads_lines_from_standard_input() {
    let (_folder, file) = configured(CONFIG);
    let (_server, port) = serve(&file, 0);
    let api = format!("http://127.0.0.1:{port}/api");
    let mut child = tidings(&["publish", "news", "-", "-c", file.to_str().unwrap(), "--url", &api])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"1\n\n\"two\"\n").unwrap();
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(printed.lines().count(), 2, "{printed}");
    assert!(printed.contains("\"offset\":2"));
}

#[test]
fn the_log_says_who_was_refused_where_and_why() {
    let (_folder, file) = configured(CONFIG);
    let config = file.to_str().unwrap();
    let arguments = ["serve", "-c", config, "--http_server.port=0", "--log.level=debug"];
    let (server, port) = Running::serving(tidings(&arguments));
    let url = format!("ws://127.0.0.1:{port}/connection/websocket");
    let output = run(&["subscribe", "nowhere:x", "-c", config, "--url", &url]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let line = server.says("command rejected");
    for part in ["\"channel\":\"nowhere:x\"", "\"code\":102", "\"client\":\"", "\"user\":"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}
