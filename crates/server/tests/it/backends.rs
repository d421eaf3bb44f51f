//! Clients of a server that asks backends: connect, refresh, subscribe, publish, RPC.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{Fixture, Peer, upgrade};

/// A request as the backend has received it.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    head: String,
    body: Value,
}

/// A backend that answers each request by a function of it; `None` never answers.
struct AppBackend {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl AppBackend {
    fn start(answer: impl Fn(&Seen) -> Option<Value> + Send + Sync + 'static) -> AppBackend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, answer) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(answer));
        let all = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (all, answer) = (all.clone(), answer.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &all, &*answer));
            }
        });
        AppBackend { url, seen }
    }

    fn seen(&self, path: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|one| one.path == path).cloned().collect()
    }

    /// A server that asks this backend about everything, with further settings.
    fn server(&self, settings: &[(&str, &str)]) -> Fixture {
        let url = |path: &str| format!("{}{path}", self.url);
        let (connect, refresh, rpc) = (url("/connect"), url("/refresh"), url("/rpc"));
        let (subscribe, publish) = (url("/subscribe"), url("/publish"));
        let sub_refresh = url("/sub_refresh");
        let mut all = vec![
            ("client.proxy.connect.enabled", "true"),
            ("client.proxy.connect.endpoint", &*connect),
            ("client.proxy.connect.http_headers", "Cookie"),
            ("client.proxy.refresh.enabled", "true"),
            ("client.proxy.refresh.endpoint", &*refresh),
            ("channel.proxy.subscribe.endpoint", &*subscribe),
            ("channel.proxy.subscribe.include_connection_meta", "true"),
            ("channel.proxy.publish.endpoint", &*publish),
            ("channel.proxy.sub_refresh.endpoint", &*sub_refresh),
            ("channel.without_namespace.subscribe_proxy_enabled", "true"),
            ("channel.without_namespace.publish_proxy_enabled", "true"),
            ("channel.without_namespace.sub_refresh_proxy_enabled", "true"),
            ("rpc.proxy.endpoint", &*rpc),
            ("rpc.without_namespace.proxy_enabled", "true"),
            ("channel.without_namespace.allow_publish_for_client", "true"),
        ];
        all.extend(settings);
        Fixture::with(&all)
    }
}

fn serve(mut stream: TcpStream, all: &Mutex<Vec<Seen>>, answer: &dyn Fn(&Seen) -> Option<Value>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let seen = Seen { path, head, body: serde_json::from_slice(&body).unwrap() };
        all.lock().unwrap().push(seen.clone());
        let Some(answer) = answer(&seen) else { continue };
        let answer = answer.to_string();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length";
        write!(stream, "{head}: {}\r\n\r\n{answer}", answer.len()).unwrap();
    }
}

/// Asks and returns the reply.
fn ask(peer: &mut Peer, command: &Value) -> Value {
    peer.say(&command.to_string());
    reply(peer)
}

/// The next message that is none about pings.
fn reply(peer: &mut Peer) -> Value {
    serde_json::from_str(&peer.receive()).unwrap()
}

fn connect(fixture: &Fixture, headers: &str) -> (Peer, Value) {
    let mut peer = Peer::dial(fixture.address);
    let (status, head, _) = peer.ask(&upgrade(headers));
    assert_eq!(status, 101, "{head}");
    let connected = ask(&mut peer, &json!({"id": 1, "connect": {"data": {"from": "page"}}}));
    (peer, connected)
}

fn usual(seen: &Seen) -> Option<Value> {
    let channel = seen.body["channel"].as_str().unwrap_or_default();
    Some(match &*seen.path {
        "/connect" if seen.head.contains("cookie: session=ann") => json!({"result": {
            "user": "ann", "info": {"name": "Ann"}, "data": {"hello": 1}, "channels": ["news"],
            "meta": {"tenant": 7}
        }}),
        "/connect" => json!({"error": {"code": 1001, "message": "log in first"}}),
        "/subscribe" if channel.starts_with("room") => {
            json!({"result": {"data": {"title": "Room"}}})
        }
        "/subscribe" => json!({"error": {"code": 103, "message": "permission denied"}}),
        "/publish" if seen.body["data"]["text"] == "rude" => {
            json!({"disconnect": {"code": 4_500, "reason": "be kind"}})
        }
        "/publish" => json!({"result": {"data": {"text": "checked"}, "tags": {"by": "backend"}}}),
        "/rpc" => json!({"result": {"data": {"method": seen.body["method"]}}}),
        path => panic!("{path} is not asked here"),
    })
}

