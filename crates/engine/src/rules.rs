//! Permissions and limits: namespaces, channel names and client limits, as resolved from the
//! configuration.
//!
//! Values are valid by construction; the engine does not check them against each other. Names
//! follow the options in docs/configuration.md.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;

use crate::limits::{SYSTEM_HISTORY_SIZE, SYSTEM_HISTORY_TTL_MS};
use crate::rates::Rates;
pub use crate::rpc_rules::RpcRules;

/// The configuration of a worker.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How channel names are parsed, and their namespaces.
    pub channels: ChannelRules,
    /// Limits and timeouts of one client.
    pub client: ClientRules,
    /// Rate limits.
    pub rates: Rates,
    /// Backends of RPC methods.
    pub rpc: RpcRules,
    /// Server version reported to clients.
    pub version: String,
}

/// How channel names are parsed.
#[derive(Clone, Debug)]
pub struct ChannelRules {
    /// Maximum bytes of a channel name.
    pub max_length: usize,
    /// Prefix of channels that require a subscription token; empty turns the feature off.
    pub private_prefix: String,
    /// Separates the namespace from the rest; empty turns namespaces off.
    pub namespace_boundary: String,
    /// Separates the list of admitted users from the rest.
    pub user_boundary: String,
    /// Separates users within the list.
    pub user_separator: String,
    /// Options of channels without a namespace.
    pub without_namespace: Namespace,
    /// Options by namespace.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Options of the server's own channels, below [`crate::channel::SYSTEM`].
    pub system: Namespace,
}

/// Options of one namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    /// Whether these are the server's own channels, which clients enter with a subscription token
    /// only.
    pub is_system: bool,
    /// Whether presence is stored.
    pub presence: bool,
    /// Whether joins and leaves are published.
    pub join_leave: bool,
    /// Whether all subscribers receive joins and leaves, requested or not.
    pub force_push_join_leave: bool,
    /// Maximum number of retained publications; 0 turns history off.
    pub history_size: u32,
    /// Milliseconds for which publications are retained; 0 turns history off.
    pub history_ttl_ms: u64,
    /// Milliseconds after its first subscriber at which a channel expires; 0 never expires.
    pub channel_ttl_ms: u64,
    /// Milliseconds for which offset and epoch are stored after the last publication.
    pub history_meta_ttl_ms: u64,
    /// Whether gaps are detected for every subscription.
    pub force_positioning: bool,
    /// Whether gaps are detected for subscriptions that request it.
    pub allow_positioning: bool,
    /// Whether every subscription can recover.
    pub force_recovery: bool,
    /// Whether subscriptions that request it can recover.
    pub allow_recovery: bool,
    /// What a recovery delivers.
    pub recovery_mode: RecoveryMode,
    /// In cache mode, deliver the newest publication also to subscribers without a position.
    pub auto_cache_recover: bool,
    /// Who may subscribe without a token.
    pub subscribe: SubscribePermission,
    /// Who may publish.
    pub publish: Permission,
    /// Who may read presence and get join and leave.
    pub presence_read: Permission,
    /// Who may read history, and so ask for positioning and recovery.
    pub history_read: Permission,
    /// Operations that roles permit (`allow_*_for_roles`).
    pub roles: RolePermissions,
    /// Whether `name#user1,user2` admits the users listed.
    pub allow_user_limited_channels: bool,
    /// Pattern that the name after the namespace must match; without it the name must be ASCII.
    pub channel_regex: Option<Regex>,
    /// Required format of payloads.
    pub publication_data_format: DataFormat,
    /// Name of the proxy that decides on subscribe commands without a token; `None` for none.
    pub subscribe_proxy: Option<Arc<str>>,
    /// Name of the proxy that decides on publish commands; `None` for none.
    pub publish_proxy: Option<Arc<str>>,
    /// Name of the proxy that decides whether expired subscriptions continue; with `None` clients
    /// refresh them by tokens.
    pub sub_refresh_proxy: Option<Arc<str>>,
}

/// Who may subscribe without a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribePermission {
    /// Whether users with an id may subscribe.
    pub client: bool,
    /// Whether anonymous users may subscribe.
    pub anonymous: bool,
}

