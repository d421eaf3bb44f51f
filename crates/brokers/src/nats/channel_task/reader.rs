//! Those who wait for one read of a channel's stream: what each wants of it, and what it is answered.
//!
//! Invariant: one read serves all; each is answered what it would have read alone.

use engine::broker::{BrokerError, BrokerReply, HistoryQuery, JoinRead, JoinedStream};
use engine::history::Stream;

use crate::nats::request::Reply;
use crate::nats::stream::Publications;

/// One who waits for the same read as others.
pub(super) struct Reader {
    pub(super) reply: Reply,
    pub(super) what: Reading,
}

pub(super) enum Reading {
    Join(JoinRead),
    History(HistoryQuery),
}

impl Reader {
    pub(super) fn needs_stream(&self) -> bool {
        !matches!(self.what, Reading::Join(JoinRead::Nothing))
    }

    pub(super) fn meta_ttl_ms(&self) -> u64 {
        match &self.what {
            Reading::Join(
                JoinRead::Position { meta_ttl_ms }
                | JoinRead::Since { meta_ttl_ms, .. }
                | JoinRead::Newest { meta_ttl_ms },
            ) => *meta_ttl_ms,
            Reading::Join(JoinRead::Nothing) | Reading::History(_) => 0,
        }
    }
}

impl Reading {
    pub(super) fn publications(&self) -> Publications {
        match self {
            Reading::Join(JoinRead::Nothing | JoinRead::Position { .. }) => Publications::None,
            Reading::Join(JoinRead::Newest { .. }) => Publications::Newest,
            Reading::History(HistoryQuery { limit: Some(0), .. }) => Publications::None,
            Reading::Join(JoinRead::Since { .. }) | Reading::History(_) => Publications::All,
        }
    }

    pub(super) fn answer(&self, stream: Option<&Stream>) -> Result<BrokerReply, BrokerError> {
        match (self, stream) {
            (Reading::Join(read), Some(stream)) => Ok(BrokerReply::Subscribed(stream.join(read))),
            (Reading::Join(_), None) => Ok(BrokerReply::Subscribed(JoinedStream::default())),
            (Reading::History(query), Some(stream)) => stream.read(query).map(BrokerReply::History),
            (Reading::History(_), None) => Err(BrokerError::Unavailable),
        }
    }
}
