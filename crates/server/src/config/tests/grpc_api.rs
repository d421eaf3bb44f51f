//! The server API over gRPC: keys, ports and sizes that cannot be.

use super::load_text;

const SERVED: &str = "[grpc_api]\nenabled = true\n";

#[test]
fn keys_are_its_own_or_those_of_http() {
    let keys = |text: &str| {
        let (config, _) = load_text(".toml", &format!("{SERVED}{text}")).unwrap();
        let grpc = config.grpc_api.unwrap();
        let names: Vec<String> = grpc.keys.iter().map(|key| key.name.clone()).collect();
        (names.join(" "), grpc.keys[0].is(b"g"), grpc.keys[0].is(b"h"))
    };
    let named = "[[http_api.keys]]\nname = \"desk\"\nkey = \"d\"\n";
    assert_eq!(keys("key = \"g\"\n"), ("grpc".to_owned(), true, false));
    assert_eq!(keys("[http_api]\nkey = \"h\"\n"), ("default".to_owned(), false, true));
    let both = format!("key = \"g\"\n[http_api]\nkey = \"h\"\n{named}");
    assert_eq!(keys(&both), ("grpc desk".to_owned(), true, false));
    let (config, _) = load_text(".toml", &format!("{SERVED}insecure = true\n")).unwrap();
    assert!(config.grpc_api.unwrap().insecure);
    let (config, _) = load_text(".toml", "[grpc_api]\nkey = \"g\"\n").unwrap();
    assert!(config.grpc_api.is_none(), "it is off by default");
}

#[test]
fn what_cannot_be_served_is_a_mistake() {
    let key = "key = \"g\"\n";
    for (text, place) in [
        ("", "grpc_api.key"),
        ("key = \"d\"\n[[http_api.keys]]\nname = \"desk\"\nkey = \"d\"\n", "grpc_api.key"),
        ("key = \"g\"\n[[http_api.keys]]\nname = \"grpc\"\nkey = \"d\"\n", "grpc_api.key"),
        (&format!("{key}port = 8000\n"), "grpc_api.port"),
        (&format!("{key}port = 9000\n[http_server]\ninternal_port = 9000\n"), "grpc_api.port"),
        (&format!("{key}address = \"a b\"\n"), "grpc_api.address"),
        (&format!("{key}error_mode = \"http\"\n"), "grpc_api.error_mode"),
        (
            &format!("{key}max_receive_message_size = 100000000\n"),
            "grpc_api.max_receive_message_size",
        ),
        (&format!("{key}[grpc_api.tls]\nenabled = true\n"), "grpc_api.tls.cert_pem"),
    ] {
        let mistakes = load_text(".toml", &format!("{SERVED}{text}")).unwrap_err();
        let found = mistakes.mistakes.iter().any(|mistake| mistake.key == place);
        assert!(found, "{text}: {mistakes}");
    }
    let elsewhere = format!(
        "{SERVED}{key}port = 8000\naddress = \"127.0.0.1\"\n[http_server]\naddress = \"127.0.0.2\"\n"
    );
    load_text(".toml", &elsewhere).unwrap();
}
