//! Refusal of tokens that are damaged, malformed or of the other kind.

use serde_json::{Value, json};

use super::super::limits::TOKEN_BYTES_MAX;
use super::super::{Cost, TokenSettings};
use super::signing::{encode, hmac_sign, hs256};
use super::{
    INVALID, NOW, SECRET, ann, connect, connect_raw, connect_with, settings, subscribe, verifier,
};

#[test]
fn a_token_changed_in_any_character_is_refused() {
    let verifier = verifier(&settings());
    let token = hs256(SECRET, &ann());
    for position in 0..token.len() {
        for other in ["A", "Q", "_", ".", "=", " ", "\0"] {
            let mut changed = token.clone();
            changed.replace_range(position..=position, other);
            if changed != token {
                let verdict = verifier.verify_connection(&changed, NOW);
                assert_eq!(verdict, Err(INVALID), "{other:?} at {position}");
            }
        }
    }
}

#[test]
fn a_token_cut_anywhere_or_continued_is_refused() {
    let verifier = verifier(&settings());
    let token = hs256(SECRET, &ann());
    for end in 0..token.len() {
        let cut = &token[..end];
        assert_eq!(verifier.verify_connection(cut, NOW), Err(INVALID), "{end} characters");
        assert_eq!(verifier.cost(cut), Cost::Inline);
    }
    for more in [".", ".e30", "=", "\n", "A"] {
        let continued = format!("{token}{more}");
        assert_eq!(verifier.verify_connection(&continued, NOW), Err(INVALID), "{more:?}");
    }
}

#[test]
fn texts_that_are_no_token_are_refused() {
    let verifier = verifier(&settings());
    for text in ["", ".", "..", "...", "token", "a.b.c", "é.è.à", "e30.e30.e30", "\u{0}\u{0}"] {
        assert_eq!(verifier.verify_connection(text, NOW), Err(INVALID), "{text:?}");
        assert_eq!(verifier.verify_subscription(text, NOW), Err(INVALID), "{text:?}");
    }
}

#[test]
fn headers_that_are_not_understood_are_refused() {
    for header in [
        "",
        "null",
        "[]",
        r#"["HS256"]"#,
        "{}",
        r#"{"alg":1}"#,
        r#"{"alg":null}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256"} {}"#,
        r#"{"alg":"HS256""#,
    ] {
        let token = hmac_sign(SECRET, format!("{}.{}", encode(header), encode(ann().to_string())));
        let verdict = verifier(&settings()).verify_connection(&token, NOW);
        assert_eq!(verdict, Err(INVALID), "{header}");
    }
}

#[test]
fn header_fields_without_a_meaning_here_do_no_harm() {
    let header = r#"{"typ":"at+jwt","alg":"HS256","x5t":"e30","jku":"http://127.0.0.1:1/"}"#;
    let token = hmac_sign(SECRET, format!("{}.{}", encode(header), encode(ann().to_string())));
    assert!(verifier(&settings()).verify_connection(&token, NOW).is_ok());
}

