//! Compares the maximum length of channel names with the length of subjects in NATS.
//!
//! Invariant: a limit that no channel name can reach with NATS is a mistake. One that only some
//! names can reach is a warning.

use brokers::nats::{channel_length_max, plain_channel_length_max};

use super::mistakes::KeyedMistakes;
use super::options::Options;
use super::options::engine::BrokerType;

/// Checks `channel.max_length` and returns warnings as key and text.
pub(super) fn check_channel_length(
    options: &Options,
    mistakes: &mut KeyedMistakes,
) -> KeyedMistakes {
    let broker = &options.broker;
    let uses_nats = *broker.enabled && *broker.r#type == BrokerType::Nats;
    if !uses_nats {
        return KeyedMistakes::new();
    }
    let (length, prefix) = (options.channel.max_length.count(), &*broker.nats.prefix);
    let (any, plain) = (channel_length_max(prefix), plain_channel_length_max(prefix));
    if length > plain {
        let text = format!(
            "{length} is more than the maximum of {plain} bytes with NATS and broker.nats.prefix {prefix:?}: set it to {any} \
             or less, so that every name fits"
        );
        mistakes.push(options.channel.max_length.fault(text));
    } else if length > any {
        let text = format!(
            "NATS accepts every name of up to {any} bytes (broker.nats.prefix {prefix:?}). A longer name is refused (107) if it \
             has too many characters other than letters, digits and -_:#@/$, because they take three bytes in a subject"
        );
        return vec![options.channel.max_length.fault(text)];
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
        assert!(!reported(1_277, "a-longer-prefix").is_empty(), "the prefix counts");
        let mistakes = load(4_000, "tidings").unwrap_err().to_string();
        assert!(mistakes.contains("channel.max_length") && mistakes.contains("3833"), "{mistakes}");
        // Other brokers accept every length.
        let (_, warnings) = load_text(".json", r#"{"channel": {"max_length": 4000}}"#).unwrap();
        assert_eq!(of_lengths(warnings), []);
    }
}
