//! Names have the same limits whatever their origin, and a personal channel admits its user only.

use engine::SessionKey;
use engine::broker::Order;
use engine::claims::SubscriptionGrant;
use engine::rules::PersonalChannel;

use crate::world::{World, claims, rules, subscribed_to};

fn with_personal(namespace: &str) -> World {
    let mut rules = rules();
    let namespace = namespace.to_owned();
    rules.client.personal_channel = Some(PersonalChannel { namespace, single_connection: false });
    World::with(rules)
}

fn asks(world: &mut World, key: SessionKey, command: &str) -> String {
    world.says(key, &format!(r#"{{"id":7,{command}}}"#));
    world.settle();
    world.received(key).join("\n")
}

#[test]
fn a_name_that_is_too_long_is_refused_whatever_its_origin() {
    let long = format!("kept:{}", "x".repeat(5_000));
    let mut world = World::new();
    for channels in [&[long.as_str()][..], &["a", "kept:a\nb"], &[""]] {
        let key = world.user(subscribed_to("ann", channels));
        let received = world.received(key).join("");
        assert!(received.contains(r#"{"id":1,"error":{"code":107"#), "{received}");
        world.cut(key);
    }
    let key = world.user(claims("ann"));
    world.received(key);
    let (grant, channel) = (SubscriptionGrant::default(), long);
    world.order("ann", Order::Subscribe { channel, grant, recover_since: None });
    assert_eq!(world.received(key), [""; 0]);
    let mut world = with_personal("");
    let key = world.user(claims(&".".repeat(1_400)));
    assert!(world.received(key)[0].contains(r#"{"id":1,"error":{"code":107"#));
    world.assert_no_state_remains();
}

#[test]
fn a_client_may_query_a_channel_that_the_server_subscribed_it_to() {
    for namespace in ["", "people", "kept"] {
        for user in ["J\u{fc}rgen", "org#42", "smith,john", "did:key:z", "a%2Cb", "ann smith"] {
            let mut world = with_personal(namespace);
            let key = world.user(claims(user));
            let reply = world.received(key).remove(0);
            assert!(reply.contains(r#""connect":{"client""#), "{user}: {reply}");
            let name = reply.split(r#""subs":{""#).nth(1).and_then(|rest| rest.split('"').next());
            let name = name.unwrap_or_else(|| panic!("{user}: {reply}")).to_owned();
            let received =
                asks(&mut world, key, &format!(r#""publish":{{"channel":"{name}","data":5}}"#));
            assert!(
                received.contains(r#""data":5"#) && received.contains(r#""publish":{}"#),
                "{received}"
            );
            let question = match namespace {
                "people" => "presence",
                "kept" => "history",
                _ => continue,
            };
            let received =
                asks(&mut world, key, &format!(r#""{question}":{{"channel":"{name}"}}"#));
            assert!(received.contains(&format!(r#""{question}":{{"#)), "{received}");
        }
    }
}

/// Also where every user may subscribe, and where channels are not limited to users.
#[test]
fn a_personal_channel_admits_its_user_only() {
    for is_limited in [false, true] {
        for (owner, channel) in [
            ("smith,john", "kept:#smith%2Cjohn"),
            ("org#42", "kept:#org%2342"),
            ("bob", "kept:#bob"),
        ] {
            let mut world = with_personal("kept");
            let kept = world.rules.channels.namespaces.get_mut("kept").unwrap();
            kept.allow_user_limited_channels = is_limited;
            world.worker.set_rules(world.rules.clone().into());
            let key = world.user(claims(owner));
            assert!(world.received(key)[0].contains(&format!(r#""{channel}":"#)), "{owner}");
            for thief in ["john", "smith", "42", "org", "eve", "smith%2Cjohn"] {
                let key = world.user(claims(thief));
                world.received(key);
                for command in ["subscribe", "history"] {
                    let command = format!(r#""{command}":{{"channel":"{channel}"}}"#);
                    let received = asks(&mut world, key, &command);
                    assert!(received.contains(r#""error":{"code":103"#), "{thief}: {received}");
                }
                world.cut(key);
            }
        }
    }
}
