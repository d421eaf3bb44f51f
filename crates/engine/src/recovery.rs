//! Decides whether a recovery is complete, and what the client still needs.
//!
//! Invariant: `recovered` is true only if no publication is missing between what the client holds,
//! what the reply carries and what follows live.

use std::sync::Arc;

use wire::protocol::{Publication, StreamPosition};

use crate::broker::JoinedStream;

/// What a subscriber requests to recover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Nothing.
    None,
    /// Every publication after this position.
    Stream(StreamPosition),
    /// The newest publication, unless this position includes it.
    Cache(StreamPosition),
}

/// The result of a recovery.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RecoveredStream {
    pub(crate) was_recovering: bool,
    pub(crate) recovered: bool,
    /// Publications to send in the reply.
    pub(crate) publications: Vec<Arc<Publication>>,
    /// Offset to send in the reply.
    pub(crate) offset: u64,
    /// Last offset that the client holds once it has read the reply.
    pub(crate) last: u64,
}

impl RecoveredStream {
    /// Turns the result into a refused recovery: the subscription starts at the top.
    pub(crate) fn refused(self) -> RecoveredStream {
        RecoveredStream { recovered: false, publications: Vec::new(), offset: self.last, ..self }
    }
}

/// Decides by the stream as it was read after the worker's subscription became active.
pub(crate) fn decide(recovery: Recovery, stream: JoinedStream) -> RecoveredStream {
    let JoinedStream { top, publications } = stream;
    let fresh =
        RecoveredStream { offset: top.offset, last: top.offset, ..RecoveredStream::default() };
    match recovery {
        Recovery::None => fresh,
        Recovery::Stream(since) => {
            let is_same_epoch = since.epoch.is_empty() || since.epoch == top.epoch;
            let is_whole = match (publications.first(), publications.last()) {
                (Some(first), Some(last)) => {
                    Some(first.offset) == since.offset.checked_add(1) && last.offset == top.offset
                }
                _ => since.offset == top.offset,
            };
            if !(is_same_epoch && is_whole) {
                return RecoveredStream { was_recovering: true, ..fresh };
            }
            RecoveredStream {
                was_recovering: true,
                recovered: true,
                publications,
                // The client starts from its own offset and counts up through the publications.
                offset: since.offset,
                last: top.offset,
            }
        }
        Recovery::Cache(since) => {
            let holds_top = since.offset == top.offset && since.epoch == top.epoch;
            let newest = publications.into_iter().next_back().filter(|_| !holds_top);
            RecoveredStream {
                was_recovering: true,
                recovered: newest.is_some() || (holds_top && top.offset > 0),
                // As above, the client counts up through the publications: here by one.
                offset: newest
                    .as_ref()
                    .map_or(top.offset, |newest| newest.offset.saturating_sub(1)),
                publications: newest.into_iter().collect(),
                ..fresh
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(top: u64, offsets: &[u64]) -> JoinedStream {
        let publication =
            |offset: &u64| Arc::new(Publication { offset: *offset, ..Publication::default() });
        JoinedStream {
            top: StreamPosition { offset: top, epoch: "e".into() },
            publications: offsets.iter().map(publication).collect(),
        }
    }

    fn since(offset: u64, epoch: &str) -> StreamPosition {
        StreamPosition { offset, epoch: epoch.into() }
    }

    fn whole(position: StreamPosition, stream: JoinedStream) -> (bool, usize, u64) {
        let outcome = decide(Recovery::Stream(position), stream);
        assert!(outcome.was_recovering);
        (outcome.recovered, outcome.publications.len(), outcome.offset)
    }

    #[test]
    fn a_stream_recovery_is_complete_or_refused() {
        assert_eq!(whole(since(2, "e"), stream(4, &[3, 4])), (true, 2, 2));
        assert_eq!(whole(since(4, "e"), stream(4, &[])), (true, 0, 4));
        assert_eq!(whole(since(0, ""), stream(0, &[])), (true, 0, 0));
        assert_eq!(whole(since(2, ""), stream(3, &[3])), (true, 1, 2));
        // Not complete: the history window has moved on, a limit cut the end, another epoch, a
        // client ahead of the stream.
        assert_eq!(whole(since(1, "e"), stream(4, &[3, 4])), (false, 0, 4));
        assert_eq!(whole(since(2, "e"), stream(5, &[3, 4])), (false, 0, 5));
        assert_eq!(whole(since(2, "x"), stream(4, &[3, 4])), (false, 0, 4));
        assert_eq!(whole(since(9, "e"), stream(4, &[])), (false, 0, 4));
        assert_eq!(whole(since(2, "e"), stream(4, &[])), (false, 0, 4));
        assert_eq!(whole(since(u64::MAX, "e"), stream(4, &[4])), (false, 0, 4));
    }

    #[test]
    fn a_cache_recovery_gives_the_newest_unless_held() {
        let recover = |position, stream| {
            let outcome = decide(Recovery::Cache(position), stream);
            (outcome.recovered, outcome.publications.len(), outcome.offset)
        };
        assert_eq!(recover(since(2, "e"), stream(4, &[4])), (true, 1, 3));
        assert_eq!(recover(since(4, "e"), stream(4, &[4])), (true, 0, 4));
        assert_eq!(recover(since(4, "x"), stream(4, &[4])), (true, 1, 3));
        assert_eq!(recover(since(0, ""), stream(0, &[])), (false, 0, 0));
    }
}