/// Who may perform an operation in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// Whether every client may.
    pub client: bool,
    /// Whether subscribers of the channel may.
    pub subscriber: bool,
    /// Whether anonymous users may, if one of the others applies.
    pub anonymous: bool,
}

/// Roles with permissions in a channel. A role is a claim of the connection token.
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

/// What a recovery delivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Every missed publication.
    #[default]
    Stream,
    /// The newest publication.
    Cache,
}

/// Required format of payloads (`publication_data_format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataFormat {
    /// Any bytes, at least one.
    #[default]
    NonEmpty,
    /// A JSON value.
    Json,
    /// A JSON object.
    JsonObject,
    /// Any bytes, possibly none.
    Binary,
}

/// Limits and timeouts of one client. All times are in milliseconds.
#[derive(Clone, Debug)]
pub struct ClientRules {
    /// Grants all permissions and ignores expiry; for development.
    pub insecure: bool,
    /// Admits clients without a token as the anonymous user.
    pub allow_anonymous_connect_without_token: bool,
    /// Rejects tokens without a user.
    pub disallow_anonymous_connection_tokens: bool,
    /// Whether a proxy decides on connect commands without a token.
    pub connect_proxy: bool,
    /// Whether a proxy decides if expired connections continue; otherwise clients refresh them by
    /// tokens.
    pub refresh_proxy: bool,
    /// Names, in lower case, of the headers of the connect command that proxies get.
    pub emulated_headers: Vec<String>,
    /// Maximum number of subscriptions of one session.
    pub channel_limit: usize,
    /// Maximum number of calls of one session in progress, such as tokens being verified; at least
    /// one. Further commands wait.
    pub concurrency: usize,
    /// Maximum bytes queued for one client; a client above it is slow (3008).
    pub queue_max_size: usize,
    /// Time from the handshake until the connect command must be accepted.
    pub stale_close_delay_ms: u64,
    /// Time after a connection's expiry within which the client can refresh its token.
    pub expired_close_delay_ms: u64,
    /// Time after a subscription's expiry within which the client can refresh its token.
    pub expired_sub_close_delay_ms: u64,
    /// Time between pings; 0 turns pings off.
    pub ping_interval_ms: u64,
    /// Time within which a ping must be answered; 0 expects no answers. Less than the interval.
    pub pong_timeout_ms: u64,
    /// Time between comparisons of a channel's position with the broker.
    pub position_check_delay_ms: u64,
    /// Maximum number of publications in one history reply.
    pub history_max_publication_limit: u32,
    /// Maximum number of publications in one recovery.
    pub recovery_max_publication_limit: u32,
    /// Whether the connect reply carries the server's time.
    pub connect_include_server_time: bool,
    /// Time for which a disconnected client's leave messages are delayed, so that a client that
    /// reconnects within it never appears to have left.
    pub leave_grace_ms: u64,
    /// Whether lifecycle events are published (`lifecycle.enabled`).
    pub sends_lifecycle: bool,
    /// Events that the server gets as effects.
    pub reports: ReportedEvents,
    /// Subscribes each user to a personal channel.
    pub personal_channel: Option<PersonalChannel>,
}

/// Events that the server gets as [`crate::Effect::Event`]. None by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportedEvents {
    /// Clients that connect and disconnect.
    pub clients: bool,
    /// Subscriptions that become active and end.
    pub subscriptions: bool,
}

/// Options of `client.subscribe_to_user_personal_channel`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersonalChannel {
    /// Namespace of the personal channels; empty for none.
    pub namespace: String,
    /// Whether a new connection closes the user's other connections (3504).
    pub single_connection: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            channels: ChannelRules::default(),
            client: ClientRules::default(),
            rates: Rates::default(),
            rpc: RpcRules::default(),
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
            connect_proxy: false,
            refresh_proxy: false,
            emulated_headers: Vec::new(),
            channel_limit: 128,
            concurrency: 64,
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
            reports: ReportedEvents::default(),
            personal_channel: None,
        }
    }
}
