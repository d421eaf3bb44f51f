//! Channel names of the configuration beside what NATS carries.
//!
//! Invariant: a limit that no name of its length could use with NATS is a mistake; one that only
//! some can use is a warning.

use brokers::nats::{channel_length_max, plain_channel_length_max};

use super::mistakes::KeyedMistakes;
use super::values::Values;

/// Relates `channel.max_length` to the lines of NATS; returns warnings.
pub(super) fn check_channel_length(
    values: &Values<'_>,
    mistakes: &mut KeyedMistakes,
) -> KeyedMistakes {
    let uses_nats = values.flag("broker.enabled") && values.text("broker.type") == "nats";
    if !uses_nats {
        return KeyedMistakes::new();
    }
    let (length, prefix) = (values.count("channel.max_length"), values.text("broker.nats.prefix"));
    let (any, plain) = (channel_length_max(&prefix), plain_channel_length_max(&prefix));
    let place = "channel.max_length".to_owned();
    if length > plain {
        let text = format!(
            "{length} is more than NATS carries with broker.nats.prefix {prefix:?}, {plain} bytes: set it to {any} or less, so that every name \
             of that length fits"
        );
        mistakes.push((place, text));
    } else if length > any {
        let text = format!(
            "NATS carries names of {any} bytes whatever their characters are (broker.nats.prefix {prefix:?}); longer ones are refused (107) \
             unless they have mostly letters, digits and -_:#@/$, which take one byte in a subject, and others three"
        );
        return vec![(place, text)];
    }
    KeyedMistakes::new()
}

#[cfg(test)]
mod tests {
    use crate::config::Warning;
    use crate::config::tests::load_text;

    #[test]
    fn lengths_above_the_limit_of_nats_are_a_warning() {
        let load = |length: usize, prefix: &str| {
            let nats = format!(r#"{{"url": "nats://127.0.0.1", "prefix": "{prefix}"}}"#);
            let broker = format!(r#"{{"enabled": true, "type": "nats", "nats": {nats}}}"#);
            let channel = format!(r#"{{"max_length": {length}}}"#);
            load_text(".json", &format!(r#"{{"broker": {broker}, "channel": {channel}}}"#))
        };
        let of_lengths = |warnings: Vec<Warning>| {
            let of_lengths = warnings.into_iter().filter(|one| one.key == "channel.max_length");
            of_lengths.collect::<Vec<_>>()
        };
        let reported = |length, prefix| of_lengths(load(length, prefix).unwrap().1);
        assert!(reported(255, "tidings").is_empty());
        assert!(reported(1_277, "tidings").is_empty());
        let [warning] = &reported(1_278, "tidings")[..] else { panic!("one warning") };
        assert!(warning.text.contains("1277"), "{warning:?}");
        assert!(!reported(1_277, "a-longer-prefix").is_empty(), "a prefix takes room");
        let mistakes = load(4_000, "tidings").unwrap_err().to_string();
        assert!(mistakes.contains("channel.max_length") && mistakes.contains("3833"), "{mistakes}");
        // Other brokers carry all.
        let (_, warnings) = load_text(".json", r#"{"channel": {"max_length": 4000}}"#).unwrap();
        assert_eq!(of_lengths(warnings), []);
    }
}
