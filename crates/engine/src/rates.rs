//! Rate limits: the closed set of buckets, and the rate at which each refills.
//!
//! Invariant: metrics and configuration have one entry for each bucket. Rates are valid by
//! construction ([`Rate::new`]): every empty bucket refills.

pub use crate::rate::Rate;
use crate::rate::Scale;

/// The operations with a rate limit. The first six buckets belong to one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Commands of a connection, pongs excepted.
    ConnectionCommands,
    /// Publications of a connection.
    ConnectionPublishes,
    /// Subscribe commands of a connection.
    ConnectionSubscribes,
    /// Channels named by a connection that its worker has not seen recently.
    ConnectionNewChannels,
    /// Bytes of a connection's messages.
    ConnectionBytes,
    /// Refusals of a connection by its other buckets; beyond this limit the connection is closed
    /// (3013).
    ConnectionRefusals,
    /// Commands of all connections of a user on this node.
    UserCommands,
    /// Publications of all connections of a user on this node.
    UserPublishes,
    /// Subscribe commands of all connections of a user on this node.
    UserSubscribes,
    /// Connect commands of a user on this node.
    UserConnects,
    /// WebSocket handshakes from an address.
    AddressHandshakes,
    /// TCP connections from an address.
    AddressConnects,
    /// Server API calls with a key; each command of a batch is one.
    ApiKeyRequests,
}

/// Number of buckets.
pub const BUCKETS: usize = Bucket::ALL.len();

/// Number of buckets of a connection.
pub const CONNECTION_BUCKETS: usize = 6;

impl Bucket {
    /// All buckets, in the order of their numbers.
    pub const ALL: &'static [Bucket] = &[
        Bucket::ConnectionCommands,
        Bucket::ConnectionPublishes,
        Bucket::ConnectionSubscribes,
        Bucket::ConnectionNewChannels,
        Bucket::ConnectionBytes,
        Bucket::ConnectionRefusals,
        Bucket::UserCommands,
        Bucket::UserPublishes,
        Bucket::UserSubscribes,
        Bucket::UserConnects,
        Bucket::AddressHandshakes,
        Bucket::AddressConnects,
        Bucket::ApiKeyRequests,
    ];

    /// Returns the name used in metrics, and in the configuration below `limits`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Bucket::ConnectionCommands => "connection.commands",
            Bucket::ConnectionPublishes => "connection.publishes",
            Bucket::ConnectionSubscribes => "connection.subscribes",
            Bucket::ConnectionNewChannels => "connection.new_channels",
            Bucket::ConnectionBytes => "connection.bytes",
            Bucket::ConnectionRefusals => "connection.refusals",
            Bucket::UserCommands => "user.commands",
            Bucket::UserPublishes => "user.publishes",
            Bucket::UserSubscribes => "user.subscribes",
            Bucket::UserConnects => "user.connects",
            Bucket::AddressHandshakes => "address.handshakes",
            Bucket::AddressConnects => "address.connects",
            Bucket::ApiKeyRequests => "api_key.requests",
        }
    }
}

/// A refusal by a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// The bucket with too few tokens.
    pub bucket: Bucket,
    /// Milliseconds until it has enough tokens, if none are taken meanwhile.
    pub retry_after_ms: u64,
}

/// The rate of every bucket; `None` for buckets without a limit.
#[derive(Clone, Debug)]
pub struct Rates {
    rates: [Option<Rate>; BUCKETS],
    /// The rates of a connection's buckets, precomputed for use.
    pub(crate) connection: [Scale; CONNECTION_BUCKETS],
}

impl Rates {
    /// Creates rates from the rate of each bucket; `None` for no limit.
    #[must_use]
    pub fn new(rate_of: impl Fn(Bucket) -> Option<Rate>) -> Rates {
        let rates = std::array::from_fn(|index| rate_of(Bucket::ALL[index]));
        let connection = std::array::from_fn(|index| Scale::new(rates[index]));
        Rates { rates, connection }
    }

    /// Returns the rate of a bucket; `None` for no limit.
    #[must_use]
    pub fn of(&self, bucket: Bucket) -> Option<Rate> {
        self.rates[bucket as usize]
    }
}

/// No limits.
impl Default for Rates {
    fn default() -> Rates {
        Rates::new(|_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_buckets_are_their_places() {
        for (index, bucket) in Bucket::ALL.iter().enumerate() {
            assert_eq!(*bucket as usize, index);
            assert_eq!(bucket.name().starts_with("connection."), index < CONNECTION_BUCKETS);
        }
    }

    #[test]
    fn rates_that_never_refill_are_refused() {
        assert!(Rate::new(50, 1_000, 200).is_some());
        assert!(Rate::new(0, 1_000, 200).is_none() && Rate::new(1, 1_000, 0).is_none());
        assert!(Rate::new(1, 3_600_000, 24 * 7).is_some());
        assert!(Rate::new(1, 3_600_000, 24 * 7 + 1).is_none());
        assert!(Rate::new(u32::MAX, 1_000, 1).is_none());
    }
}
