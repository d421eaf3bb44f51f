//! A session that waits for several calls at once: order, bounds, and results that come late.

use std::sync::Arc;

use engine::broker::Order;
use engine::call::{CallRefusal, PublishGrant, Renewal};
use engine::claims::{ConnectionClaims, SubscriptionClaims, SubscriptionGrant, TokenRefusal};
use engine::rules::{Namespace, RpcRules, Rules};
use engine::{CallOutcome, SessionCall, SessionKey};
use wire::protocol::{DisconnectCode, ErrorCode};

use crate::world::{BEGIN, World, claims, rules};

fn subscribe(id: u32, channel: &str) -> String {
    format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}","token":"t"}}}}"#)
}

fn allowed(channel: &str) -> CallOutcome {
    let (user, channel) = ("ann".to_owned(), channel.to_owned());
    CallOutcome::Subscription(Ok(SubscriptionClaims { user, channel, ..Default::default() }))
}

fn ids(received: &[String]) -> Vec<u32> {
    let id = |line: &String| line.strip_prefix(r#"{"id":"#)?.split(',').next()?.parse().ok();
    received.iter().filter_map(id).collect()
}

/// A connected user in a world without its connect reply.
fn user(rules: Rules) -> (World, SessionKey) {
    let mut world = World::with(rules);
    let key = world.user(claims("ann"));
    world.received(key);
    (world, key)
}

#[test]
fn fifty_tokens_are_verified_at_the_same_time_and_the_last_may_be_first() {
    let mut rules = rules();
    rules.client.channel_limit = 64;
    let (mut world, key) = user(rules);
    let commands: Vec<String> =
        (0..50).map(|number| subscribe(2 + number, &format!("closed:{number}"))).collect();
    world.says(key, &commands.join("\n"));
    assert_eq!(world.calls.len(), 50);
    for number in (0..50).rev() {
        world.answer(number, allowed(&format!("closed:{number}")));
        world.settle();
    }
    let expected: Vec<u32> = (2..52).rev().collect();
    assert_eq!(ids(&world.received(key)), expected);
    assert_eq!(world.worker.subscription_count(), 50);
    world.assert_no_state_remains();
}

#[test]
fn commands_wait_for_calls_about_their_own_channel_only() {
    let (mut world, key) = user(rules());
    let of_slow = [
        subscribe(2, "closedkept:slow"),
        r#"{"id":3,"publish":{"channel":"closedkept:slow","data":1}}"#.to_owned(),
        r#"{"id":4,"history":{"channel":"closedkept:slow","limit":-1}}"#.to_owned(),
        r#"{"id":5,"unsubscribe":{"channel":"closedkept:slow"}}"#.to_owned(),
        subscribe(6, "closedkept:slow"),
    ];
    world.says(key, &of_slow.join("\n"));
    world.says(key, r#"{"id":7,"publish":{"channel":"a","data":1}}"#);
    world.says(key, &subscribe(8, "closed:fast"));
    assert_eq!(world.calls.len(), 2, "the sixth waits behind the second");
    world.answer(1, allowed("closed:fast"));
    world.settle();
    assert_eq!(ids(&world.received(key)), [7, 8]);
    world.answer(0, allowed("closedkept:slow"));
    world.settle();
    // Publish and history wait for the broker, which has them in this order.
    assert_eq!(ids(&world.received(key)), [2, 5, 3, 4]);
    world.answer(0, allowed("closedkept:slow"));
    world.settle();
    assert_eq!(ids(&world.received(key)), [6]);
    world.assert_no_state_remains();
}

#[test]
fn refreshes_wait_for_each_other_and_for_nothing_else() {
    let (mut world, key) = user(rules());
    world.says(
        key,
        &[r#"{"id":2,"refresh":{"token":"a"}}"#, r#"{"id":3,"refresh":{"token":"b"}}"#].join("\n"),
    );
    world.says(key, r#"{"id":4,"presence_stats":{"channel":"people:x"}}"#);
    world.settle();
    assert_eq!(ids(&world.received(key)), [4]);
    assert_eq!(world.calls.len(), 1);
    world.verify(Ok(claims("ann")));
    assert_eq!(ids(&world.received(key)), [2]);
    world.verify(Ok(claims("ann")));
    assert_eq!(ids(&world.received(key)), [3]);
}

#[test]
fn calls_in_progress_are_bounded_and_all_commands_are_answered() {
    let mut rules = rules();
    (rules.client.concurrency, rules.client.channel_limit) = (3, 64);
    let (mut world, key) = user(rules);
    let commands: Vec<String> =
        (0..20).map(|number| subscribe(2 + number, &format!("closed:{number}"))).collect();
    world.says(key, &commands.join("\n"));
    let mut answered = Vec::new();
    while !world.calls.is_empty() {
        assert!(world.calls.len() <= 3, "{}", world.calls.len());
        world.answer(world.calls.len() - 1, CallOutcome::Subscription(Err(TokenRefusal::Expired)));
        world.settle();
        answered.extend(ids(&world.received(key)));
    }
    answered.sort_unstable();
    assert_eq!(answered, (2..22).collect::<Vec<u32>>());
    world.assert_no_state_remains();
}

#[test]
fn subscriptions_that_wait_for_a_call_count_towards_the_limit() {
    let (mut world, key) = user(rules());
    (0..5).for_each(|number| world.says(key, &subscribe(2 + number, &format!("closed:{number}"))));
    assert_eq!(world.calls.len(), 4);
    assert!(world.received(key)[0].contains(r#"{"id":6,"error":{"code":106"#));
}

#[test]
fn a_result_is_applied_once_and_to_its_own_call() {
    let (mut world, key) = user(rules());
    world.says(key, &subscribe(2, "closed:a"));
    let (_, first, _) = world.calls.pop_front().unwrap();
    let now = world.now();
    world.worker.handle_call_result(
        now,
        key,
        first,
        CallOutcome::Subscription(Err(TokenRefusal::Expired)),
    );
    world.says(key, &subscribe(3, "closed:a"));
    // The first answers again, for the second to answer.
    world.worker.handle_call_result(now, key, first, allowed("closed:a"));
    world.settle();
    assert_eq!(ids(&world.received(key)), [2]);
    world.answer(0, allowed("closed:a"));
    world.settle();
    assert_eq!(ids(&world.received(key)), [3]);
    // And after the session has left, when another one is in its place.
    world.says(key, &subscribe(4, "closed:b"));
    let (_, last, _) = world.calls.pop_front().unwrap();
    world.cut(key);
    let other = world.user(claims("ann"));
    world.received(other);
    world.says(other, &subscribe(2, "closed:b"));
    world.worker.handle_call_result(now, key, last, allowed("closed:b"));
    world.worker.handle_call_result(now, other, last, allowed("closed:b"));
    world.take_effects();
    world.settle();
    assert_eq!(world.received(other), [""; 0]);
    world.assert_no_state_remains();
}

/// Rules with a proxy for everything.
fn proxied() -> Rules {
    let mut rules = rules();
    rules.client.connect_proxy = true;
    rules.client.refresh_proxy = true;
    rules.client.allow_anonymous_connect_without_token = false;
    rules.client.emulated_headers = vec!["x-tenant".to_owned()];
    let proxy: Option<Arc<str>> = Some("default".into());
    let kept = rules.channels.namespaces["closedkept"].clone();
    let asked = Namespace {
        subscribe_proxy: proxy.clone(),
        publish_proxy: proxy.clone(),
        sub_refresh_proxy: proxy.clone(),
        allow_user_limited_channels: true,
        ..kept
    };
    rules.channels.namespaces.insert("asked".to_owned(), asked);
    rules.rpc = RpcRules {
        namespace_boundary: ":".to_owned(),
        without_namespace: proxy,
        namespaces: [("none".to_owned(), None)].into(),
        ping_method: Some("ping".to_owned()),
    };
    rules
}

/// A client that the connect proxy has admitted.
fn asked(world: &mut World, granted: ConnectionClaims) -> (SessionKey, String) {
    let key = world.open();
    world.says(
        key,
        r#"{"id":1,"connect":{"data":{"a":1},"name":"js","headers":{"X-Tenant":"t1","X-Other":"o"},"subs":{"people:wish":{},"kept:sub":{"recover":true}}}}"#,
    );
    let Some((_, _, SessionCall::Connect(call))) = world.calls.front() else { panic!("a call") };
    assert_eq!((&*call.data, &*call.name), (&br#"{"a":1}"#[..], "js"));
    assert_eq!(call.headers, [("x-tenant".to_owned(), "t1".to_owned())]);
    assert_eq!(call.channels, ["kept:sub", "people:wish"]);
    let client = call.client.clone();
    world.answer(0, CallOutcome::Connect(Ok(Some(Box::new(granted)))));
    world.settle();
    let received = world.received(key).remove(0);
    assert!(received.contains(&format!(r#""client":"{client}""#)), "{received}");
    (key, received)
}

#[test]
fn a_connect_proxy_admits_with_all_that_it_grants() {
    let mut world = World::with(proxied());
    let granted = ConnectionClaims {
        expire_at: Some(BEGIN + 100),
        data: "{\"hello\":1}".into(),
        meta: "{\"m\":1}".into(),
        subscriptions: vec![(
            "kept:sub".to_owned(),
            SubscriptionGrant {
                expire_at: Some(BEGIN + 50),
                data: "2".into(),
                ..SubscriptionGrant::default()
            },
        )],
        ..claims("ann")
    };
    let (key, reply) = asked(&mut world, granted);
    assert!(reply.contains(r#""data":{"hello":1}"#), "{reply}");
    assert!(reply.contains(r#""kept:sub":{"expires":true,"ttl":50"#), "{reply}");
    assert!(!reply.contains("people:wish"), "the backend names the channels: {reply}");
    assert!(!reply.contains(r#""ttl":100"#), "the server refreshes the connection: {reply}");
    world.says(key, r#"{"id":2,"rpc":{"method":"sum","data":[1]}}"#);
    let Some((_, _, SessionCall::Rpc(call))) = world.calls.front() else { panic!("a call") };
    let context = call.caller.context.as_ref().unwrap();
    assert_eq!((&*context.meta, &*context.headers[0].1), (&b"{\"m\":1}"[..], "t1"));
    assert_eq!((&*call.caller.info.user, &*call.method, &*call.proxy), ("ann", "sum", "default"));
    world.answer(0, CallOutcome::Rpc(Ok("[1,2]".into())));
    assert_eq!(world.received(key), [r#"{"id":2,"rpc":{"data":[1,2]}}"#]);
    world.assert_no_state_remains();
}

#[test]
fn a_client_that_the_backend_does_not_admit_is_refused_as_it_says() {
    let connect = r#"{"id":1,"connect":{}}"#;
    for (result, code) in [
        (Ok(None), Some(3501)),
        (Err(CallRefusal::Disconnect(DisconnectCode::PermissionDenied.into())), Some(3507)),
        (Err(CallRefusal::Error(ErrorCode::Unauthorized.into())), None),
    ] {
        let mut world = World::with(proxied());
        let key = world.open();
        world.says(key, &[connect, r#"{"id":2,"rpc":{}}"#].join("\n"));
        world.answer(0, CallOutcome::Connect(result));
        match code {
            Some(code) => assert_eq!(world.code(key), code),
            None => {
                assert!(world.received(key)[0].contains(r#""error":{"code":101"#));
                assert_eq!(world.code(key), 3501, "a refused client can only leave");
            }
        }
        world.assert_no_state_remains();
    }
    let mut rules = proxied();
    rules.client.allow_anonymous_connect_without_token = true;
    let mut world = World::with(rules);
    let key = world.open();
    world.says(key, connect);
    world.answer(0, CallOutcome::Connect(Ok(None)));
    assert!(world.received(key)[0].contains(r#""connect":{"client""#));
    // A token decides alone.
    let key = world.open();
    world.says(key, r#"{"id":1,"connect":{"token":"t"}}"#);
    world.verify(Ok(claims("ann")));
    assert!(world.received(key)[0].contains(r#""connect":{"client""#));
}

#[test]
fn a_subscribe_proxy_decides_unless_a_token_or_the_name_does() {
    let mut world = World::with(proxied());
    let (key, _) = asked(&mut world, claims("ann"));
    world.says(key, r#"{"id":2,"subscribe":{"channel":"asked:a","data":{"why":1}}}"#);
    let Some((_, _, SessionCall::Subscribe(call))) = world.calls.front() else { panic!("a call") };
    assert_eq!((&*call.channel, &*call.data), ("asked:a", &br#"{"why":1}"#[..]));
    let grant = SubscriptionGrant { data: "7".into(), ..SubscriptionGrant::default() };
    world.answer(0, CallOutcome::Subscribe(Ok(grant)));
    world.settle();
    let received = world.received(key);
    assert!(received[0].contains(r#"{"id":2,"subscribe":{"#), "{received:?}");
    assert!(received[0].contains(r#""data":7"#), "{received:?}");
    world.says(key, r#"{"id":3,"subscribe":{"channel":"asked:b"}}"#);
    let error =
        wire::protocol::ErrorReply { code: 444, message: "no".to_owned(), temporary: false };
    world.answer(0, CallOutcome::Subscribe(Err(CallRefusal::Error(error))));
    assert_eq!(world.received(key), [r#"{"id":3,"error":{"code":444,"message":"no"}}"#]);
    world.says(key, r#"{"id":4,"subscribe":{"channel":"asked:c#ann"}}"#);
    world.says(key, r#"{"id":5,"subscribe":{"channel":"$asked:c"}}"#);
    world.settle();
    let received = world.received(key);
    assert!(received.iter().any(|line| line.contains(r#"{"id":4,"subscribe":{"#)), "{received:?}");
    assert!(received.iter().any(|line| line.contains(r#"{"id":5,"error":{"code":103"#)));
    world.says(key, &subscribe(6, "asked:d"));
    assert!(matches!(world.calls[0].2, SessionCall::Verify { .. }));
    let refusal = CallRefusal::Disconnect(DisconnectCode::ForceDisconnect.into());
    world.says(key, r#"{"id":7,"subscribe":{"channel":"asked:e"}}"#);
    world.answer(1, CallOutcome::Subscribe(Err(refusal)));
    assert_eq!(world.code(key), 3503);
    world.answer(0, allowed("asked:d"));
    world.assert_no_state_remains();
}

#[test]
fn a_publish_proxy_decides_and_may_change_the_publication() {
    let mut world = World::with(proxied());
    let (key, _) = asked(&mut world, claims("ann"));
    world.says(key, r#"{"id":2,"subscribe":{"channel":"asked:a"}}"#);
    world.answer(0, CallOutcome::Subscribe(Ok(SubscriptionGrant::default())));
    world.settle();
    world.received(key);
    world.says(key, r#"{"id":3,"publish":{"channel":"asked:a","data":1}}"#);
    let grant = PublishGrant {
        data: Some("2".into()),
        tags: vec![("k".to_owned(), "v".to_owned())],
        ..PublishGrant::default()
    };
    world.answer(0, CallOutcome::Publish(Ok(Box::new(grant))));
    world.settle();
    let received = world.received(key).join("\n");
    assert!(
        received.contains(r#""pub":{"data":2,"#) && received.contains(r#""tags":{"k":"v"}"#),
        "{received}"
    );
    assert!(received.contains(r#"{"id":3,"publish":{}}"#), "{received}");
    world.says(key, r#"{"id":4,"publish":{"channel":"asked:a","data":1}}"#);
    let refusal = CallRefusal::Error(ErrorCode::PermissionDenied.into());
    world.answer(0, CallOutcome::Publish(Err(refusal)));
    assert!(world.received(key)[0].contains(r#"{"id":4,"error":{"code":103"#));
}

#[test]
fn an_rpc_has_the_backend_of_its_namespace() {
    let mut world = World::with(proxied());
    let (key, _) = asked(&mut world, claims("ann"));
    for (method, expected) in [
        ("ping", r#"{"id":2,"rpc":{}}"#),
        ("none:x", r#"{"id":2,"error":{"code":108,"message":"not available"}}"#),
        ("unknown:x", r#"{"id":2,"error":{"code":104,"message":"method not found"}}"#),
    ] {
        world.says(key, &format!(r#"{{"id":2,"rpc":{{"method":"{method}"}}}}"#));
        assert_eq!(world.received(key), [expected]);
    }
    // Methods have no order among each other.
    world.says(key, r#"{"id":3,"rpc":{"method":"a"}}"#);
    world.says(key, r#"{"id":4,"rpc":{"method":"a"}}"#);
    world.answer(1, CallOutcome::Rpc(Ok("1".into())));
    assert_eq!(ids(&world.received(key)), [4]);
    world.answer(0, CallOutcome::Rpc(Err(CallRefusal::Error(ErrorCode::Internal.into()))));
    assert!(world.received(key)[0].contains(r#"{"id":3,"error":{"code":100"#));
}

/// Time passes, and the client answers pings.
fn live(world: &mut World, key: SessionKey, seconds: u64) -> Vec<String> {
    let mut received = world.live(&[key], seconds);
    received.retain(|line| line != "{}");
    received
}

#[test]
fn the_server_refreshes_connections_by_itself() {
    let mut world = World::with(proxied());
    let granted = ConnectionClaims { expire_at: Some(BEGIN + 10), ..claims("ann") };
    let (key, _) = asked(&mut world, granted);
    live(&mut world, key, 9);
    assert!(world.calls.is_empty());
    live(&mut world, key, 60);
    assert!(matches!(world.calls[0].2, SessionCall::Refresh(_)), "asked once at its expiry");
    assert_eq!(world.calls.len(), 1);
    let (info, meta) = (r#"{"n":1}"#.into(), r#"{"m":2}"#.into());
    let renewal = Renewal::Until { expire_at: Some(BEGIN + 80), info, meta };
    world.answer(0, CallOutcome::Refresh(Ok(renewal)));
    world.says(key, r#"{"id":2,"rpc":{"method":"a"}}"#);
    let Some((_, _, SessionCall::Rpc(call))) = world.calls.pop_front() else { panic!("a call") };
    let context = call.caller.context.as_ref().unwrap();
    assert_eq!((&*context.meta, context.headers.len()), (&br#"{"m":2}"#[..], 1));
    assert_eq!(&*call.caller.info.conn_info, br#"{"n":1}"#);
    live(&mut world, key, 20);
    // A backend that fails is asked again after a minute.
    world.answer(0, CallOutcome::Refresh(Err(CallRefusal::Error(ErrorCode::Internal.into()))));
    live(&mut world, key, 55);
    assert!(world.calls.is_empty() && world.closes.is_empty());
    live(&mut world, key, 10);
    world.answer(0, CallOutcome::Refresh(Ok(Renewal::Expired)));
    assert_eq!(world.code(key), 3005);
    world.assert_no_state_remains();
}

#[test]
fn a_client_may_not_refresh_what_the_server_refreshes() {
    for command in [
        r#"{"id":3,"refresh":{"token":"t"}}"#,
        r#"{"id":3,"sub_refresh":{"channel":"asked:a","token":"t"}}"#,
    ] {
        let mut world = World::with(proxied());
        let (key, _) = asked(&mut world, claims("ann"));
        world.says(key, r#"{"id":2,"subscribe":{"channel":"asked:a"}}"#);
        world.answer(0, CallOutcome::Subscribe(Ok(SubscriptionGrant::default())));
        world.settle();
        world.says(key, command);
        assert_eq!(world.code(key), 3501);
    }
}

#[test]
fn the_server_refreshes_subscriptions_by_itself() {
    let mut world = World::with(proxied());
    let (key, _) = asked(&mut world, claims("ann"));
    let grant = SubscriptionGrant { expire_at: Some(BEGIN + 5), ..SubscriptionGrant::default() };
    world.says(key, r#"{"id":2,"subscribe":{"channel":"asked:a"}}"#);
    world.answer(0, CallOutcome::Subscribe(Ok(grant.clone())));
    world.settle();
    assert!(!world.received(key)[0].contains("expires"), "not by the client");
    live(&mut world, key, 40);
    assert_eq!(world.calls.len(), 1);
    let until = |at| Renewal::Until { expire_at: Some(at), info: "".into(), meta: "".into() };
    world.answer(0, CallOutcome::SubRefresh(Ok(until(BEGIN + 45))));
    live(&mut world, key, 10);
    world.answer(0, CallOutcome::SubRefresh(Ok(Renewal::Expired)));
    assert!(world.received(key)[0].contains(r#""unsubscribe":{"code":2501"#));
    // One that the server API has subscribed cannot come back by itself.
    let grant = SubscriptionGrant { expire_at: Some(BEGIN + 60), ..grant };
    let channel = "asked:b".to_owned();
    world.order("ann", Order::Subscribe { channel, grant, recover_since: None });
    live(&mut world, key, 20);
    world.answer(0, CallOutcome::SubRefresh(Ok(Renewal::Expired)));
    assert_eq!(world.code(key), 3006);
    world.assert_no_state_remains();
}
