//! The server API over gRPC, as a process: called by a client that knows it from reflection only,
//! reloaded, stopped; and its description, which must stay compatible.
//!
//! Needs `buf` (`npm install -g @bufbuild/buf`).

#[path = "support/process.rs"]
mod process;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use process::{Running, configured, tidings};

const CONFIG: &str = r#"
[http_server]
address = "127.0.0.1"
port = 0
[grpc_api]
enabled = true
address = "127.0.0.1"
port = PORT
key = "first-key"
reflection = true
[client.token]
hmac_secret_key = "secret"
[[channel.namespaces]]
name = "kept"
history_size = 10
history_ttl = "60s"
"#;

const SERVICE: &str = "centrifugal.centrifugo.api.CentrifugoApi";

/// A configuration with a free port for gRPC, and its address.
fn config() -> (String, String) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let port = free.port().to_string();
    (CONFIG.replace("PORT", &port), format!("http://{free}"))
}

/// The output of `buf`, and whether it succeeded.
fn buf(arguments: &[&str]) -> (bool, String) {
    let cache = tempfile::tempdir().unwrap();
    let mut command = Command::new("buf");
    command.args(arguments).env("BUF_CACHE_DIR", cache.path()).stdin(Stdio::null());
    let output = command.output().expect("buf is missing: npm install -g @bufbuild/buf");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Calls a method with this key.
fn call(url: &str, key: &str, method: &str, message: &str) -> (bool, String) {
    let authorization = format!("authorization: apikey {key}");
    let url = format!("{url}/{method}");
    buf(&[
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        "--header",
        &authorization,
        "--data",
        message,
        &url,
    ])
}

#[test]
fn a_client_that_knows_nothing_beforehand_calls_it() {
    let (text, url) = config();
    let (_folder, file) = configured(&text);
    let (mut server, _) = Running::serving(tidings(&["serve", "-c", file.to_str().unwrap()]));
    let publish = format!("{SERVICE}/Publish");
    // Bytes are base64 in JSON: {"n":1}.
    let message = r#"{"channel": "kept:x", "data": "eyJuIjoxfQ=="}"#;
    let (is_good, said) = call(&url, "first-key", &publish, message);
    assert!(is_good && said.contains(r#""offset""#), "{said}");
    let history = r#"{"channel": "kept:x", "limit": 10}"#;
    let (is_good, said) = call(&url, "first-key", &format!("{SERVICE}/History"), history);
    assert!(is_good && said.contains("eyJuIjoxfQ=="), "{said}");
    let own = "tidings.api.v1.TidingsService/Channel";
    let (is_good, said) = call(&url, "first-key", own, r#"{"channel": "kept:x"}"#);
    assert!(is_good && said.contains(r#""tier""#), "{said}");
    let (is_good, said) = call(&url, "", "grpc.health.v1.Health/Check", "{}");
    assert!(is_good && said.contains("SERVING"), "{said}");
    let (is_good, said) = call(&url, "wrong", &publish, message);
    assert!(!is_good && said.contains("unauthenticated"), "{said}");
    // A hangup reads the key again.
    std::fs::write(&file, text.replace("first-key", "second-key")).unwrap();
    server.signal("-HUP");
    server.says("reloaded");
    let (is_good, said) = call(&url, "first-key", &publish, message);
    assert!(!is_good && said.contains("unauthenticated"), "{said}");
    let (is_good, said) = call(&url, "second-key", &publish, message);
    assert!(is_good, "{said}");
    server.signal("-TERM");
    let (status, words) = (server.exit(), server.last_words());
    assert!(status.success() && !words.contains("panicked"), "{words}");
}

#[test]
fn its_description_follows_the_rules_and_breaks_no_client() {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/proto");
    let proto = proto.to_str().unwrap();
    let (is_good, said) = buf(&["lint", proto]);
    assert!(is_good, "{said}");
    // What clients know; a release renews it: buf build --exclude-source-info -o FILE.
    let released = format!("{proto}/released.txtpb");
    let (is_good, said) = buf(&["breaking", proto, "--against", &released]);
    assert!(is_good, "{said}");
}
