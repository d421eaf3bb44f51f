//! The callers that wait for a reply of the broker, by the type of the reply.
//!
//! Invariant: a reply reaches only the caller of its request, with the type that the request asked
//! for.

use std::collections::HashMap;
use std::sync::Arc;

use engine::broker::{
    BrokerError, BrokerReply, ChannelTtl, HistoryRemoved, JoinedStream, ReplyValue, RequestId,
    Survey,
};
use engine::revocation::{Revocation, RevokeOutcome};
use tokio::sync::oneshot;
use wire::protocol::{ClientInfo, HistoryResult, PresenceStats, StreamPosition};

/// Callers that wait for a `T`.
pub(super) type Callers<T> = HashMap<RequestId<T>, oneshot::Sender<Result<T, BrokerError>>>;

/// A reply that a caller can wait for.
pub(crate) trait Awaited: ReplyValue {
    /// Returns the callers that wait for such a reply.
    fn callers(waiting: &mut WaitingCallers) -> &mut Callers<Self>;
}

macro_rules! waiting_callers {
    ($($field:ident, $reply:ident: $answer:ty;)*) => {
        /// Callers that wait for a reply of the broker, by the type of the reply.
        #[derive(Default)]
        pub(crate) struct WaitingCallers {
            $($field: Callers<$answer>,)*
        }

        impl WaitingCallers {
            /// Passes a reply to its caller, which may have timed out.
            pub(super) fn resolve(&mut self, reply: BrokerReply) {
                match reply {
                    $(BrokerReply::$reply(id, result) => {
                        if let Some(caller) = self.$field.remove(&id) {
                            let _late = caller.send(result);
                        }
                    })*
                }
            }
        }

        $(impl Awaited for $answer {
            fn callers(waiting: &mut WaitingCallers) -> &mut Callers<$answer> {
                &mut waiting.$field
            }
        })*
    };
}

waiting_callers! {
    subscribed, Subscribed: JoinedStream;
    published, Published: StreamPosition;
    history, History: HistoryResult;
    history_removed, HistoryRemoved: HistoryRemoved;
    channel_ttl, ChannelTtl: Option<ChannelTtl>;
    presence, Presence: Vec<Arc<ClientInfo>>;
    presence_stats, PresenceStats: PresenceStats;
    survey, Survey: Survey;
    revoked, Revoked: RevokeOutcome;
    revocation, Revocation: Option<Arc<Revocation>>;
    revocations, Revocations: Vec<Arc<Revocation>>;
}
