//! Replies of a broker, typed by the request.
//!
//! Invariant: a request that carries a `RequestId<T>` is answered with a `Result<T, BrokerError>`;
//! another reply does not compile.

use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::{cmp, fmt};

use wire::protocol::{ClientInfo, HistoryResult, PresenceStats, StreamPosition};

use super::{BrokerError, ChannelTtl, HistoryRemoved, JoinedStream, Survey};
use crate::revocation::{Revocation, RevokeOutcome};

/// Identifies a request of one endpoint that is answered with a `T`. The endpoint chooses the
/// number; the reply repeats it.
pub struct RequestId<T> {
    number: u64,
    reply: PhantomData<fn() -> T>,
}

/// The result of a request.
pub trait ReplyValue: Sized {
    /// Returns the reply with this result.
    fn reply(id: RequestId<Self>, result: Result<Self, BrokerError>) -> BrokerReply;

    /// Returns the id and the result if the reply is of this type.
    fn of(reply: BrokerReply) -> Option<(RequestId<Self>, Result<Self, BrokerError>)>;
}

macro_rules! replies {
    ($($(#[$doc:meta])* $variant:ident: $answer:ty,)*) => {
        /// The reply to a request: its id and its result.
        #[derive(Clone, Debug, PartialEq)]
        pub enum BrokerReply {
            $($(#[$doc])* $variant(RequestId<$answer>, Result<$answer, BrokerError>),)*
        }

        impl BrokerReply {
            /// Returns the number of the request, and why the broker rejected it.
            pub fn outcome(&self) -> (u64, Result<(), BrokerError>) {
                match self {
                    $(BrokerReply::$variant(id, result) => {
                        (id.number(), result.as_ref().map(|_| ()).map_err(|error| *error))
                    })*
                }
            }

            /// Replaces the result by an error.
            pub fn refuse(&mut self, error: BrokerError) {
                match self {
                    $(BrokerReply::$variant(_, result) => *result = Err(error),)*
                }
            }
        }

        $(impl ReplyValue for $answer {
            fn reply(id: RequestId<Self>, result: Result<Self, BrokerError>) -> BrokerReply {
                BrokerReply::$variant(id, result)
            }

            fn of(reply: BrokerReply) -> Option<(RequestId<Self>, Result<Self, BrokerError>)> {
                match reply {
                    BrokerReply::$variant(id, result) => Some((id, result)),
                    _ => None,
                }
            }
        })*
    };
}

replies! {
    /// The endpoint is subscribed; the part of the stream that it requested.
    Subscribed: JoinedStream,
    /// The publication was accepted at this position, zero without history. A repeated idempotency
    /// key or a stale version returns the position of the publication that was accepted before.
    Published: StreamPosition,
    /// The part of the stream that was read.
    History: HistoryResult,
    /// The retained publications were removed.
    HistoryRemoved: HistoryRemoved,
    /// Age and TTL of the channel; `None` for a channel that does not expire.
    ChannelTtl: Option<ChannelTtl>,
    /// The clients present in the channel.
    Presence: Vec<Arc<ClientInfo>>,
    /// The numbers of clients and users present in the channel.
    PresenceStats: PresenceStats,
    /// The answers of the other nodes.
    Survey: Survey,
    /// What the broker did with a change of what is revoked.
    Revoked: RevokeOutcome,
    /// The stored change of the subject; `None` if it was never revoked or the change was deleted.
    Revocation: Option<Arc<Revocation>>,
    /// All stored changes that have not expired.
    Revocations: Vec<Arc<Revocation>>,
}

impl<T> RequestId<T> {
    /// Creates an id from a number that the endpoint has not used for another open request.
    #[must_use]
    pub const fn new(number: u64) -> RequestId<T> {
        RequestId { number, reply: PhantomData }
    }

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.number
    }
}

impl<T: ReplyValue> RequestId<T> {
    /// Returns the reply with this result.
    #[must_use]
    pub fn answer(self, result: Result<T, BrokerError>) -> BrokerReply {
        T::reply(self, result)
    }
}

// Derived implementations would require them of `T`, which an id does not hold.

impl<T> Clone for RequestId<T> {
    fn clone(&self) -> RequestId<T> {
        *self
    }
}

impl<T> Copy for RequestId<T> {}

impl<T> fmt::Debug for RequestId<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RequestId({})", self.number)
    }
}

impl<T> PartialEq for RequestId<T> {
    fn eq(&self, other: &RequestId<T>) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for RequestId<T> {}

impl<T> Hash for RequestId<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

impl<T> PartialOrd for RequestId<T> {
    fn partial_cmp(&self, other: &RequestId<T>) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for RequestId<T> {
    fn cmp(&self, other: &RequestId<T>) -> cmp::Ordering {
        self.number.cmp(&other.number)
    }
}
