//! Roles in connection tokens, and namespaces that grant permissions to roles.

use serde_json::json;

use crate::support::{Fixture, signed};

#[test]
fn a_role_of_the_connection_token_has_the_permissions_of_its_namespace() {
    let fixture = Fixture::with(&[
        ("channel.without_namespace.allow_subscribe_for_roles", "guest,editor"),
        ("channel.without_namespace.allow_publish_for_roles", "editor"),
        ("channel.without_namespace.allow_history_for_roles", "editor"),
        ("channel.without_namespace.history_size", "5"),
        ("channel.without_namespace.history_ttl", "1m"),
        ("client.token.role_claim", "https://example.org/roles"),
    ]);
    for (roles, expected) in [
        (json!(null), [false, false, false]),
        (json!("guest"), [true, false, false]),
        (json!(["other", "editor"]), [true, true, true]),
    ] {
        let mut peer = fixture.connect();
        let token = signed(&json!({"sub": "ann", "https://example.org/roles": roles}));
        peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        assert!(peer.receive().contains(r#""connect":{"#));
        let commands = [
            r#""publish":{"channel":"news","data":1}"#,
            r#""history":{"channel":"news"}"#,
            r#""subscribe":{"channel":"news"}"#,
        ];
        let allowed = commands.map(|command| {
            peer.say(&format!(r#"{{"id":2,{command}}}"#));
            let reply = peer.receive();
            assert!(reply.contains("error") == reply.contains(r#""code":103"#), "{reply}");
            !reply.contains("error")
        });
        let [subscribe, publish, history] = expected;
        assert_eq!(allowed, [publish, history, subscribe], "{roles}");
    }
}
