//! The server API: authentication, refusals and results.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{API_KEY, Fixture, PATIENCE, Received, post};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn refusals_have_their_status_and_a_json_error() {
    let fixture = Fixture::start();
    let key = format!("X-API-Key: {API_KEY}\r\n");
    let good = r#"{"channel":"open:x","data":1}"#;
    let large = format!(r#"{{"channel":"open:x","data":"{}"}}"#, "x".repeat(9 << 20));
    let cases = [
        (401, post("/api/publish", "", good)),
        (401, post("/api/publish", "X-API-Key: wrong\r\n", good)),
        (401, post("/api/publish", "Authorization: Bearer x\r\n", good)),
        (401, post("/api", "", good)),
        (401, post("/api/unheard_of", "", good)),
        (401, post("/api/publish?api_key=an+API+key+for+test%", "", good)),
        (400, post("/api/publish", &key, "nonsense")),
        (400, post("/api/publish", &key, "")),
        (400, post("/api/info", &key, "[]")),
        (400, post("/api/disconnect", &key, r#"{"user":"x","disconnect":[4000,"x"]}"#)),
        (400, post("/api/history", &key, r#"{"channel":"kept:x","since":[1,"x"]}"#)),
        (400, post("/api/subscribe", &key, r#"{"channel":"open:x","user":"x","override":[{}]}"#)),
        (400, post("/api/disconnect", &key, "null")),
        (400, post("/api/batch", &key, " ")),
        (400, post("/api/publish", &key, r#"{"channel":1}"#)),
        (400, post("/api/publish", &key, r#"["open:x", [], 1]"#)),
        (404, post("/api/map_publish", &key, good)),
        (405, format!("GET /api/publish HTTP/1.1\r\nHost: x\r\n{key}\r\n")),
        (413, post("/api/publish", &key, &large)),
    ];
    for (expected, request) in cases {
        let shown = &request[..request.len().min(200)];
        let (status, head, body) = fixture.request(&request);
        assert_eq!(status, expected, "{shown}\n{body}");
        let error = &parse(&body)["error"];
        assert!(error["code"].is_u64() && error["message"].is_string(), "{body}");
        assert!(!body.contains(API_KEY));
        assert_eq!(head.contains("\r\nallow: post\r\n"), status == 405, "{head}");
    }
    let authorization = format!("Authorization: ApiKey {API_KEY}\r\n");
    let with_empty_key = format!("X-API-Key:\r\n{authorization}");
    for header in [key, authorization, with_empty_key] {
        assert_eq!(fixture.request(&post("/api/publish", &header, good)).0, 200);
    }
    for encoded in ["an+API+key+for+tests", "an%20API%20%6Be%79%20for%20tests"] {
        let path = format!("/api/publish?x=1&api_key={encoded}");
        assert_eq!(fixture.request(&post(&path, "", good)).0, 200);
    }
}

#[test]
fn null_is_the_same_as_absent() {
    let fixture = Fixture::start();
    for (method, body) in [
        (
            "publish",
            r#"{"channel":"kept:x","data":1,"b64data":null,"skip_history":null,"tags":null,
                "idempotency_key":null,"version":null,"version_epoch":null}"#,
        ),
        ("broadcast", r#"{"channels":["open:x"],"channel":null,"data":1,"tags":null}"#),
        (
            "subscribe",
            r#"{"channel":"open:x","user":"ann","client":null,"session":null,"expire_at":null,"info":null,
                "data":null,"recover_since":null,"override":null,"whitelist":null}"#,
        ),
        ("unsubscribe", r#"{"channel":"open:x","user":"ann","client":null}"#),
        ("disconnect", r#"{"user":"ann","disconnect":null,"whitelist":null}"#),
        ("publish", r#"{"channel":"kept:x","data":1,"tags":{"a":null,"b":"c"}}"#),
        ("refresh", r#"{"user":"ann","expired":null,"expire_at":null,"info":null}"#),
        ("history", r#"{"channel":"kept:x","limit":null,"since":null,"reverse":null}"#),
        ("channels", r#"{"pattern":null}"#),
        ("info", "null"),
        ("batch", r#"{"commands":[{"publish":null,"info":{}}],"parallel":null}"#),
    ] {
        let (status, answer) = fixture.api(method, body);
        assert_eq!(status, 200, "{method}: {answer}");
        assert!(!answer.contains("error"), "{method}: {answer}");
    }
}

#[test]
fn errors_are_in_the_body_or_in_the_status() {
    let fixture = Fixture::start();
    let cases = [
        ("publish", r#"{"channel":"nowhere:x","data":1}"#, 102, 404),
        ("publish", r#"{"channel":"","data":1}"#, 107, 400),
        ("publish", r#"{"channel":"open:x"}"#, 107, 400),
        ("publish", r#"{"channel":"open:x","b64data":"%%%"}"#, 107, 400),
        ("broadcast", r#"{"channels":[],"data":1}"#, 107, 400),
        ("history", r#"{"channel":"open:x"}"#, 108, 400),
        ("presence", r#"{"channel":"open:x"}"#, 108, 400),
        ("history", r#"{"channel":"kept:x","limit":1,"since":{"offset":1,"epoch":"x"}}"#, 112, 416),
        ("disconnect", r#"{"user":"x","disconnect":{"code":1000}}"#, 107, 400),
        ("disconnect", "{}", 107, 400),
        ("disconnect", r#"{"user":null,"client":"x"}"#, 107, 400),
        ("unsubscribe", r#"{"channel":"open:x"}"#, 107, 400),
        ("refresh", r#"{"expired":true}"#, 107, 400),
        ("subscribe", r#"{"channel":"open:x"}"#, 107, 400),
        ("subscribe", r#"{"channel":"open:x","user":"ann","expire_at":1}"#, 110, 409),
        ("batch", "{}", 107, 400),
    ];
    for (method, body, code, transport) in cases {
        let (status, answer) = fixture.api(method, body);
        assert_eq!((status, parse(&answer)["error"]["code"].as_u64()), (200, Some(code)), "{body}");
        let headers = format!("X-API-Key: {API_KEY}\r\nX-Centrifugo-Error-Mode: transport\r\n");
        let request = post(&format!("/api/{method}"), &headers, body);
        let (status, _, answer) = fixture.request(&request);
        assert_eq!((status, parse(&answer)["code"].as_u64()), (transport, Some(code)), "{body}");
    }
}

#[test]
fn publications_have_offsets_and_history_and_are_idempotent() {
    let fixture = Fixture::start();
    let publish = |body: &str| parse(&fixture.api("publish", body).1)["result"].clone();
    let first = publish(r#"{"channel":"kept:x","data":{"big":12345678901234567890}}"#);
    assert_eq!(first["offset"], 1);
    assert!(first["epoch"].is_string());
    let once = r#"{"channel":"kept:x","data":2,"idempotency_key":"k"}"#;
    assert_eq!(
        (publish(once), publish(once)["offset"].as_u64()),
        (json!({"offset": 2, "epoch": first["epoch"]}), Some(2))
    );
    assert_eq!(publish(r#"{"channel":"kept:x","data":3,"version":7}"#)["offset"], 3);
    assert_eq!(publish(r#"{"channel":"kept:x","data":4,"version":7}"#)["offset"], 3);
    publish(r#"{"channel":"kept:x","b64data":"/wA=","tags":{"a":"b"}}"#);
    let (_, history) = fixture.api("history", r#"{"channel":"kept:x","limit":-1}"#);
    // Numbers that exceed the precision of JavaScript are returned unchanged.
    assert!(history.contains(r#"{"data":{"big":12345678901234567890},"offset":1}"#), "{history}");
    let last = &parse(&history)["result"]["publications"][3];
    // Client libraries read the member `data` of every publication.
    let expected = json!({"data": null, "b64data": "/wA=", "offset": 4, "tags": {"a": "b"}});
    assert_eq!(*last, expected);
    assert_eq!(publish(r#"{"channel":"open:x","data":null}"#), json!({}));
}

#[test]
fn presence_channels_and_info_list_connected_clients() {
    let fixture = Fixture::with(&[("server.workers", "2"), ("node.name", "here")]);
    let mut peers = [fixture.admitted(), fixture.admitted()];
    for peer in &mut peers {
        peer.say(r#"{"id":2,"subscribe":{"channel":"kept:x"}}"#);
        assert!(peer.receive().contains("subscribe"));
    }
    let result = |method: &str, body: &str| parse(&fixture.api(method, body).1)["result"].clone();
    let presence = result("presence", r#"{"channel":"kept:x"}"#)["presence"].clone();
    assert_eq!(presence.as_object().unwrap().len(), 2);
    let stats = result("presence_stats", r#"{"channel":"kept:x"}"#);
    assert_eq!(stats, json!({"num_clients": 2, "num_users": 1}));
    let channels = result("channels", r#"{"pattern":"kept:*"}"#);
    assert_eq!(channels, json!({"channels": {"kept:x": {"num_clients": 2}}}));
    assert_eq!(result("channels", r#"{"pattern":"open:*"}"#), json!({"channels": {}}));
    let node = result("info", "")["nodes"][0].clone();
    let numbers =
        ["num_clients", "num_users", "num_subs", "num_channels"].map(|name| node[name].as_u64());
    assert_eq!(numbers, [Some(2), Some(1), Some(2), Some(1)]);
    assert_eq!(node["name"], "here");
    let channel = result("channel", r#"{"channel":"kept:x"}"#);
    let expected =
        json!({"channel": "kept:x", "tier": "business", "num_clients": 2, "num_nodes": 1});
    assert_eq!(channel, expected);
    assert_eq!(result("channel", r#"{"channel":"sys:config"}"#)["tier"], "system");
    let clients = result("clients", r#"{"user":"ann"}"#)["clients"].clone();
    assert_eq!(clients.as_array().unwrap().len(), 2);
    let id = &clients[0]["client"];
    let one = result("clients", &json!({ "client": id }).to_string())["clients"].clone();
    assert_eq!(one, json!([clients[0]]));
    assert_eq!((&one[0]["node"], &one[0]["channels"]), (&json!("here"), &json!(["kept:x"])));
    assert_eq!(result("clients", r#"{"user":"nobody"}"#), json!({"clients": []}));
    assert_eq!(parse(&fixture.api("clients", "{}").1)["error"]["code"], 107);
}

#[test]
fn options_change_at_run_time() {
    let fixture = Fixture::start();
    let publish = |channel: &str, data: &str| {
        let body = format!(r#"{{"channel":"{channel}","data":{data}}}"#);
        parse(&fixture.api("publish", &body).1)
    };
    assert_eq!(publish("open:x", "1")["result"], json!({}));
    let wrong = publish("sys:config", r#"{"namespace":"open","options":{"history_size":5}}"#);
    assert_eq!(wrong["error"]["code"], 107);
    assert!(wrong["error"]["message"].as_str().unwrap().contains("history_ttl"), "{wrong}");
    assert_eq!(publish("sys:presence", "{}")["error"]["code"], 107, "nobody makes these up");
    let removed = parse(&fixture.api("history_remove", r#"{"channel":"sys:config"}"#).1);
    assert_eq!(removed["error"]["code"], 108);
    let change = r#"{"namespace":"open","options":{"history_size":5,"history_ttl":"1m"}}"#;
    assert_eq!(publish("sys:config", change)["result"]["offset"], 1);
    let began = Instant::now();
    while publish("open:x", "2")["result"]["offset"].is_null() {
        assert!(began.elapsed() < PATIENCE, "the change is followed");
    }
    let mut peer = fixture.admitted();
    peer.say(r#"{"id":2,"subscribe":{"channel":"sys:config"}}"#);
    assert!(peer.receive().contains(r#""code":103"#), "no client may listen");
}

#[test]
fn publications_of_a_batch_keep_their_order() {
    let fixture = Fixture::start();
    let publish = |number: usize| match number % 7 {
        6 => json!({"info": {}}),
        _ => json!({"publish": {"channel": "kept:order", "data": number}}),
    };
    let commands: Vec<_> = (0..300).map(publish).collect();
    let (status, answer) = fixture.api("batch", &json!({"commands": commands}).to_string());
    assert_eq!(status, 200);
    let replies = parse(&answer)["replies"].clone();
    let mut offset = 0;
    for number in (0..300).filter(|number| number % 7 != 6) {
        offset += 1;
        assert_eq!(replies[number]["publish"]["offset"], offset, "{number}: {answer}");
    }
    let (_, history) = fixture.api("history", r#"{"channel": "kept:order", "limit": -1}"#);
    let kept = parse(&history)["result"]["publications"].clone();
    let kept = kept.as_array().expect("publications");
    let numbers: Vec<u64> = kept.iter().filter_map(|it| it["data"].as_u64()).collect();
    assert!(!numbers.is_empty() && numbers.is_sorted(), "{numbers:?}");
}

#[test]
fn a_batch_is_answered_in_order() {
    let fixture = Fixture::start();
    for parallel in [false, true] {
        let body = json!({"parallel": parallel, "commands": [
            {"publish": {"channel": "open:x", "data": 1}},
            {"publish": {"channel": "nowhere:x", "data": 1}},
            null,
            {"unheard_of": {}},
            {"batch": {}},
            {"publish": {"channel": 1}},
            {"presence_stats": {"channel": "kept:x"}},
            {"publish": {"channel": "kept:x", "data": 1}, "broadcast": null, "other": 1},
            {"info": {}, "publish": {"channel": "kept:x", "data": 2}},
            {"info": null},
            {},
        ]});
        let (status, answer) = fixture.api("batch", &body.to_string());
        assert_eq!(status, 200);
        let replies = parse(&answer)["replies"].clone();
        let codes: Vec<_> = (1..6).map(|index| replies[index]["error"]["code"].as_u64()).collect();
        assert_eq!(codes, [Some(102), Some(107), Some(104), Some(104), Some(107)]);
        assert_eq!(replies[0], json!({"publish": {}}));
        assert_eq!(replies[6], json!({"presence_stats": {"num_clients": 0, "num_users": 0}}));
        let offset = 1 + u64::from(parallel);
        assert_eq!(replies[7]["publish"]["offset"], offset, "one method is left: {answer}");
        let two = replies[8]["error"]["message"].as_str().unwrap();
        assert!(two.contains("info and publish"), "{two}");
        let (code, nothing) = (&replies[8]["error"]["code"], [&replies[9], &replies[10]]);
        assert_eq!(*code, 107);
        assert!(nothing.iter().all(|reply| reply["error"]["code"] == 104), "{answer}");
    }
    // A method twice: neither of two publications may be dropped silently.
    let twice = r#"{"commands":[{"publish":{"channel":"open:x","data":1},"publish":{"channel":"open:x","data":2}}]}"#;
    assert_eq!(parse(&fixture.api("batch", twice).1)["replies"][0]["error"]["code"], 107);
}

#[test]
fn whole_numbers_may_be_written_with_a_fraction_of_zero() {
    let fixture = Fixture::start();
    for (method, body) in [
        ("publish", r#"{"channel":"kept:x","data":1,"version":7.0}"#),
        ("history", r#"{"channel":"kept:x","limit":242.0}"#),
        ("history", r#"{"channel":"kept:x","limit":-1.0}"#),
        ("history", r#"{"channel":"kept:x","limit":1e2}"#),
        ("refresh", r#"{"user":"ann","expire_at":4e9}"#),
        ("disconnect", r#"{"user":"ann","disconnect":{"code":4000.0}}"#),
    ] {
        let (status, answer) = fixture.api(method, body);
        assert!(status == 200 && !answer.contains("error"), "{method} {body}: {answer}");
    }
    for body in ["1.5", "1e300", "-1e300", "-9223372036854775809", "\"1\"", "true"] {
        let body = format!(r#"{{"channel":"kept:x","limit":{body}}}"#);
        let (status, answer) = fixture.api("history", &body);
        assert_eq!(status, 400, "{body}: {answer}");
    }
}

#[test]
fn a_disconnect_without_a_code_allows_reconnects_and_unknown_sessions_match_no_client() {
    let fixture = Fixture::start();
    for (disconnect, expected) in [
        ("null", Received::Closed(3503)),
        // Code 3000 is the end of the transport without a close frame.
        ("{}", Received::Cut),
        (r#"{"code":0,"reason":"later"}"#, Received::Cut),
        (r#"{"code":null,"reason":null}"#, Received::Cut),
        (r#"{"code":4001,"reason":"x"}"#, Received::Closed(4001)),
    ] {
        let mut peer = fixture.admitted();
        let unknown = r#"{"user":"ann","session":"unheard of"}"#;
        assert_eq!(fixture.api("disconnect", unknown), (200, r#"{"result":{}}"#.to_owned()));
        let body = format!(r#"{{"user":"ann","disconnect":{disconnect}}}"#);
        assert_eq!(fixture.api("disconnect", &body).0, 200);
        assert_eq!(peer.next(), expected, "{disconnect}");
    }
}

#[test]
fn an_expired_subscription_is_refused_and_the_connection_stays_open() {
    let fixture = Fixture::start();
    let mut peer = fixture.admitted();
    let body = r#"{"channel":"open:x","user":"ann","expire_at":1000000000}"#;
    assert_eq!(parse(&fixture.api("subscribe", body).1)["error"]["code"], 110);
    peer.say(r#"{"id":2,"subscribe":{"channel":"open:x"}}"#);
    assert!(peer.receive().contains(r#""subscribe":{"#));
}

#[test]
fn a_refresh_with_null_info_keeps_the_current_info() {
    let fixture = Fixture::start();
    let mut peer = fixture.admitted();
    for (id, info, expected) in [(2, r#"{"seat":1}"#, true), (3, "null", true), (5, "0", false)] {
        let body = format!(r#"{{"user":"ann","info":{info}}}"#);
        assert_eq!(fixture.api("refresh", &body).0, 200);
        assert!(peer.receive().contains(r#""refresh":{"#));
        let channel = format!("kept:{id}");
        peer.say(&format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#));
        assert!(peer.receive().contains(r#""subscribe":{"#));
        let presence = fixture.api("presence", &format!(r#"{{"channel":"{channel}"}}"#)).1;
        let is_kept = presence.contains(r#""conn_info":{"seat":1}"#);
        assert_eq!(is_kept, expected, "{info}: {presence}");
    }
}

#[test]
fn a_second_subscribe_call_delivers_its_data_and_updates_presence() {
    let fixture = Fixture::start();
    let mut peer = fixture.admitted();
    for turn in ["one", "two"] {
        let body = format!(
            r#"{{"channel":"kept:x","user":"ann","data":{{"turn":"{turn}"}},"info":{{"seat":"{turn}"}}}}"#
        );
        assert_eq!(fixture.api("subscribe", &body).0, 200);
        let push = peer.receive();
        assert!(push.contains(r#""subscribe":{"#) && push.contains(turn), "{push}");
        let presence = fixture.api("presence", r#"{"channel":"kept:x"}"#).1;
        assert!(presence.contains(&format!(r#""chan_info":{{"seat":"{turn}"}}"#)), "{presence}");
    }
}

#[test]
fn patterns_that_cost_too_much_are_refused_while_health_is_served() {
    let fixture = Fixture::start();
    let long = "x".repeat(1025);
    let many = "{a,b}".repeat(300_000);
    let nested = "{a,".repeat(300);
    for pattern in [&long, &many, &nested, "[", "{a", "[z-a]"] {
        let body = json!({"pattern": pattern}).to_string();
        let (status, answer) = fixture.api("channels", &body);
        let error = &parse(&answer)["error"];
        assert_eq!((status, error["code"].as_u64()), (200, Some(107)), "{error}");
        assert!(error["message"].as_str().unwrap().len() < 200, "no echo of the pattern");
    }
    assert_eq!(fixture.request("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").0, 200);
}

#[test]
fn the_response_to_a_batch_is_bounded() {
    let settings = [
        ("channel.without_namespace.history_size", "10"),
        ("channel.without_namespace.history_ttl", "1m"),
    ];
    let fixture = Fixture::with(&settings);
    let body = format!(r#"{{"channel":"big","data":"{}"}}"#, "x".repeat(4 << 20));
    for _ in 0..4 {
        assert_eq!(fixture.api("publish", &body).0, 200);
    }
    let all = json!({"history": {"channel": "big", "limit": -1}});
    let mut commands = vec![all; 5];
    commands.push(json!({"publish": {"channel": "small", "data": 1}}));
    for parallel in [false, true] {
        let body = json!({"commands": commands, "parallel": parallel}).to_string();
        let (status, answer) = fixture.api("batch", &body);
        assert!(status == 200 && answer.len() <= 32 << 20, "{} bytes", answer.len());
        let replies = parse(&answer)["replies"].clone();
        let refused: Vec<&Value> =
            (0..5).map(|index| &replies[index]["error"]).filter(|error| !error.is_null()).collect();
        assert!(refused.len() >= 3, "16 MiB each");
        for error in refused {
            assert_eq!(error["code"], 107);
            assert!(error["message"].as_str().unwrap().contains("33554432 bytes"), "{error}");
        }
        assert!(replies[5]["publish"].is_object(), "what takes effect is done and answered");
    }
}

#[test]
fn a_broadcast_without_room_for_its_results_does_not_run() {
    let settings = [
        ("channel.without_namespace.history_size", "10"),
        ("channel.without_namespace.history_ttl", "1m"),
    ];
    let fixture = Fixture::with(&settings);
    let body = format!(r#"{{"channel":"big","data":"{}"}}"#, "x".repeat(4 << 20));
    for _ in 0..4 {
        assert_eq!(fixture.api("publish", &body).0, 200);
    }
    let commands = json!([
        {"history": {"channel": "big", "limit": 4}},
        {"history": {"channel": "big", "limit": 3}},
        {"broadcast": {"channels": vec!["many"; 10_000], "data": 1}},
        {"broadcast": {"channels": ["many"], "data": 1}},
    ]);
    let (_, answer) = fixture.api("batch", &json!({"commands": commands}).to_string());
    assert!(answer.len() <= 32 << 20, "{} bytes", answer.len());
    let replies = parse(&answer)["replies"].clone();
    assert!(replies[1]["history"].is_object());
    assert_eq!(replies[2]["error"]["code"], 107, "{}", replies[2]);
    assert_eq!(replies[3]["broadcast"]["responses"][0]["result"]["offset"], 1);
}

#[test]
fn errors_count_as_bytes_of_the_response() {
    let keys = r#"[{"name": "news-desk", "key": "desk", "channels": ["kept:*"]}]"#;
    let fixture = Fixture::with(&[("http_api.keys", keys)]);
    // The error repeats the name; each of these characters needs several bytes there.
    let channels = vec!["\u{7f}".repeat(256); 5_000];
    let broadcast = json!({"broadcast": {"channels": channels, "data": 1}});
    let body = json!({"commands": vec![broadcast; 6]}).to_string();
    let (status, _, answer) = fixture.request(&post("/api/batch", "X-API-Key: desk\r\n", &body));
    assert_eq!(status, 200, "{answer}");
    assert!((16 << 20..=32 << 20).contains(&answer.len()), "{} bytes", answer.len());
    let replies = parse(&answer)["replies"].clone();
    let message = |broadcast: usize, channel: usize| {
        let error = &replies[broadcast]["broadcast"]["responses"][channel]["error"];
        assert_eq!(error["code"], 103, "{error}");
        error["message"].as_str().unwrap().to_owned()
    };
    assert!(message(0, 0).contains("news-desk"), "{}", message(0, 0));
    assert!(message(3, 4_999).contains("reason is left out"), "{}", message(3, 4_999));
}

#[test]
fn one_request_has_at_most_ten_thousand_commands() {
    let fixture = Fixture::start();
    let key = format!("X-API-Key: {API_KEY}\r\n");
    let post = |body: &str| {
        let (status, _, answer) = fixture.request(&post("/api", &key, body));
        (status, answer)
    };
    let line = "{\"method\":\"x\"}\n";
    let (status, answer) = post(&line.repeat(10_000));
    assert_eq!((status, answer.lines().count()), (200, 10_000));
    let (status, answer) = post(&line.repeat(10_001));
    assert_eq!((status, &parse(&answer)["error"]["code"]), (400, &json!(107)));
    // Commands of batches count too.
    let batch = json!({"method": "batch", "params": {"commands": vec![json!({}); 6_000]}});
    let (status, answer) = post(&format!("{batch}\n{batch}"));
    let lines: Vec<Value> = answer.lines().map(parse).collect();
    assert_eq!(status, 200);
    assert_eq!(lines[0]["result"]["replies"].as_array().unwrap().len(), 6_000);
    assert!(lines[1]["error"]["message"].as_str().unwrap().contains("10000 commands"));
    let commands = json!({"commands": vec![json!({}); 10_001]}).to_string();
    assert_eq!(parse(&fixture.api("batch", &commands).1)["error"]["code"], 107);
}

#[test]
fn other_requests_are_answered_while_one_has_many_commands() {
    let fixture = Fixture::with_threads(1);
    let broadcast = json!({"broadcast": {"channels": vec!["a"; 10_000], "data": 1}});
    let body = json!({"commands": vec![broadcast; 8]}).to_string();
    let request = post("/api/batch", &format!("X-API-Key: {API_KEY}\r\n"), &body);
    let mut longest = Duration::ZERO;
    let whole = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let start = Instant::now();
            let (status, _, answer) = fixture.request(&request);
            assert!(status == 200 && !answer.contains("error"), "{status}");
            start.elapsed()
        });
        while !busy.is_finished() {
            let start = Instant::now();
            assert_eq!(fixture.request("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").0, 200);
            longest = longest.max(start.elapsed());
        }
        busy.join().unwrap()
    });
    assert!(longest < whole / 4, "{longest:?} of {whole:?}");
}

#[test]
fn errors_name_the_field_and_what_it_lacks() {
    let fixture = Fixture::start();
    for (method, body, wanted) in [
        ("publish", r#"{"channel":"open:x"}"#, "data is missing"),
        ("publish", r#"{"channel":7,"data":1}"#, "channel: invalid type"),
        ("broadcast", r#"{"channels":["open:x",null],"data":1}"#, "channels[1]: invalid type"),
        ("batch", r#"{"commands":[{}]}"#, "names no method"),
        ("batch", r#"{"commands":[{"batch":{}}]}"#, "cannot be nested"),
        ("batch", r#"{"commands":[{"publish":{"channel":"open:x"}}]}"#, "data is missing"),
        ("publsh", "{}", "no method publsh"),
    ] {
        let (_, answer) = fixture.api(method, body);
        assert!(answer.contains(wanted), "{method} {body}: {answer}");
    }
}

#[test]
fn the_legacy_format_answers_line_by_line() {
    let fixture = Fixture::start();
    let body = "{\"method\":\"publish\",\"params\":{\"channel\":\"open:x\",\"data\":1}}\n{\"method\":\"nothing\"}";
    let key = format!("X-API-Key: {API_KEY}\r\n");
    let (status, _, answer) = fixture.request(&post("/api", &key, body));
    let lines: Vec<Value> = answer.lines().map(parse).collect();
    assert_eq!((status, &lines[0]), (200, &json!({"result": {}})));
    assert_eq!(lines[1]["error"]["code"], 104);
}

#[test]
fn the_description_names_every_method_and_metrics_and_health_are_served() {
    let fixture = Fixture::start();
    let get = |path: &str| fixture.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let (status, head, body) = get("/api/openapi.json");
    assert!(status == 200 && head.contains("application/json"));
    let described = parse(&body);
    for method in server::API_METHODS {
        let operation = &described["paths"][format!("/api/{method}")]["post"];
        assert!(operation["requestBody"].is_object(), "{method} is not described");
    }
    assert_eq!(described["paths"].as_object().unwrap().len(), server::API_METHODS.len());
    assert_eq!(get("/health").0, 200);
    let (status, _, metrics) = get("/metrics");
    assert!(status == 200 && metrics.contains("tidings_workers "), "{metrics}");
}

#[test]
fn read_only_endpoints_refuse_other_http_methods_with_a_reason() {
    let fixture = Fixture::with(&[("demo.enabled", "true")]);
    for path in ["/health", "/ready", "/metrics", "/", "/demo.js", "/api/openapi.json"] {
        let (status, head, body) = fixture.request(&post(path, "", ""));
        assert_eq!((status, body.lines().count()), (405, 1), "{path}: {body}");
        assert!(head.contains("allow: get,head"), "{path}: {head}");
    }
}

#[test]
fn internal_endpoints_can_have_a_port_of_their_own() {
    let fixture = Fixture::with(&[
        ("http_server.internal_address", "127.0.0.1"),
        ("http_server.internal_port", &free_port().to_string()),
    ]);
    let get = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(fixture.request(get).0, 404);
    let internal = fixture.server.as_ref().unwrap().internal_address().unwrap();
    assert_eq!(crate::support::Peer::dial(internal).ask(get).0, 200);
}

/// A port that was free when it was chosen.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
