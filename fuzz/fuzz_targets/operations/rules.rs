//! The rules of the fuzzed worker: one namespace for each feature, low limits, short times.

use engine::rules::{Namespace, Permission, RecoveryMode, Rules, SubscribePermission};

/// The channels in use. The last one belongs to no existing namespace.
pub const CHANNELS: [&str; 9] = [
    "plain",
    "kept:a",
    "kept:b",
    "brief:a",
    "people:x",
    "closed:a",
    "closedkept:a",
    "cache:a",
    "nope:a",
];

/// The users; the first is anonymous.
pub const USERS: [&str; 3] = ["", "ann", "bob"];

/// Maximum number of subscriptions of one session.
pub const CHANNEL_LIMIT: usize = 4;

/// Maximum bytes queued for a blocked socket.
pub const QUEUE_MAX_SIZE: usize = 1_500;

/// Milliseconds between two checks of a silent channel's position.
pub const POSITION_CHECK_DELAY_MS: u64 = 4_000;

pub fn channel(choice: u8) -> &'static str {
    CHANNELS[usize::from(choice) % CHANNELS.len()]
}

pub fn user(choice: u8) -> &'static str {
    USERS[usize::from(choice) % USERS.len()]
}

/// Whether a subscription may deliver the newest publication again.
pub fn is_cache(channel: &str) -> bool {
    channel.starts_with("cache:")
}

pub fn rules() -> Rules {
    let mut rules = Rules::default();
    let client = &mut rules.client;
    client.channel_limit = CHANNEL_LIMIT;
    client.queue_max_size = QUEUE_MAX_SIZE;
    client.stale_close_delay_ms = 5_000;
    client.expired_close_delay_ms = 2_000;
    client.expired_sub_close_delay_ms = 2_000;
    client.ping_interval_ms = 10_000;
    client.pong_timeout_ms = 3_000;
    client.position_check_delay_ms = POSITION_CHECK_DELAY_MS;
    client.history_max_publication_limit = 5;
    client.recovery_max_publication_limit = 3;
    client.allow_anonymous_connect_without_token = true;
    let everybody = Permission { client: true, subscriber: true, anonymous: true };
    let open = Namespace {
        subscribe: SubscribePermission { client: true, anonymous: true },
        publish: everybody,
        presence_read: everybody,
        history_read: everybody,
        ..Namespace::default()
    };
    let kept = Namespace {
        history_size: 4,
        history_ttl_ms: 60_000,
        history_meta_ttl_ms: 60_000,
        force_recovery: true,
        ..open.clone()
    };
    let brief = Namespace { history_ttl_ms: 500, history_meta_ttl_ms: 1_000, ..kept.clone() };
    let cache =
        Namespace { recovery_mode: RecoveryMode::Cache, auto_cache_recover: true, ..kept.clone() };
    let people =
        Namespace { presence: true, join_leave: true, force_push_join_leave: true, ..open.clone() };
    let by_token = SubscribePermission::default();
    let namespaces = [
        ("kept", kept.clone()),
        ("brief", brief),
        ("people", people),
        ("closed", Namespace { subscribe: by_token, ..open.clone() }),
        ("closedkept", Namespace { subscribe: by_token, ..kept }),
        ("cache", cache),
    ];
    rules.channels.namespaces =
        namespaces.into_iter().map(|(name, namespace)| (name.to_owned(), namespace)).collect();
    rules.channels.without_namespace = open;
    rules
}
