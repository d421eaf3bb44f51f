//! Keys of the server API: an option that limits a key is applied or refused, and never ignored.

use super::load_text;

const TWO: &str = r#"
[[http_api.keys]]
name = "desk"
key = "a"
methods = ["publish"]
channels = ["news:*"]
[[http_api.keys]]
name = "all"
key = "b"
"#;

#[test]
fn keys_have_names_methods_and_channels() {
    let (config, _) = load_text(".toml", &format!("[http_api]\nkey = \"c\"\n{TWO}")).unwrap();
    let named = |name: &str| config.api.keys.iter().find(|key| key.name == name).unwrap();
    let (desk, all, default) = (named("desk"), named("all"), named("default"));
    assert!(desk.is(b"a") && !desk.is(b"b") && !desk.is(b""));
    assert!(desk.allows_method("publish") && !desk.allows_method("info"));
    assert!(desk.allows_channel("news:x") && !desk.allows_channel("chat:x"));
    assert!(default.is(b"c"));
    assert!(all.allows_method("info") && all.allows_channel("chat:x"));
    assert!(!format!("{:?}", config.api.keys).contains("\"a\""), "no key is shown");
}

#[test]
fn a_key_is_set_by_variables() {
    let environment = super::pairs(&[
        ("TIDINGS_HTTP_API_KEYS", "desk"),
        ("TIDINGS_HTTP_API_KEYS_DESK_KEY", "a"),
        ("TIDINGS_HTTP_API_KEYS_DESK_METHODS", "publish,info"),
    ]);
    let source = super::Source { environment, ..super::Source::default() };
    let (config, _) = super::load(&source).unwrap();
    let [desk] = &config.api.keys[..] else { panic!("one key") };
    assert!(desk.is(b"a") && desk.allows_method("info") && !desk.allows_method("presence"));
}

#[test]
fn an_invalid_limit_of_a_key_is_a_mistake() {
    for (from, to, place) in [
        ("name = \"all\"", "name = \"desk\"", "http_api.keys[1].name"),
        ("name = \"all\"", "name = \"default\"\n", ""),
        ("name = \"all\"", "name = \"a b\"", "http_api.keys[1].name"),
        ("name = \"all\"\n", "", "http_api.keys[1].name"),
        ("key = \"b\"", "key = \"a\"", "http_api.keys[1].key"),
        ("key = \"b\"", "key = \"\"", "http_api.keys[1].key"),
        ("methods =", "method =", "http_api.keys[0].method"),
        ("[\"publish\"]", "[\"publsh\"]", "http_api.keys[0].methods"),
        ("[\"news:*\"]", "[\"news:[\"]", "http_api.keys[0].channels"),
        ("[\"news:*\"]", "{}", "http_api.keys[0].channels"),
    ] {
        let text = TWO.replace(from, to);
        assert_ne!(text, TWO);
        match load_text(".toml", &text) {
            Ok(_) => assert_eq!(place, "", "{to}"),
            Err(mistakes) => {
                let reported = mistakes.to_string();
                assert!(!place.is_empty() && reported.contains(place), "{to}: {reported}");
            }
        }
    }
    let scalar = load_text(".toml", "[http_api]\nkeys = \"a\"\n").unwrap_err().to_string();
    assert!(scalar.contains("http_api.keys"), "{scalar}");
}

#[test]
fn a_key_that_can_be_guessed_is_warned_of() {
    let (_, warnings) = load_text(".toml", TWO).unwrap();
    let reported: Vec<&str> = warnings.iter().map(|warning| &*warning.key).collect();
    for key in ["http_api.keys[0].key", "http_api.keys[1].key"] {
        assert!(reported.contains(&key), "{reported:?}");
    }
    let strong = TWO.replace("\"a\"", &format!("{:?}", "0123456789abcdef".repeat(4)));
    let (_, warnings) = load_text(".toml", &strong).unwrap();
    assert!(!warnings.iter().any(|warning| warning.key == "http_api.keys[0].key"));
}

#[test]
fn no_form_of_writing_a_limit_loses_it() {
    // A variable with a typing error.
    for (name, list) in [
        ("TIDINGS_HTTP_API_KEYS_DESK_METHOD", "desk"),
        ("CENTRIFUGO_HTTP_API_KEYS_NEWS_METHODS", "desk"),
    ] {
        let environment = super::pairs(&[("TIDINGS_HTTP_API_KEYS", list), (name, "publish")]);
        let source = super::Source { environment, ..super::Source::default() };
        let refused = super::load(&source).unwrap_err().to_string();
        assert!(refused.contains(name), "{refused}");
    }
    // One key without the list, and a variable for it.
    let path = super::file(".json", r#"{"http_api": {"keys": {"Name": "desk", "key": "a"}}}"#);
    let environment = super::pairs(&[("TIDINGS_HTTP_API_KEYS_DESK_METHODS", "publish")]);
    let file = Some(path.to_path_buf());
    let (config, _) =
        super::load(&super::Source { file, environment, ..super::Source::default() }).unwrap();
    let [desk] = &config.api.keys[..] else { panic!("one key") };
    assert!(desk.allows_method("publish") && !desk.allows_method("info"));
    // Items without a value.
    for limit in [r#""methods": [null]"#, r#""channels": [null]"#, r#""channels": ["a", null]"#] {
        let text =
            format!(r#"{{"http_api": {{"keys": [{{"name": "desk", "key": "a", {limit}}}]}}}}"#);
        let refused = load_text(".json", &text).unwrap_err().to_string();
        assert!(refused.contains("http_api.keys[0]."), "{refused}");
    }
    // A list that is written and empty allows all, which is said.
    for limit in [r#""methods": null"#, r#""methods": []"#, r#""channels": "", "methods": "a""#] {
        let text =
            format!(r#"{{"http_api": {{"keys": [{{"name": "desk", "key": "a", {limit}}}]}}}}"#);
        let text = text.replace(r#""methods": "a""#, r#""methods": "info""#);
        let (_, warnings) = load_text(".json", &text).unwrap();
        let is_told = warnings.iter().any(|warning| warning.text.contains("written and empty"));
        assert!(is_told, "{limit}: {warnings:?}");
    }
}

#[test]
fn a_variable_for_two_items_is_a_mistake() {
    let list =
        r#"[{"name": "a-b", "key": "1"}, {"name": "a_b", "key": "2"}, {"name": "a", "key": "3"}]"#;
    let with = |name: &str| {
        let environment = super::pairs(&[("TIDINGS_HTTP_API_KEYS", list), (name, "publish")]);
        super::load(&super::Source { environment, ..super::Source::default() })
    };
    let refused = with("TIDINGS_HTTP_API_KEYS_A_B_METHODS").unwrap_err().to_string();
    for part in ["TIDINGS_HTTP_API_KEYS_A_B_METHODS", "http_api.keys[0]", "http_api.keys[1]"] {
        assert!(refused.contains(part), "{refused}");
    }
    let (config, _) = with("TIDINGS_HTTP_API_KEYS_A_METHODS").unwrap();
    assert!(config.api.keys[0].allows_method("info") && !config.api.keys[2].allows_method("info"));
}
