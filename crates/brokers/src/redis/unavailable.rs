//! Why Redis is unavailable; each text names the setting to look at.

use super::connection::show;
use super::settings::Address;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnavailableReason {
    /// Nothing has been tried yet.
    #[error("Redis is being connected to")]
    Starting,
    /// The connection works, but nothing has come back through it yet.
    #[error("Redis at {0} has not sent back what this node published to itself")]
    Unverified(Address),
    /// No connection.
    #[error("Redis at {0} cannot be reached: {1} (engine.redis.address)")]
    Unreachable(Address, String),
    /// No connection in time.
    #[error("Redis at {0} cannot be reached within engine.redis.connect_timeout")]
    ConnectTimeout(Address),
    /// An answer is overdue.
    #[error("Redis at {0} does not answer within engine.redis.io_timeout")]
    Silent(Address),
    /// The connection ended.
    #[error("the connection to Redis at {0} was lost: {1}")]
    Lost(Address, String),
    /// The connection was ended by the server while much waited to be read.
    #[error(
        "Redis at {0} has closed the connection while {1} bytes and more waited to be read: it does so when publications come \
         faster than this node reads them (client-output-buffer-limit pubsub)"
    )]
    CutOff(Address, usize),
    /// The Sentinels name another server.
    #[error(
        "the Sentinels name {named} as the master, not {used}, which this node has used; it goes there"
    )]
    OtherMaster {
        /// Where this node was.
        used: Address,
        /// Where it belongs.
        named: Address,
    },
    /// The address leads to another server than it did.
    #[error(
        "{address} leads to another Redis by now (run id {found}) than the one that this node has used (run id {used}); it \
         goes there"
    )]
    OtherServer {
        /// Where.
        address: Address,
        /// Who was there.
        used: String,
        /// Who is.
        found: String,
    },
    /// Neither Sentinels nor other nodes confirm that it is the master.
    #[error(
        "no Sentinel answers, or only a few, and no other node renews its lease at Redis at {0} \
         any more: it may not be the master for others"
    )]
    Alone(Address),
    /// The connection ended before anything was said.
    #[error(
        "Redis at {0} ends the connection before it answers; if it expects TLS, engine.redis.address must begin with rediss://"
    )]
    ClosedEarly(Address),
    /// TLS failed.
    #[error("TLS with Redis at {0} failed: {1} (engine.redis.tls)")]
    Tls(Address, String),
    /// It speaks something else.
    #[error(
        "the server at {0} does not speak the protocol of Redis (engine.redis.address; engine.redis.tls)"
    )]
    NotRedis(Address),
    /// User or password are wrong, or missing.
    #[error("Redis at {0} does not accept engine.redis.user and engine.redis.password: {1}")]
    Login(Address, String),
    /// It is too old.
    #[error("Redis at {0} has version {1}; 6.2 or later is needed")]
    TooOld(Address, String),
    /// It follows another server.
    #[error("Redis at {0} is a replica; engine.redis.address must name the master")]
    Replica(Address),
    /// It is a Sentinel.
    #[error(
        "the server at {0} is a Sentinel; engine.redis.address must begin with redis+sentinel://"
    )]
    IsSentinel(Address),
    /// It is no Sentinel.
    #[error(
        "the server at {0} is no Sentinel; engine.redis.address must not begin with redis+sentinel://"
    )]
    IsNoSentinel(Address),
    /// It is part of a cluster.
    #[error(
        "Redis at {0} is part of a cluster; engine.redis.address must begin with redis+cluster://"
    )]
    IsCluster(Address),
    /// It is not part of a cluster.
    #[error(
        "Redis at {0} is not part of a cluster; engine.redis.address must not begin with redis+cluster://"
    )]
    IsNoCluster(Address),
    /// Some slots are served by nobody.
    #[error("the Redis Cluster has slots that no server answers for")]
    Incomplete,
    /// User or password for a Sentinel are wrong, or missing.
    #[error(
        "the Sentinel at {0} does not accept engine.redis.sentinel_user and engine.redis.sentinel_password: {1}"
    )]
    SentinelLogin(Address, String),
    /// No Sentinel has answered.
    #[error("no Sentinel says in time which server is {0:?} (engine.redis.address)")]
    NoSentinel(String),
    /// Fewer than half of the Sentinels name one server: the others may have elected another one.
    #[error(
        "only {agree} of {all} Sentinels say in time that the same server is {master:?}, and the \
         others may have made another one the master: name all Sentinels of this master, and no \
         others (engine.redis.address)"
    )]
    FewSentinels {
        /// The name of the master.
        master: String,
        /// How many name the same server.
        agree: usize,
        /// How many are configured.
        all: usize,
    },
    /// No Sentinel knows the master.
    #[error(
        "no Sentinel knows a master named {0:?} (sentinel_master_name in engine.redis.address)"
    )]
    UnknownMaster(String),
    /// The database cannot be used.
    #[error("Redis at {0} has no database {1} (engine.redis.db): {2}")]
    Database(Address, u32, String),
    /// Scripts cannot be used.
    #[error(
        "Redis at {0} does not let engine.redis.user use scripts: {1} (docs/clustering.md says what it needs)"
    )]
    NoScripts(Address, String),
    /// Our keys hold what we have not written.
    #[error(
        "Redis at {0} has data of something else under {1:?}; choose another engine.redis.prefix"
    )]
    Foreign(Address, String),
    /// Other nodes know it under another number.
    #[error(
        "Redis at {address} is {found} for other nodes and {wanted} for this one: engine.redis.address must name the same \
         servers in the same order on all nodes. To change them, stop all nodes and remove the key {key} from each server"
    )]
    OtherOrder {
        /// Which server.
        address: Address,
        /// What it is for others.
        found: String,
        /// What it is here.
        wanted: String,
        /// Where that is written.
        key: String,
    },
    /// It does not let the user do something that is needed.
    #[error(
        "Redis at {0} does not let engine.redis.user do what is needed: {1} (docs/clustering.md says what that is)"
    )]
    Denied(Address, String),
    /// It refuses to work.
    #[error("Redis at {0} refuses: {1}")]
    Refused(Address, String),
}

impl UnavailableReason {
    /// What an answer that is an error says.
    pub(super) fn of_answer(address: &Address, text: &[u8]) -> UnavailableReason {
        let (address, shown) = (address.clone(), show(text));
        let says = |words: &&[u8]| text.windows(words.len()).any(|part| part == *words);
        match text.starts_with(b"NOPERM") || NO_RIGHT.iter().any(says) {
            true => UnavailableReason::Denied(address, shown),
            false => UnavailableReason::Refused(address, shown),
        }
    }

    /// Whether only somebody who changes settings or servers can mend it.
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

/// How scripts of Redis and of Valkey say that their user may not do something.
const NO_RIGHT: [&[u8]; 2] = [b"The user executing the script can't", b"ACL failure in script"];
