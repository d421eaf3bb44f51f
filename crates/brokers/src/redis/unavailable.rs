//! Reasons why Redis is unavailable; each text names the option to check.

use super::settings::{Address, RedisParts};

/// Why Redis is unavailable. The text names the option to check.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnavailableReason {
    /// No connection attempt has ended yet.
    #[error("connecting to Redis")]
    Starting,
    /// The connection is open, but no probe has returned yet.
    #[error("Redis at {0} has not sent back what this node published to itself")]
    Unverified(Address),
    /// The connection failed.
    #[error("Redis at {0} cannot be reached: {1} (engine.redis.address)")]
    Unreachable(Address, String),
    /// The connection attempt timed out.
    #[error("Redis at {0} cannot be reached within engine.redis.connect_timeout")]
    ConnectTimeout(Address),
    /// A reply is overdue.
    #[error("Redis at {0} does not answer within engine.redis.io_timeout")]
    Silent(Address),
    /// The connection was lost.
    #[error("the connection to Redis at {0} was lost: {1}")]
    Lost(Address, String),
    /// The server closed the connection while many bytes were unread.
    #[error(
        "Redis at {0} has closed the connection while {1} bytes and more waited to be read: it does so when publications come \
         faster than this node reads them (client-output-buffer-limit pubsub)"
    )]
    CutOff(Address, usize),
    /// The Sentinels name another master.
    #[error(
        "the Sentinels name {named} as the master, not {used}, which this node has used; it reconnects to {named}"
    )]
    OtherMaster {
        /// Address of the server in use.
        used: Address,
        /// Address of the named master.
        named: Address,
    },
    /// The address leads to a different server than before.
    #[error(
        "{address} now leads to another Redis (run id {found}) than the one that this node has used (run id {used}); it \
         reconnects"
    )]
    OtherServer {
        /// Address of both servers.
        address: Address,
        /// `run_id` of the server in use.
        used: String,
        /// `run_id` of the server found there.
        found: String,
    },
    /// Neither Sentinels nor other nodes confirm that the server is the master.
    #[error(
        "no Sentinel answers, or only a few, and no other node renews its lease at Redis at {0} \
         any more: it may not be the master for others"
    )]
    Alone(Address),
    /// The server closed the connection before its first reply.
    #[error(
        "Redis at {0} closes the connection before it answers; if it expects TLS, engine.redis.address must begin with rediss://"
    )]
    ClosedEarly(Address),
    /// The TLS handshake failed.
    #[error("TLS with Redis at {0} failed: {1} (engine.redis.tls)")]
    Tls(Address, String),
    /// The server does not speak RESP.
    #[error(
        "the server at {0} does not speak the protocol of Redis (engine.redis.address; engine.redis.tls)"
    )]
    NotRedis(Address),
    /// User or password are wrong or missing.
    #[error("Redis at {0} does not accept engine.redis.user and engine.redis.password: {1}")]
    Login(Address, String),
    /// The server's version is too old.
    #[error("Redis at {0} has version {1}; 6.2 or later is needed")]
    TooOld(Address, String),
    /// The server is a replica.
    #[error("Redis at {0} is a replica; engine.redis.address must name the master")]
    Replica(Address),
    /// The server is a Sentinel, but a Redis server is expected.
    #[error(
        "the server at {0} is a Sentinel; engine.redis.address must begin with redis+sentinel://"
    )]
    IsSentinel(Address),
    /// The server is not a Sentinel, but one is expected.
    #[error(
        "the server at {0} is no Sentinel; engine.redis.address must not begin with redis+sentinel://"
    )]
    IsNoSentinel(Address),
    /// The server is part of a cluster, but `redis+cluster://` is not configured.
    #[error(
        "Redis at {0} is part of a cluster; engine.redis.address must begin with redis+cluster://"
    )]
    IsCluster(Address),
    /// The server is not part of a cluster, but `redis+cluster://` is configured.
    #[error(
        "Redis at {0} is not part of a cluster; engine.redis.address must not begin with redis+cluster://"
    )]
    IsNoCluster(Address),
    /// Some slots have no master.
    #[error("the Redis Cluster has slots that no server answers for")]
    Incomplete,
    /// User or password for a Sentinel are wrong or missing.
    #[error(
        "the Sentinel at {0} does not accept engine.redis.sentinel_user and engine.redis.sentinel_password: {1}"
    )]
    SentinelLogin(Address, String),
    /// No Sentinel has answered in time.
    #[error("no Sentinel has answered in time which server is {0:?} (engine.redis.address)")]
    NoSentinel(String),
    /// Fewer than half of the Sentinels name the same server: the others may have elected another
    /// one.
    #[error(
        "only {agree} of {all} Sentinels have named the same server as {master:?} in time, and the \
         others may have elected another master: name all Sentinels of this master, and no \
         others (engine.redis.address)"
    )]
    FewSentinels {
        /// Name of the master at the Sentinels.
        master: String,
        /// Number of Sentinels that name the same server.
        agree: usize,
        /// Number of configured Sentinels.
        all: usize,
    },
    /// No Sentinel monitors a master of this name.
    #[error(
        "no Sentinel knows a master named {0:?} (sentinel_master_name in engine.redis.address)"
    )]
    UnknownMaster(String),
    /// The database cannot be selected.
    #[error("Redis at {0} has no database {1} (engine.redis.db): {2}")]
    Database(Address, u32, String),
    /// The server does not allow scripts.
    #[error(
        "Redis at {0} does not let engine.redis.user use scripts: {1} (docs/clustering.md lists the permissions)"
    )]
    NoScripts(Address, String),
    /// Keys under the prefix hold data of another application.
    #[error(
        "Redis at {0} has data of another application under {1:?}; choose another engine.redis.prefix"
    )]
    Foreign(Address, String),
    /// Other nodes list the servers in another order.
    #[error(
        "Redis at {address} is {found} for other nodes and {wanted} for this one: engine.redis.address must name the same \
         servers in the same order on all nodes. To change them, stop all nodes and remove the key {key} from each server"
    )]
    OtherOrder {
        /// Address of the server.
        address: Address,
        /// Its place in the list of other nodes.
        found: String,
        /// Its place in this node's list.
        wanted: String,
        /// Key that records the place.
        key: String,
    },
    /// The server denies the user a required command, key or channel.
    #[error(
        "Redis at {0} does not let engine.redis.user do what is needed: {1} (docs/clustering.md lists the permissions)"
    )]
    Denied(Address, String),
    /// The server replied with an error.
    #[error("Redis at {0} replied with an error: {1}")]
    Refused(Address, String),
}

