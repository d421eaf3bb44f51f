//! The subject that acknowledges a message; it contains the sequence of the message in its stream.

/// Position of a message in its stream, and the number of messages behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessagePlace {
    /// Sequence in the stream.
    pub(super) sequence: u64,
    /// Messages behind this one.
    pub(super) pending: u64,
}

impl MessagePlace {
    /// `$JS.ACK.stream.consumer.delivered.sequence.consumer-sequence.time.pending`, or the same
    /// with domain and account behind `ACK` and more at the end.
    pub(super) fn of(subject: &str) -> Option<MessagePlace> {
        let parts: Vec<&str> = subject.split('.').collect();
        let from = match parts.len() {
            9 => 2,
            11.. => 4,
            _ => return None,
        };
        if parts[..2] != ["$JS", "ACK"] {
            return None;
        }
        let number = |index: usize| parts.get(from + index)?.parse().ok();
        Some(MessagePlace { sequence: number(3)?, pending: number(6)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_tell_the_place() {
        let place = Some(MessagePlace { sequence: 17, pending: 4 });
        assert_eq!(MessagePlace::of("$JS.ACK.orders.tidings.1.17.9.1700000000.4"), place);
        assert_eq!(MessagePlace::of("$JS.ACK.hub.acc.orders.tidings.1.17.9.1700.4.x"), place);
        assert_eq!(MessagePlace::of("$JS.ACK.orders"), None);
        assert_eq!(MessagePlace::of("a.b.orders.tidings.1.17.9.1700000000.4"), None);
    }
}
