//! Requests that share one read of a channel's stream.
//!
//! Invariant: each request is answered as if it had read alone.

use engine::broker::{BrokerError, HistoryQuery, JoinRead, JoinedStream, RequestId};
use engine::history::Stream;
use wire::protocol::HistoryResult;

use crate::nats::request::ReplyHandle;
use crate::nats::stream::Publications;

/// A request that waits for a read.
pub(super) struct WaitingReader {
    pub(super) reply: ReplyHandle,
    pub(super) what: ReadKind,
}

/// What a request reads.
pub(super) enum ReadKind {
    Join(RequestId<JoinedStream>, JoinRead),
    History(RequestId<HistoryResult>, HistoryQuery),
}

impl WaitingReader {
    /// Replies with the part of the stream that was requested; `stream` is `None` when no request
    /// needed it.
    pub(super) fn answer(self, stream: Option<&Stream>) {
        match self.what {
            ReadKind::Join(id, read) => {
                let joined = stream.map_or_else(JoinedStream::default, |stream| stream.join(&read));
                self.reply.send(id, Ok(joined));
            }
            ReadKind::History(id, query) => {
                let unread = Err(BrokerError::Unavailable);
                self.reply.send(id, stream.map_or(unread, |stream| stream.read(&query)));
            }
        }
    }

    /// Replies with an error.
    pub(super) fn refuse(self, error: BrokerError) {
        match self.what {
            ReadKind::Join(id, _) => self.reply.send(id, Err(error)),
            ReadKind::History(id, _) => self.reply.send(id, Err(error)),
        }
    }

    pub(super) fn needs_stream(&self) -> bool {
        !matches!(self.what, ReadKind::Join(_, JoinRead::Nothing))
    }

    pub(super) fn meta_ttl_ms(&self) -> u64 {
        match &self.what {
            ReadKind::Join(
                _,
                JoinRead::Position { meta_ttl_ms }
                | JoinRead::Since { meta_ttl_ms, .. }
                | JoinRead::Newest { meta_ttl_ms },
            ) => *meta_ttl_ms,
            ReadKind::Join(_, JoinRead::Nothing) | ReadKind::History(..) => 0,
        }
    }
}

impl ReadKind {
    pub(super) fn publications(&self) -> Publications {
        match self {
            ReadKind::Join(_, JoinRead::Nothing | JoinRead::Position { .. }) => Publications::None,
            ReadKind::Join(_, JoinRead::Newest { .. }) => Publications::Newest,
            ReadKind::History(_, HistoryQuery { limit: Some(0), .. }) => Publications::None,
            ReadKind::Join(_, JoinRead::Since { .. }) | ReadKind::History(..) => Publications::All,
        }
    }
}
