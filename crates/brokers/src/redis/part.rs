//! Which part of a stream is read, as the script that reads it wants it.
//!
//! Invariant: the pages of one read are parts that follow each other without a gap between them.

use engine::broker::{BrokerRequest, HistoryQuery, JoinRead};

use super::pages::PageProgress;

/// See the module.
pub(super) struct Part {
    pub(super) first: String,
    pub(super) last: String,
    /// Publications at most; negative for no limit, 0 for the position only.
    pub(super) limit: i64,
    pub(super) is_reverse: bool,
    /// Of the ids; empty when any epoch will do.
    pub(super) epoch: String,
    /// Bytes of publications at most.
    pub(super) budget: usize,
}

impl Part {
    fn all(limit: i64) -> Part {
        Part {
            first: "-".to_owned(),
            last: "+".to_owned(),
            limit,
            is_reverse: false,
            epoch: String::new(),
            budget: 0,
        }
    }

    /// The stream's position and nothing else.
    pub(super) fn position() -> Part {
        Part::all(0)
    }

    /// The next page of a request, and how long the position is kept; `None` for a request that
    /// reads no stream.
    pub(super) fn next_of(request: &BrokerRequest, progress: &PageProgress) -> Option<(Part, u64)> {
        let (part, meta_ttl_ms) = match request {
            BrokerRequest::Subscribe { read, .. } => Part::of_join(read)?,
            BrokerRequest::History { query, meta_ttl_ms, .. } => {
                (Part::of_history(query), *meta_ttl_ms)
            }
            _ => return None,
        };
        Some((part.behind(request, progress), meta_ttl_ms))
    }

    fn of_join(read: &JoinRead) -> Option<(Part, u64)> {
        Some(match read {
            JoinRead::Nothing => return None,
            JoinRead::Position { meta_ttl_ms } => (Part::all(0), *meta_ttl_ms),
            JoinRead::Newest { meta_ttl_ms } => {
                (Part { is_reverse: true, ..Part::all(1) }, *meta_ttl_ms)
            }
            JoinRead::Since { since, limit, meta_ttl_ms, .. } => {
                let (limit, since) = (Some(*limit), Some(since.clone()));
                let query = HistoryQuery { limit, since, ..HistoryQuery::default() };
                (Part::of_history(&query), *meta_ttl_ms)
            }
        })
    }

    fn of_history(query: &HistoryQuery) -> Part {
        let limit = query.limit.map_or(-1, i64::from);
        let mut part = Part { is_reverse: query.reverse, ..Part::all(limit) };
        let Some(since) = &query.since else {
            return part;
        };
        part.epoch.clone_from(&since.epoch);
        let next =
            if query.reverse { since.offset.checked_sub(1) } else { since.offset.checked_add(1) };
        match next {
            Some(offset) if query.reverse => part.last = offset.to_string(),
            Some(offset) => part.first = offset.to_string(),
            None => part.limit = 0,
        }
        part
    }

    /// What is left of it when some pages have been read.
    fn behind(mut self, request: &BrokerRequest, progress: &PageProgress) -> Part {
        self.budget = progress.budget();
        let Some(top) = progress.top() else { return self };
        self.epoch.clone_from(&top.epoch);
        if self.limit > 0 {
            self.limit -= progress.read_count();
        }
        // A history ends where its first page found the top. A join goes on to the newest, for what
        // was published since may have been told to others before this subscriber began to listen.
        if matches!(request, BrokerRequest::History { .. }) && self.last == "+" {
            self.last = top.offset.to_string();
        }
        if let Some(last) = progress.last_offset() {
            match self.is_reverse {
                // Streams begin with 1.
                true => self.last = last.saturating_sub(1).to_string(),
                false => self.first = last.saturating_add(1).to_string(),
            }
        }
        self
    }
}

/// How long the position is kept that a joining subscriber holds from now on, when it does.
pub(super) fn meta_ttl_ms(read: &JoinRead) -> Option<u64> {
    match read {
        JoinRead::Nothing => None,
        JoinRead::Position { meta_ttl_ms }
        | JoinRead::Since { meta_ttl_ms, .. }
        | JoinRead::Newest { meta_ttl_ms } => Some(*meta_ttl_ms),
    }
}
