//! Range of a stream to read, in the terms of the script that reads it.
//!
//! Invariant: the pages of one read are consecutive ranges without a gap.

use engine::broker::{HistoryQuery, JoinRead};

use super::command_request::CommandRequest;
use super::page_progress::PageProgress;

/// A range of stream ids, a direction and limits.
pub(super) struct StreamRange {
    pub(super) first: String,
    pub(super) last: String,
    /// Maximum number of publications; negative for no limit, 0 for the position only.
    pub(super) limit: i64,
    pub(super) is_reverse: bool,
    /// Epoch of the ids; empty accepts any epoch.
    pub(super) epoch: String,
    /// Maximum bytes of publications in the reply.
    pub(super) budget: usize,
}

impl StreamRange {
    fn all(limit: i64) -> StreamRange {
        StreamRange {
            first: "-".to_owned(),
            last: "+".to_owned(),
            limit,
            is_reverse: false,
            epoch: String::new(),
            budget: 0,
        }
    }

    /// A read of the stream's position only.
    pub(super) fn position() -> StreamRange {
        StreamRange::all(0)
    }

    /// The next page of a request, and the TTL of the stream's position in milliseconds; `None` for
    /// a request that reads no stream.
    pub(super) fn next_of(
        request: &CommandRequest,
        progress: &PageProgress,
    ) -> Option<(StreamRange, u64)> {
        let (range, meta_ttl_ms) = match request {
            CommandRequest::Subscribe { read, .. } => StreamRange::of_join(read)?,
            CommandRequest::History { query, meta_ttl_ms, .. } => {
                (StreamRange::of_history(query), *meta_ttl_ms)
            }
            _ => return None,
        };
        Some((range.after(request, progress), meta_ttl_ms))
    }

    fn of_join(read: &JoinRead) -> Option<(StreamRange, u64)> {
        Some(match read {
            JoinRead::Nothing => return None,
            JoinRead::Position { meta_ttl_ms } => (StreamRange::all(0), *meta_ttl_ms),
            JoinRead::Newest { meta_ttl_ms } => {
                (StreamRange { is_reverse: true, ..StreamRange::all(1) }, *meta_ttl_ms)
            }
            JoinRead::Since { since, limit, meta_ttl_ms, .. } => {
                let (limit, since) = (Some(*limit), Some(since.clone()));
                let query = HistoryQuery { limit, since, ..HistoryQuery::default() };
                (StreamRange::of_history(&query), *meta_ttl_ms)
            }
        })
    }

    fn of_history(query: &HistoryQuery) -> StreamRange {
        let limit = query.limit.map_or(-1, i64::from);
        let mut range = StreamRange { is_reverse: query.reverse, ..StreamRange::all(limit) };
        let Some(since) = &query.since else {
            return range;
        };
        range.epoch.clone_from(&since.epoch);
        let next =
            if query.reverse { since.offset.checked_sub(1) } else { since.offset.checked_add(1) };
        match next {
            Some(offset) if query.reverse => range.last = offset.to_string(),
            Some(offset) => range.first = offset.to_string(),
            None => range.limit = 0,
        }
        range
    }

    /// The remainder after some pages have been read.
    fn after(mut self, request: &CommandRequest, progress: &PageProgress) -> StreamRange {
        self.budget = progress.budget();
        let Some(top) = progress.top() else { return self };
        self.epoch.clone_from(&top.epoch);
        if self.limit > 0 {
            self.limit -= progress.read_count();
        }
        // A history read stops at the top that its first page found. A join reads on to the newest
        // publication, since other subscribers may have received what was published before this one
        // was subscribed.
        let is_history = matches!(request, CommandRequest::History { .. });
        if is_history && self.last == "+" {
            self.last = top.offset.to_string();
        }
        if let Some(last) = progress.last_offset() {
            match self.is_reverse {
                // Offsets begin with 1.
                true => self.last = last.saturating_sub(1).to_string(),
                false => self.first = last.saturating_add(1).to_string(),
            }
        }
        self
    }
}

/// TTL in milliseconds of the position that a joining subscriber tracks; `None` when it tracks
/// none.
pub(super) fn meta_ttl_ms(read: &JoinRead) -> Option<u64> {
    match read {
        JoinRead::Nothing => None,
        JoinRead::Position { meta_ttl_ms }
        | JoinRead::Since { meta_ttl_ms, .. }
        | JoinRead::Newest { meta_ttl_ms } => Some(*meta_ttl_ms),
    }
}
