//! What is allowed and how much: namespaces, channel names and client limits, as resolved
//! configuration.
//!
//! Values here are valid by construction of the configuration; the engine never re-checks them
//! against each other. Names follow the options of the protocol description (§5.1 – 5.4).

use std::collections::BTreeMap;

use regex::Regex;

use crate::limits::{SYSTEM_HISTORY_SIZE, SYSTEM_HISTORY_TTL_MS};
use crate::rates::Rates;

/// Everything that a worker decides by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How channel names are read, and their namespaces.
    pub channels: ChannelRules,
    /// What one client may use.
    pub client: ClientRules,
    /// How often something may be done.
    pub rates: Rates,
    /// Reported to clients as the server's version.
    pub version: String,
}

/// How channel names are read (§5.1).
#[derive(Clone, Debug)]
pub struct ChannelRules {
    /// Bytes of a channel name at most.
    pub max_length: usize,
    /// A channel that starts so needs a subscription token; empty turns the feature off.
    pub private_prefix: String,
    /// Separates the namespace from the rest; empty turns namespaces off.
    pub namespace_boundary: String,
    /// Separates the allowed users from the rest.
    pub user_boundary: String,
    /// Separates users from each other.
    pub user_separator: String,
    /// Options of channels without a namespace.
    pub without_namespace: Namespace,
    /// Options by namespace.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Options of the channels of the server itself, under [`crate::channel::SYSTEM`].
    pub system: Namespace,
}

/// Options of one namespace (§5.2).
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Channels of the server itself: clients come in with a subscription token only.
    pub is_system: bool,
    /// Keep who is online.
    pub presence: bool,
    /// Tell when somebody joins or leaves.
    pub join_leave: bool,
    /// Deliver join and leave to all subscribers, asked for or not.
    pub force_push_join_leave: bool,
    /// Publications retained; 0 turns history off.
    pub history_size: u32,
    /// Milliseconds that publications are retained; 0 turns history off.
    pub history_ttl_ms: u64,
    /// Milliseconds that a channel lasts from its first subscriber on; 0 for channels that do not
    /// end.
    pub channel_ttl_ms: u64,
    /// Milliseconds that offset and epoch are kept after the last publication.
    pub history_meta_ttl_ms: u64,
    /// Gap detection for every subscription.
    pub force_positioning: bool,
    /// Gap detection for those that ask.
    pub allow_positioning: bool,
    /// Recovery for every subscription.
    pub force_recovery: bool,
    /// Recovery for those that ask.
    pub allow_recovery: bool,
    /// What recovery delivers.
    pub recovery_mode: RecoveryMode,
    /// In cache mode, deliver the newest publication even to those without a position.
    pub auto_cache_recover: bool,
    /// Who may subscribe without a token.
    pub subscribe: SubscribePermission,
    /// Who may publish.
    pub publish: Permission,
    /// Who may read presence and get join and leave.
    pub presence_read: Permission,
    /// Who may read history, and so ask for positioning and recovery.
    pub history_read: Permission,
    /// What holders of a role may do besides.
    pub roles: RolePermissions,
    /// Whether `name#user1,user2` admits the users listed.
    pub allow_user_limited_channels: bool,
    /// What the name behind the namespace must match; without it the name must be ASCII.
    pub channel_regex: Option<Regex>,
    /// What payloads must look like.
    pub publication_data_format: DataFormat,
}

/// Who may subscribe without a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribePermission {
    /// Users with an id may.
    pub client: bool,
    /// Anonymous users may too.
    pub anonymous: bool,
}

/// Who may do something in a channel (§5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// Every client may.
    pub client: bool,
    /// Subscribers of the channel may.
    pub subscriber: bool,
    /// Anonymous users may too, when one of the others holds.
    pub anonymous: bool,
}

/// Roles that may do something in a channel, whoever has them; a role is a claim of the connection
/// token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolePermissions {
    /// Roles that may subscribe without a subscription token.
    pub subscribe: Vec<String>,
    /// Roles that may publish.
    pub publish: Vec<String>,
    /// Roles that may read presence and get join and leave.
    pub presence: Vec<String>,
    /// Roles that may read history, and so ask for positioning and recovery.
    pub history: Vec<String>,
}