impl UnavailableReason {
    /// The text for the operator of a broker that carries these parts: it names the options of that
    /// broker, where the text itself names those of `engine.redis`.
    #[must_use]
    pub fn text(&self, parts: RedisParts) -> String {
        self.to_string().replace(RedisParts::All.options_key(), parts.options_key())
    }

    /// The reason for an error reply.
    pub(super) fn of_answer(address: &Address, text: &[u8]) -> UnavailableReason {
        let (address, shown) = (address.clone(), show(text));
        let contains = |words: &&[u8]| text.windows(words.len()).any(|part| part == *words);
        match text.starts_with(b"NOPERM") || ACL_ERRORS_IN_SCRIPTS.iter().any(contains) {
            true => UnavailableReason::Denied(address, shown),
            false => UnavailableReason::Refused(address, shown),
        }
    }

    /// Whether only a change of options or servers can resolve it; retries go on either way.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            UnavailableReason::Login(..)
                | UnavailableReason::NotRedis(_)
                | UnavailableReason::TooOld(..)
                | UnavailableReason::IsSentinel(_)
                | UnavailableReason::IsCluster(_)
                | UnavailableReason::IsNoCluster(_)
                | UnavailableReason::Database(..)
                | UnavailableReason::NoScripts(..)
                | UnavailableReason::IsNoSentinel(_)
                | UnavailableReason::SentinelLogin(..)
                | UnavailableReason::UnknownMaster(_)
                | UnavailableReason::OtherOrder { .. }
                | UnavailableReason::Denied(..)
                | UnavailableReason::Foreign(..)
        )
    }
}

/// ACL errors inside of scripts, in Redis and in Valkey.
const ACL_ERRORS_IN_SCRIPTS: [&[u8]; 2] =
    [b"The user executing the script can't", b"ACL failure in script"];

/// Server text for messages: without control characters, at most 200 characters.
pub(super) fn show(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_the_options_of_its_broker() {
        let address = || Address { host: "a".to_owned(), port: 1 };
        let reason = UnavailableReason::Login(address(), "WRONGPASS".to_owned());
        assert_eq!(reason.text(RedisParts::All), reason.to_string());
        let text = reason.text(RedisParts::Presence);
        let expected = "presence_manager.redis.user and presence_manager.redis.password";
        assert!(text.contains(expected) && !text.contains("engine.redis"), "{text}");
    }
}
