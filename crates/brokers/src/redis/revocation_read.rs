//! A read of all revocations in parts.
//!
//! Invariant: expired revocations are dropped; an entry that Redis returns twice is kept twice.

use std::sync::Arc;

use bytes::Bytes;
use engine::revocation::Revocation;

use super::open_request::Asker;
use super::resp::Frame;
use crate::control;

/// A read of all revocations for an endpoint.
pub(super) struct RevocationRead {
    pub(super) asker: Asker<Vec<Arc<Revocation>>>,
    pub(super) found: Vec<Arc<Revocation>>,
}

/// What follows a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RevocationPart {
    /// The next part begins at this cursor.
    More(Bytes),
    Last,
}

impl RevocationRead {
    pub(super) fn new(asker: Asker<Vec<Arc<Revocation>>>) -> RevocationRead {
        RevocationRead { asker, found: Vec::new() }
    }

    /// Adds a part: a cursor, and pairs of subject and change. `None` if it is malformed.
    pub(super) fn take_part(&mut self, frame: &Frame, now_s: i64) -> Option<RevocationPart> {
        let [cursor, pairs] = frame.list()? else { return None };
        let (cursor, pairs) = (cursor.text()?, pairs.list()?);
        let changes = pairs.chunks_exact(2).filter_map(|pair| pair[1].text());
        let changes = changes.filter_map(|change| control::decode_revocation(change));
        self.found.extend(changes.filter(|change| change.ends_at > now_s).map(Arc::new));
        Some(match &cursor[..] {
            b"0" => RevocationPart::Last,
            _ => RevocationPart::More(cursor.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use engine::broker::RequestId;

    use super::*;
    use crate::Endpoint;

    #[test]
    fn parts_follow_each_other_until_the_cursor_is_zero() {
        let asker = Asker { endpoint: Endpoint(0), id: RequestId::new(1) };
        let mut read = RevocationRead::new(asker);
        let part = |cursor: &'static str| {
            Frame::List(vec![Frame::Text(cursor.into()), Frame::List(Vec::new())])
        };
        assert_eq!(read.take_part(&part("5"), 0), Some(RevocationPart::More("5".into())));
        assert_eq!(read.take_part(&part("0"), 0), Some(RevocationPart::Last));
        assert_eq!(read.take_part(&Frame::Null, 0), None);
    }
}
