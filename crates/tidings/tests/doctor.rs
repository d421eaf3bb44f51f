//! `tidings doctor` beside a server that runs, a port that something else has, and a broker that is not there.

#[path = "support/process.rs"]
mod process;

use std::net::TcpListener;
use std::process::Output;

use process::{Running, configured, tidings};

fn doctor(config: &str, port: u16) -> (Option<i32>, String) {
    let (_folder, file) = configured(config);
    let port = format!("--http_server.port={port}");
    let mut command = tidings(&["doctor", "-c", file.to_str().unwrap(), &port]);
    let Output { status, stdout, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap())
}

/// The line about this subject, and the line below it.
fn said<'t>(text: &'t str, subject: &str) -> (&'t str, &'t str) {
    let mut lines = text.lines().skip_while(|line| !line.contains(subject));
    (lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
}

const LOOPBACK: &str = "[http_server]\naddress = \"127.0.0.1\"\n[http_api]\nkey = \"0123456789abcdef0123456789abcdef\"\n";

#[test]
fn a_port_of_another_process_is_a_problem_and_one_of_a_running_server_is_not() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (code, text) = doctor(LOOPBACK, port);
    assert_eq!(code, Some(1), "{text}");
    let (found, advice) = said(&text, "http_server.port");
    assert!(found.starts_with("problem") && found.contains(&port.to_string()), "{text}");
    assert!(advice.contains("do: "), "{text}");
    let (_folder, file) = configured(LOOPBACK);
    let file = file.to_str().unwrap();
    let (mut server, port) =
        Running::serving(tidings(&["serve", "-c", file, "--http_server.port=0"]));
    let (code, text) = doctor(LOOPBACK, port);
    assert_eq!(code, Some(0), "{text}");
    assert!(said(&text, "http_server.port").0.starts_with("ok"), "{text}");
    assert!(said(&text, "engine.type").0.starts_with("ok"), "{text}");
    server.signal("-TERM");
    assert!(server.exit().success(), "{}", server.last_words());
}

#[test]
fn a_broker_and_a_key_set_that_cannot_be_reached_are_problems_with_their_keys() {
    let config = format!(
        "{LOOPBACK}[engine]\ntype = \"redis\"\n[engine.redis]\naddress = [\"redis://127.0.0.1:1\"]\n\
         wait_at_start = false\n[client.token]\njwks_public_endpoint = \"http://127.0.0.1:1/keys\"\n"
    );
    let (code, text) = doctor(&config, 0);
    assert_eq!(code, Some(1), "{text}");
    for subject in ["engine.redis", "client.token.jwks_public_endpoint"] {
        let (found, advice) = said(&text, subject);
        assert!(found.starts_with("problem") && found.contains("127.0.0.1:1"), "{text}");
        assert!(advice.contains("do: "), "{text}");
    }
    assert!(text.ends_with("2 problems, 0 warnings\n"), "{text}");
}

#[test]
fn a_configuration_with_mistakes_is_told_as_by_check() {
    let (_folder, file) = configured("[http_server]\nport = \"many\"\n");
    let output = tidings(&["doctor", "-c", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("http_server.port"));
}
