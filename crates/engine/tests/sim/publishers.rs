//! The order in which publications of clients were accepted.

use std::collections::HashMap;

use bytes::Bytes;

use super::oracle::{Oracle, Violation};

/// The last accepted publication of each connection in each channel.
#[derive(Debug, Default)]
pub(crate) struct Publishers {
    last: HashMap<(String, String), u64>,
}

/// The payload of a client's publication.
pub(crate) fn payload(client: usize, connection: u64, number: u64) -> String {
    format!("{{\"by\":\"{client}-{connection}\",\"n\":{number}}}")
}

impl Publishers {
    /// Records an accepted publication: one connection's publications into one channel keep their
    /// order.
    pub(crate) fn accept(&mut self, channel: &str, payload: &Bytes) -> Result<(), Violation> {
        let text = String::from_utf8_lossy(payload);
        let parsed =
            text.split_once("{\"by\":\"").and_then(|(_, rest)| rest.split_once("\",\"n\":"));
        let Some((publisher, number)) = parsed else { return Ok(()) };
        let number: u64 = number.trim_end_matches('}').parse().unwrap_or_default();
        if publisher.starts_with("backend") {
            return Ok(());
        }
        let key = (channel.to_owned(), publisher.to_owned());
        let before = self.last.insert(key, number);
        Oracle::Order.check(before.is_none_or(|before| before < number), || {
            format!("{channel}: {text} is accepted after {before:?}")
        })
    }
}