/// What a recovering subscriber gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Everything missed.
    #[default]
    Stream,
    /// The newest publication.
    Cache,
}

/// What payloads of a channel must look like (`publication_data_format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataFormat {
    /// Anything but nothing.
    #[default]
    NonEmpty,
    /// A JSON value.
    Json,
    /// A JSON object.
    JsonObject,
    /// Anything, also nothing.
    Binary,
}

/// What one client may use, and its timeouts (§5.4). All times in milliseconds.
#[derive(Clone, Debug)]
pub struct ClientRules {
    /// All permissions granted and no expiry; for development.
    pub insecure: bool,
    /// Admit clients without a token as the anonymous user.
    pub allow_anonymous_connect_without_token: bool,
    /// Refuse tokens without a user.
    pub disallow_anonymous_connection_tokens: bool,
    /// Subscriptions of one session at most.
    pub channel_limit: usize,
    /// Bytes queued towards one client at most; beyond that it is slow (3008).
    pub queue_max_size: usize,
    /// Time to say connect.
    pub stale_close_delay_ms: u64,
    /// Grace after the connection's lifetime.
    pub expired_close_delay_ms: u64,
    /// Grace after a subscription's lifetime.
    pub expired_sub_close_delay_ms: u64,
    /// Time between pings; 0 turns pings off.
    pub ping_interval_ms: u64,
    /// Time to answer a ping; 0 means that answers are not expected. Less than the interval.
    pub pong_timeout_ms: u64,
    /// Time between checks of a channel's position with the broker.
    pub position_check_delay_ms: u64,
    /// Publications of one history reply at most.
    pub history_max_publication_limit: u32,
    /// Publications of one recovery at most.
    pub recovery_max_publication_limit: u32,
    /// Whether the connect reply carries the server's time.
    pub connect_include_server_time: bool,
    /// How long a client whose connection ended stays in its channels for others, so that it is
    /// back before it has left.
    pub leave_grace_ms: u64,
    /// Tell backends when clients come and go (`lifecycle.enabled`).
    pub sends_lifecycle: bool,
    /// Subscribe each user to a channel of its own.
    pub personal_channel: Option<PersonalChannel>,
}

/// `client.subscribe_to_user_personal_channel` when enabled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersonalChannel {
    /// Namespace of the personal channels; empty for none.
    pub namespace: String,
    /// A new connection of a user ends the user's others (3504).
    pub single_connection: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            channels: ChannelRules::default(),
            client: ClientRules::default(),
            rates: Rates::default(),
            version: "0.0.0".to_owned(),
        }
    }
}

impl Default for ChannelRules {
    fn default() -> ChannelRules {
        ChannelRules {
            max_length: 255,
            private_prefix: "$".to_owned(),
            namespace_boundary: ":".to_owned(),
            user_boundary: "#".to_owned(),
            user_separator: ",".to_owned(),
            without_namespace: Namespace::default(),
            namespaces: BTreeMap::new(),
            system: Namespace {
                is_system: true,
                history_size: SYSTEM_HISTORY_SIZE,
                history_ttl_ms: SYSTEM_HISTORY_TTL_MS,
                history_meta_ttl_ms: SYSTEM_HISTORY_TTL_MS,
                force_recovery: true,
                publication_data_format: DataFormat::JsonObject,
                ..Namespace::default()
            },
        }
    }
}

impl Default for ClientRules {
    fn default() -> ClientRules {
        ClientRules {
            insecure: false,
            allow_anonymous_connect_without_token: false,
            disallow_anonymous_connection_tokens: false,
            channel_limit: 128,
            queue_max_size: 1_048_576,
            stale_close_delay_ms: 10_000,
            expired_close_delay_ms: 25_000,
            expired_sub_close_delay_ms: 25_000,
            ping_interval_ms: 25_000,
            pong_timeout_ms: 8_000,
            position_check_delay_ms: 40_000,
            history_max_publication_limit: 300,
            recovery_max_publication_limit: 300,
            connect_include_server_time: false,
            leave_grace_ms: 0,
            sends_lifecycle: true,
            personal_channel: None,
        }
    }
}