#[test]
fn a_backend_decides_about_everything_that_a_client_does() {
    let backend = AppBackend::start(usual);
    let fixture = backend.server(&[]);
    let (_, refused) = connect(&fixture, "");
    assert_eq!(refused["error"], json!({"code": 1001, "message": "log in first"}));
    let (mut peer, connected) = connect(&fixture, "Cookie: session=ann\r\nX-Other: no\r\n");
    assert_eq!(connected["connect"]["data"], json!({"hello": 1}));
    assert!(connected["connect"]["subs"].get("news").is_some(), "{connected}");
    let asked = backend.seen("/connect").pop().unwrap();
    assert_eq!(asked.body["client"], connected["connect"]["client"]);
    assert_eq!(asked.body["data"], json!({"from": "page"}));
    assert_eq!(
        (&asked.body["transport"], &asked.body["protocol"]),
        (&json!("websocket"), &json!("json"))
    );
    assert!(!asked.head.contains("x-other"), "{}", asked.head);

    let room = ask(&mut peer, &json!({"id": 2, "subscribe": {"channel": "room1", "data": [1]}}));
    assert_eq!(room["subscribe"]["data"], json!({"title": "Room"}));
    let asked = backend.seen("/subscribe").pop().unwrap().body;
    assert_eq!((&asked["user"], &asked["data"]), (&json!("ann"), &json!([1])));
    assert_eq!(asked["meta"], json!({"tenant": 7}));
    let closed = ask(&mut peer, &json!({"id": 3, "subscribe": {"channel": "vault"}}));
    assert_eq!(closed["error"]["code"], 103);

    peer.say(r#"{"id":4,"publish":{"channel":"room1","data":{"text":"hi"}}}"#);
    let mut messages = [reply(&mut peer), reply(&mut peer)];
    messages.sort_by_key(|message| message.get("id").is_none());
    assert_eq!(messages[0]["publish"], json!({}));
    let publication = &messages[1]["push"]["pub"];
    assert_eq!(publication["data"], json!({"text": "checked"}));
    assert_eq!(publication["tags"], json!({"by": "backend"}));

    let answer = ask(&mut peer, &json!({"id": 5, "rpc": {"method": "sum", "data": {}}}));
    assert_eq!(answer["rpc"]["data"], json!({"method": "sum"}));
    peer.say(r#"{"id":6,"publish":{"channel":"room1","data":{"text":"rude"}}}"#);
    assert_eq!(peer.close_code(), 4_500);

    let (_, _, metrics) = fixture.request("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let line = r#"tidings_proxy_calls_total{proxy="client.proxy.connect",outcome="refusal"} 1"#;
    assert!(metrics.is_empty() || metrics.contains(line), "{metrics}");
}

#[test]
fn an_expired_connection_and_subscription_ask_again() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let backend = AppBackend::start(move |seen| {
        let soon = json!({"expire_at": now + 1});
        Some(match &*seen.path {
            "/connect" => json!({"result": {"user": "ann", "expire_at": now + 1}}),
            "/subscribe" => json!({"result": soon}),
            "/refresh" | "/sub_refresh" => json!({"result": {"expired": true}}),
            path => panic!("{path} is not asked here"),
        })
    });
    let fixture = backend.server(&[]);
    let (mut peer, _) = connect(&fixture, "");
    ask(&mut peer, &json!({"id": 2, "subscribe": {"channel": "room1"}}));
    assert_eq!(peer.close_code(), 3_005);
    assert_eq!(backend.seen("/refresh")[0].body["user"], "ann");
}

#[test]
fn a_backend_that_hangs_delays_nobody_else() {
    let backend = AppBackend::start(|seen| match seen.body["channel"].as_str() {
        Some("slow") => None,
        _ if seen.path == "/connect" => Some(json!({"result": {"user": "ann"}})),
        _ => Some(json!({"result": {}})),
    });
    let fixture = backend.server(&[("channel.proxy.subscribe.timeout", "1s")]);
    let (mut peer, _) = connect(&fixture, "");
    peer.say(r#"{"id":2,"subscribe":{"channel":"slow"}}"#);
    // Neither other clients nor other channels of this one wait.
    let (mut other, _) = connect(&fixture, "");
    let joined = ask(&mut other, &json!({"id": 2, "subscribe": {"channel": "fast"}}));
    assert!(joined.get("subscribe").is_some(), "{joined}");
    let joined = ask(&mut peer, &json!({"id": 3, "subscribe": {"channel": "fast"}}));
    assert_eq!((&joined["id"], joined.get("subscribe").is_some()), (&json!(3), true));
    let late = reply(&mut peer);
    assert_eq!((&late["id"], &late["error"]["code"]), (&json!(2), &json!(100)));
    assert_eq!(late["error"]["temporary"], true);
    // A client that leaves while its question is open takes nothing with it.
    peer.say(r#"{"id":4,"subscribe":{"channel":"slow"}}"#);
    drop(peer);
    let answer = ask(&mut other, &json!({"id": 3, "rpc": {"method": "m"}}));
    assert!(answer.get("rpc").is_some(), "{answer}");
}

#[test]
fn without_a_backend_clients_get_a_temporary_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let backend = AppBackend { url, seen: Arc::default() };
    let fixture = backend.server(&[]);
    let (_, refused) = connect(&fixture, "");
    assert_eq!(
        (&refused["error"]["code"], &refused["error"]["temporary"]),
        (&json!(100), &json!(true))
    );
}

#[test]
fn a_ping_is_answered_without_a_backend() {
    let backend = AppBackend::start(usual);
    let fixture = backend.server(&[("rpc.ping.enabled", "true")]);
    let (mut peer, _) = connect(&fixture, "Cookie: session=ann\r\n");
    let answer = ask(&mut peer, &json!({"id": 2, "rpc": {"method": "ping"}}));
    assert!(answer.get("rpc").is_some(), "{answer}");
    assert!(backend.seen("/rpc").is_empty());
}