#[test]
fn payloads_that_are_not_claims_are_refused() {
    for payload in [
        "",
        "null",
        "1",
        "[]",
        r#"["ann"]"#,
        r#""ann""#,
        "{",
        r#"{"sub":"ann"} x"#,
        r#"{"sub":"ann",}"#,
        "{\"sub\":\"\u{1}\"}",
        r#"{"sub":"ann","sub":"bob"}"#,
        r#"{"sub":"ann","exp":1800000000,"exp":1900000000}"#,
        r#"{"sub":"ann","info":1,"info":2}"#,
        r#"{"sub":"ann","subs":{"a":{},"a":{}}}"#,
        r#"{"sub":"ann","subs":{"a":{"data":1,"data":2}}}"#,
        r#"{"sub":"\ud800"}"#,
        r#"{"exp":1e400}"#,
    ] {
        assert_eq!(connect_raw(payload), Err(INVALID), "{payload}");
    }
    let not_text = hmac_sign(SECRET, format!("{}.{}", encode(r#"{"alg":"HS256"}"#), "gICA"));
    assert_eq!(verifier(&settings()).verify_connection(&not_text, NOW), Err(INVALID));
}

#[test]
fn claims_of_a_wrong_type_are_refused() {
    for wrong in [
        json!({"sub": 1.5}),
        json!({"sub": true}),
        json!({"sub": ["ann"]}),
        json!({"exp": "soon"}),
        json!({"exp": ""}),
        json!({"exp": "1800000000s"}),
        json!({"exp": "inf"}),
        json!({"exp": ["1800000000"]}),
        json!({"exp": true}),
        json!({"nbf": {}}),
        json!({"nbf": "0x1"}),
        json!({"expire_at": "never"}),
        json!({"iss": 1}),
        json!({"aud": 1}),
        json!({"aud": ["a", 1]}),
        json!({"channels": "a"}),
        json!({"channels": [1]}),
        json!({"b64info": {}}),
        json!({"b64info": "%%%"}),
        json!({"subs": ["a"]}),
        json!({"subs": {"a": 1}}),
        json!({"subs": {"a": [1]}}),
        json!({"subs": {"a": {"b64data": "%"}}}),
        json!({"subs": {"a": {"override": true}}}),
        json!({"subs": {"a": {"override": {"presence": true}}}}),
        json!({"subs": {"a": {"override": {"presence": {"value": 1}}}}}),
        json!({"subs": {"a": {"override": {"presence": {"value": "true"}}}}}),
    ] {
        assert_eq!(connect(&wrong), Err(INVALID), "{wrong}");
    }
    for wrong in [
        json!({"channel": 1}),
        json!({"channel": "a", "client": 1}),
        json!({"channel": "a", "b64data": 1}),
        json!({"channel": "a", "override": [{"value": true}]}),
    ] {
        assert_eq!(subscribe(&wrong), Err(INVALID), "{wrong}");
    }
}

#[test]
fn a_token_of_one_kind_is_not_one_of_the_other() {
    for channel in [json!("news"), json!(""), json!(1)] {
        assert_eq!(connect(&json!({"sub": "ann", "channel": channel})), Err(INVALID));
    }
    for claims in [json!({"sub": "ann"}), json!({"channel": ""}), json!({"channel": null})] {
        assert_eq!(subscribe(&claims), Err(INVALID));
    }
}

#[test]
fn a_token_may_be_as_long_as_the_limit_and_no_longer() {
    let padded = |bytes: usize| hs256(SECRET, &json!({"sub": "ann", "info": "x".repeat(bytes)}));
    let around = padded(0).len();
    let fitting = padded((TOKEN_BYTES_MAX - around) / 4 * 3 - 3);
    assert!(fitting.len() <= TOKEN_BYTES_MAX);
    assert!(verifier(&settings()).verify_connection(&fitting, NOW).is_ok());
    for bytes in [TOKEN_BYTES_MAX, 1024 * 1024] {
        let token = padded(bytes);
        assert_eq!(verifier(&settings()).verify_connection(&token, NOW), Err(INVALID));
        assert_eq!(verifier(&settings()).cost(&token), Cost::Inline);
    }
}

#[test]
fn deep_claims_neither_break_the_verifier_nor_the_stack() {
    let deep = |open: &str, close: &str| open.repeat(20_000) + "1" + &close.repeat(20_000);
    let _ = connect_raw(&format!(r#"{{"info":{}}}"#, deep("[", "]")));
    let _ = connect_raw(&format!(r#"{{"other":{}}}"#, deep("[", "]")));
    assert_eq!(connect_raw(&format!(r#"{{"sub":{}}}"#, deep("[", "]"))), Err(INVALID));
    assert_eq!(connect_raw(&deep("[", "]")), Err(INVALID));
}

fn expecting(claim: &str, value: &str) -> TokenSettings {
    let value = Some(value.to_owned());
    match claim {
        "audience" => TokenSettings { audience: value, ..settings() },
        "audience_regex" => TokenSettings { audience_regex: value, ..settings() },
        "issuer" => TokenSettings { issuer: value, ..settings() },
        _ => TokenSettings { issuer_regex: value, ..settings() },
    }
}

fn verdicts(settings: &TokenSettings, accepted: &[Value], refused: &[Value]) {
    for claims in accepted {
        assert!(connect_with(settings, claims).is_ok(), "{settings:?} {claims}");
    }
    for claims in refused {
        assert_eq!(connect_with(settings, claims), Err(INVALID), "{settings:?} {claims}");
    }
}

#[test]
fn the_audience_must_be_the_expected_one() {
    let own = json!({"aud": "us"});
    let among = json!({"aud": ["them", "us"]});
    let refused = [
        json!({}),
        json!({"aud": []}),
        json!({"aud": null}),
        json!({"aud": "them"}),
        json!({"aud": ["them", "usa"]}),
        json!({"iss": "us"}),
    ];
    verdicts(&expecting("audience", "us"), &[own.clone(), among.clone()], &refused);
    verdicts(&expecting("audience_regex", "^us$"), &[own, among], &refused);
}

#[test]
fn the_issuer_must_be_the_expected_one() {
    let own = [json!({"iss": "us"})];
    let refused = [json!({}), json!({"iss": ""}), json!({"iss": "usa"}), json!({"aud": "us"})];
    verdicts(&expecting("issuer", "us"), &own, &refused);
    verdicts(&expecting("issuer_regex", "^us$"), &own, &refused);
}

#[test]
fn issuer_and_audience_are_free_when_nothing_is_expected() {
    let anything = [json!({}), json!({"iss": "x", "aud": ["y", "z"]})];
    verdicts(&settings(), &anything, &[]);
    verdicts(&expecting("audience", ""), &anything, &[]);
}
