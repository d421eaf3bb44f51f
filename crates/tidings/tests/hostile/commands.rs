//! Commands with strange names, depths and numbers.

use self::Outcome::{Accepted, Closed, Error};
use crate::case::Case;
use crate::peer::{Peer, Received};

/// What a command comes to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Error(u64),
    Closed(u16),
}

fn outcome(case: &Case, command: &str) -> Outcome {
    let mut peer = Peer::admitted(case.server.address);
    peer.say(command);
    loop {
        match peer.next() {
            Received::Closed(code) => return Outcome::Closed(code),
            Received::Text(text) if text.starts_with(r#"{"id":"#) => {
                let error = text.split(r#""error":{"code":"#).nth(1);
                let code = error.map(|rest| rest.split([',', '}']).next().unwrap().parse());
                return code.map_or(Outcome::Accepted, |code| Outcome::Error(code.unwrap()));
            }
            Received::Text(_) => {}
            other => panic!("{command:.100}: {other:?}"),
        }
    }
}

fn check(case: &Case, cases: &[(&str, String, Outcome)]) {
    for (name, command, expected) in cases {
        assert_eq!(outcome(case, command), *expected, "{name}");
    }
}

fn subscribe(name: &str) -> String {
    format!(r#"{{"id":2,"subscribe":{{"channel":"{name}"}}}}"#)
}

#[test]
fn strange_names_are_refused_and_harm_nobody() {
    let case = Case::busy("strange names", &[]);
    check(
        &case,
        &[
            ("NUL in a name", subscribe("open:\\u0000"), Error(107)),
            ("a line break in a name", subscribe("open:\\n"), Error(107)),
            ("DEL in a name", subscribe("open:\\u007f"), Error(107)),
            ("no ASCII in a name", subscribe("open:\u{e9}"), Error(107)),
            ("half a surrogate pair", subscribe("open:\\ud800"), Closed(3501)),
            ("a raw control character", subscribe("open:\u{1}"), Closed(3501)),
            ("an empty name", subscribe(""), Closed(3501)),
            ("255 bytes", subscribe(&format!("open:{}", "x".repeat(250))), Accepted),
            ("256 bytes", subscribe(&format!("open:{}", "x".repeat(251))), Error(107)),
            ("60,000 bytes", subscribe(&"x".repeat(60_000)), Error(107)),
        ],
    );
    case.finish("all answered as they should be");
}

#[test]
fn deep_commands_are_refused_or_not_looked_into_and_harm_nobody() {
    let nested = |open: &str, close: &str, count: usize| {
        format!("{}1{}", open.repeat(count), close.repeat(count))
    };
    let arrays = nested("[", "]", 10_000);
    let objects = nested("{\"a\":", "}", 10_000);
    let case = Case::busy("deep commands", &[]);
    check(
        &case,
        &[
            ("deep arrays for a request", format!(r#"{{"id":2,"rpc":{arrays}}}"#), Closed(3501)),
            ("deep objects for a request", format!(r#"{{"id":2,"rpc":{objects}}}"#), Error(108)),
            (
                "deep arrays without end",
                format!(r#"{{"id":2,"rpc":{}"#, "[".repeat(60_000)),
                Closed(3501),
            ),
            ("deep arrays for an id", format!(r#"{{"id":{arrays},"rpc":{{}}}}"#), Closed(3501)),
            // Subscribers' parsers would have to read what a payload holds.
            ("a deep payload", format!(r#"{{"id":2,"rpc":{{"data":{arrays}}}}}"#), Error(107)),
            // What is skipped may be as deep as it likes.
            (
                "deep objects of no meaning",
                format!(r#"{{"id":2,"rpc":{{}},"x":{objects}}}"#),
                Error(108),
            ),
        ],
    );
    case.finish("all answered as they should be");
}

#[test]
fn strange_ids_and_counts_are_refused_and_harm_nobody() {
    let case = Case::busy("strange ids", &[]);
    check(
        &case,
        &[
            (
                "an id beyond 64 bits",
                r#"{"id":99999999999999999999999,"rpc":{}}"#.into(),
                Closed(3501),
            ),
            ("an id beyond 32 bits", r#"{"id":4294967296,"rpc":{}}"#.into(), Closed(3501)),
            ("the last id", r#"{"id":4294967295,"rpc":{}}"#.into(), Error(108)),
            ("a negative id", r#"{"id":-1,"rpc":{}}"#.into(), Closed(3501)),
            ("a fraction for an id", r#"{"id":1.5,"rpc":{}}"#.into(), Closed(3501)),
            ("an infinite id", r#"{"id":1e999,"rpc":{}}"#.into(), Closed(3501)),
            ("a text for an id", r#"{"id":"1","rpc":{}}"#.into(), Closed(3501)),
            ("two ids", r#"{"id":1,"id":2,"rpc":{}}"#.into(), Closed(3501)),
        ],
    );
    case.finish("all answered as they should be");
}

#[test]
fn strange_positions_are_refused_and_harm_nobody() {
    let recover = |position: &str| {
        format!(r#"{{"id":2,"subscribe":{{"channel":"kept:x","recover":true,{position}}}}}"#)
    };
    let history = |what: &str| format!(r#"{{"id":2,"history":{{"channel":"kept:x",{what}}}}}"#);
    let case = Case::busy("strange positions", &[]);
    check(
        &case,
        &[
            ("the last offset", recover(r#""offset":18446744073709551615"#), Accepted),
            ("an offset beyond that", recover(r#""offset":18446744073709551616"#), Closed(3501)),
            ("a negative offset", recover(r#""offset":-1"#), Closed(3501)),
            ("a long epoch", recover(&format!(r#""epoch":"{}""#, "e".repeat(60_000))), Accepted),
            ("the least limit", history(r#""limit":-2147483648"#), Accepted),
            ("a limit beyond 32 bits", history(r#""limit":2147483648"#), Closed(3501)),
            (
                "history since the last offset",
                history(r#""limit":1,"since":{"offset":18446744073709551615,"epoch":""}"#),
                Accepted,
            ),
            (
                "history backwards from the last offset",
                history(
                    r#""reverse":true,"limit":-1,"since":{"offset":18446744073709551615,"epoch":""}"#,
                ),
                Accepted,
            ),
            (
                "a flag beyond 64 bits",
                r#"{"id":2,"subscribe":{"channel":"open:x","flag":9223372036854775808}}"#.into(),
                Closed(3501),
            ),
            ("2,048 commands", ["{\"id\":3,\"rpc\":{}}"; 2048].join("\n"), Error(108)),
        ],
    );
    case.finish("all answered as they should be");
}
