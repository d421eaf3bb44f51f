//! The number of items inside the replies of one message: publications, clients, subscriptions and
//! tags.
//!
//! Invariant: what a decoded message holds is bounded by a small multiple of its bytes, beside
//! [`ITEMS_PER_MESSAGE_FREE`] items.

use std::cell::Cell;

use super::DecodeError;
use crate::limits::{ITEM_SIZE_MIN, ITEMS_PER_MESSAGE_FREE};

/// Items that a message may still have.
pub(super) struct ItemBudget {
    left: Cell<usize>,
    is_exceeded: Cell<bool>,
}

impl ItemBudget {
    /// The budget of a message with so many bytes.
    pub(super) fn of(bytes: usize) -> ItemBudget {
        let left = ITEMS_PER_MESSAGE_FREE.max(bytes / ITEM_SIZE_MIN);
        ItemBudget { left: Cell::new(left), is_exceeded: Cell::new(false) }
    }

    /// Counts an item before it is kept.
    pub(super) fn take(&self) -> Result<(), DecodeError> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.is_exceeded.set(true);
                Err(DecodeError::TooMany)
            }
        }
    }

    /// The error of a decoder that cannot pass on the one of [`ItemBudget::take`].
    pub(super) fn error_or(&self, other: DecodeError) -> DecodeError {
        if self.is_exceeded.get() { DecodeError::TooMany } else { other }
    }
}

#[cfg(test)]
mod tests {
    use crate::limits::{ITEM_SIZE_MIN, ITEMS_PER_MESSAGE_FREE};
    use crate::protocol::{Codec, DecodeError, decode_replies};

    fn decoded(codec: Codec, message: &[u8]) -> Result<usize, DecodeError> {
        decode_replies(codec, message).map(|replies| replies.len())
    }

    #[test]
    fn a_json_message_has_items_according_to_its_bytes() {
        let list = |item: &str, count: usize| vec![item; count].join(",");
        let named = |count: usize, value: &str| {
            let one = |index: usize| format!("\"{index}\":{value}");
            (0..count).map(one).collect::<Vec<String>>().join(",")
        };
        let publications =
            |items: &str| format!(r#"{{"id":2,"history":{{"publications":[{items}]}}}}"#);
        let padded = format!(r#"{{"data":"{}"}}"#, "x".repeat(ITEM_SIZE_MIN));
        let more = ITEMS_PER_MESSAGE_FREE + 1;
        for accepted in [
            publications(&list("{}", ITEMS_PER_MESSAGE_FREE)),
            publications(&list(&padded, more)),
            // Payloads are not items.
            format!(r#"{{"id":2,"rpc":{{"data":[{}]}}}}"#, list("{}", more)),
            publications(&format!(r#"{{"data":[{}]}}"#, list("{}", more))),
        ] {
            assert_eq!(decoded(Codec::Json, accepted.as_bytes()), Ok(1));
        }
        for refused in [
            publications(&list("{}", more)),
            format!(r#"{{"id":2,"subscribe":{{"publications":[{}]}}}}"#, list("{}", more)),
            format!(r#"{{"id":2,"presence":{{"presence":{{{}}}}}}}"#, named(more, "{}")),
            format!(r#"{{"id":2,"connect":{{"subs":{{{}}}}}}}"#, named(more, "{}")),
            format!(r#"{{"push":{{"pub":{{"tags":{{{}}}}}}}}}"#, named(more, r#""""#)),
            // Of several replies together.
            [publications(&list("{}", more / 2)), publications(&list("{}", more))].join("\n"),
        ] {
            assert_eq!(decoded(Codec::Json, refused.as_bytes()), Err(DecodeError::TooMany));
        }
    }

    #[test]
    fn a_protobuf_message_has_items_according_to_its_bytes() {
        let delimited = |inner: &[u8], out: &mut Vec<u8>| {
            let mut length = inner.len();
            while length >= 0x80 {
                out.push(0x80 | (length & 0x7F) as u8);
                length >>= 7;
            }
            out.push(length as u8);
            out.extend_from_slice(inner);
        };
        // A reply with a history (field 11) of publications (field 1).
        let history = |item: &[u8], count: usize| {
            let (mut reply, mut message) = (vec![0x5A], Vec::new());
            delimited(&item.repeat(count), &mut reply);
            delimited(&reply, &mut message);
            message
        };
        let count = ITEMS_PER_MESSAGE_FREE;
        assert_eq!(decoded(Codec::Protobuf, &history(b"\x0a\x00", count)), Ok(1));
        let refused = decoded(Codec::Protobuf, &history(b"\x0a\x00", count + 1));
        assert_eq!(refused, Err(DecodeError::TooMany));
        let padded = [b"\x0a\x40\x22\x3e".as_slice(), &[b'x'; 62]].concat();
        assert_eq!(decoded(Codec::Protobuf, &history(&padded, 2 * count)), Ok(1));
    }
}
