//! Requests that share one read of a channel's stream.
//!
//! Invariant: each request is answered as if it had read alone.

use engine::broker::{BrokerError, BrokerReply, HistoryQuery, JoinRead, JoinedStream};
use engine::history::Stream;

use crate::nats::request::ReplyHandle;
use crate::nats::stream::Publications;

/// A request that waits for a read.
pub(super) struct WaitingReader {
    pub(super) reply: ReplyHandle,
    pub(super) what: ReadKind,
}

/// What a request reads.
pub(super) enum ReadKind {
    Join(JoinRead),
    History(HistoryQuery),
}

impl WaitingReader {
    pub(super) fn needs_stream(&self) -> bool {
        !matches!(self.what, ReadKind::Join(JoinRead::Nothing))
    }

    pub(super) fn meta_ttl_ms(&self) -> u64 {
        match &self.what {
            ReadKind::Join(
                JoinRead::Position { meta_ttl_ms }
                | JoinRead::Since { meta_ttl_ms, .. }
                | JoinRead::Newest { meta_ttl_ms },
            ) => *meta_ttl_ms,
            ReadKind::Join(JoinRead::Nothing) | ReadKind::History(_) => 0,
        }
    }
}

impl ReadKind {
    pub(super) fn publications(&self) -> Publications {
        match self {
            ReadKind::Join(JoinRead::Nothing | JoinRead::Position { .. }) => Publications::None,
            ReadKind::Join(JoinRead::Newest { .. }) => Publications::Newest,
            ReadKind::History(HistoryQuery { limit: Some(0), .. }) => Publications::None,
            ReadKind::Join(JoinRead::Since { .. }) | ReadKind::History(_) => Publications::All,
        }
    }

    /// The reply to this request; `stream` is `None` when no request needed the stream.
    pub(super) fn answer(&self, stream: Option<&Stream>) -> Result<BrokerReply, BrokerError> {
        match (self, stream) {
            (ReadKind::Join(read), Some(stream)) => Ok(BrokerReply::Subscribed(stream.join(read))),
            (ReadKind::Join(_), None) => Ok(BrokerReply::Subscribed(JoinedStream::default())),
            (ReadKind::History(query), Some(stream)) => {
                stream.read(query).map(BrokerReply::History)
            }
            (ReadKind::History(_), None) => Err(BrokerError::Unavailable),
        }
    }
}
