//! Endpoints with placeholders: a token selects one of the listed URLs and cannot add any.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::super::{Fetch, FetchFailure, KeyError, KeyFault, TokenSettings, Verifier};
use super::key_server::KeyServer;
use super::signing::p256;
use super::{INVALID, NOW, UNAVAILABLE, verifier};

fn endpoint(url: &str, issuer: &str, audience: &str) -> TokenSettings {
    TokenSettings {
        jwks_public_endpoint: Some(url.to_owned()),
        issuer_regex: Some(issuer.to_owned()),
        audience_regex: Some(audience.to_owned()),
        ..TokenSettings::default()
    }
}

/// Fails all requests and records their URLs.
#[derive(Default)]
struct Asked(Mutex<Vec<String>>);

impl Fetch for Asked {
    fn fetch(&self, address: &str) -> Result<Vec<u8>, FetchFailure> {
        self.0.lock().unwrap().push(address.to_owned());
        Err(FetchFailure::Unreachable)
    }
}

/// Unique URLs that are requested for a token with these claims.
fn asked(settings: &TokenSettings, claims: &Value) -> Vec<String> {
    let asked = Arc::new(Asked::default());
    let fetch: Arc<dyn Fetch> = asked.clone();
    let verifier = Verifier::with_fetch(settings, &fetch).unwrap();
    let verdict = verifier.verify_connection(&p256().token("ES256", Some("a"), claims), NOW);
    let mut addresses = asked.0.lock().unwrap().clone();
    addresses.dedup();
    assert_eq!(verdict, Err(if addresses.is_empty() { INVALID } else { UNAVAILABLE }));
    addresses
}

#[test]
fn placeholders_are_filled_from_issuer_and_audience() {
    let settings = endpoint(
        "https://{{host}}.example.org/{{realm}}/keys",
        r"^https://example\.org/(?P<realm>one|two\.x|3_-)$",
        "^(?<host>a|b)$",
    );
    let claims = |issuer: &str, audience: Value| json!({"iss": issuer, "aud": audience});
    for (issuer, audience, address) in [
        ("https://example.org/one", json!("a"), "https://a.example.org/one/keys"),
        ("https://example.org/two.x", json!(["z", "b"]), "https://b.example.org/two.x/keys"),
        ("https://example.org/3_-", json!("b"), "https://b.example.org/3_-/keys"),
    ] {
        assert_eq!(asked(&settings, &claims(issuer, audience)), [address]);
    }
    for (issuer, audience) in [
        ("https://example.org/three", json!("a")),
        ("https://example.org/one", json!("c")),
        ("https://example.org/one", json!([])),
        ("https://example.org/twoyx", json!("a")),
        ("", json!("a")),
    ] {
        assert!(asked(&settings, &claims(issuer, audience)).is_empty(), "{issuer}");
    }
}

#[test]
fn a_token_for_another_audience_fetches_nothing() {
    let settings = TokenSettings {
        audience: Some("us".to_owned()),
        ..endpoint("https://x/{{realm}}", "^(?P<realm>a|b)$", "")
    };
    assert_eq!(asked(&settings, &json!({"iss": "a", "aud": "us"})), ["https://x/a"]);
    assert!(asked(&settings, &json!({"iss": "a", "aud": "them"})).is_empty());
}

#[test]
fn a_realm_verifies_its_own_tokens_only() {
    let (one, two) = (p256(), p256());
    let server = KeyServer::start(&[one.jwk("a")]);
    let url = server.url("/{{realm}}");
    let verifier = verifier(&endpoint(&url, "^(?P<realm>one|two)$", ""));
    let token = one.token("ES256", Some("a"), &json!({"iss": "one"}));
    assert!(verifier.verify_connection(&token, NOW).is_ok());
    server.publish(&[two.jwk("a")]);
    let stolen = one.token("ES256", Some("a"), &json!({"iss": "two"}));
    assert_eq!(verifier.verify_connection(&stolen, NOW), Err(INVALID));
    assert_eq!(server.paths(), ["/one", "/two"]);
}

#[test]
fn flags_of_an_expression_do_not_widen_its_list() {
    let settings = endpoint("https://x/{{realm}}", "(?i)^(?P<realm>sk|b)$", "");
    assert_eq!(asked(&settings, &json!({"iss": "sk"})), ["https://x/sk"]);
    for issuer in ["SK", "\u{17f}k", "s\u{212a}"] {
        assert!(asked(&settings, &json!({"iss": issuer})).is_empty(), "{issuer}");
    }
}

#[test]
fn a_group_that_took_no_part_gives_no_address() {
    let settings = endpoint("https://x/{{realm}}", "^(?P<realm>a|b)?.*$", "");
    assert_eq!(asked(&settings, &json!({"iss": "a"})), ["https://x/a"]);
    assert!(asked(&settings, &json!({"iss": "c"})).is_empty());
}

fn fault(url: &str, issuer: &str, audience: &str) -> KeyFault {
    let error = Verifier::new(&endpoint(url, issuer, audience)).expect_err("a mistake");
    let KeyError { setting, fault } = error;
    assert_eq!(setting, "jwks_public_endpoint");
    fault
}

#[test]
fn an_endpoint_is_an_http_address() {
    for url in ["example.org/keys", "file:///etc/keys", "ftp://x", "{{realm}}://x", "/keys"] {
        assert_eq!(fault(url, "(?P<realm>a)", ""), KeyFault::NotHttp, "{url}");
    }
}

#[test]
fn a_placeholder_needs_its_form_and_one_group() {
    for url in ["https://x/{{realm", "https://x/{{}}", "https://x/{{realm}"] {
        assert_eq!(fault(url, "(?P<realm>a)", ""), KeyFault::Placeholder, "{url}");
    }
    for (issuer, audience) in
        [("", ""), ("(?P<other>a)", ""), ("(realm)", ""), ("(?P<realm>a)", "(?P<realm>a)")]
    {
        let fault = fault("https://x/{{realm}}", issuer, audience);
        assert_eq!(fault, KeyFault::PlaceholderGroup, "{issuer} {audience}");
    }
}

#[test]
fn a_placeholder_takes_listed_values_only() {
    for group in [
        ".*", "a.c", "a|.", "[a-z]+", r"\w", "a*", "a?", "a+", "a|", "", "|", r"\.\.", r"\.",
        "(b|c)", "(?:b)", "a/b", "a|^", "a{2}", r"a\\.b", "a%2fb", "é", "a b", "a@b", "a:1",
        r"\..", r".\.",
    ] {
        let issuer = format!("^(?P<realm>{group})$");
        let verdict = fault("https://x/{{realm}}", &issuer, "");
        assert_eq!(verdict, KeyFault::PlaceholderOpen, "{group}");
    }
}

/// The name of the group inside a character class must not be read as the group.
#[test]
fn a_list_is_not_read_from_the_wrong_place() {
    let fault = fault("https://x/{{realm}}", "^[(?P<realm>a)](?P<realm>.*)$", "");
    assert_eq!(fault, KeyFault::PlaceholderOpen);
}

#[test]
fn addresses_are_bounded_in_number() {
    let list: Vec<_> = (0..17).map(|number| number.to_string()).collect();
    let list = list.join("|");
    let (issuer, audience) = (format!("(?P<a>{list})"), format!("(?P<b>{list})"));
    let verdict = fault("https://x/{{a}}/{{b}}", &issuer, &audience);
    assert_eq!(verdict, KeyFault::TooManyEndpoints);
    assert!(Verifier::new(&endpoint("https://x/{{a}}", &issuer, &audience)).is_ok());
}
