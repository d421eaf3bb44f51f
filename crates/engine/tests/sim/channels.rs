//! The channels of every simulation, and the rules that give them their properties.

use std::sync::Arc;

use engine::rates::{Bucket, Rate, Rates};
use engine::rules::{
    Namespace, Permission, RecoveryMode, ReportedEvents, Rules, SubscribePermission,
};

use super::node::EXPIRED_CLOSE_DELAY_MS;

/// The properties of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No stream: at-most-once delivery.
    Plain,
    /// A stream with recovery.
    Kept,
    /// A stream with gap detection, without recovery.
    Positioned,
    /// A recovery returns the newest publication.
    Cache,
    /// As `Kept`, with presence, join and leave.
    Room,
    /// As `Kept`, with a subscription token that expires.
    Private,
    /// As `Kept`, subscribed by the server.
    ServerSide,
    /// As `Kept`, with publications so large that not all retained ones fit into a reply.
    Big,
    /// As `Kept`; backends decide on subscriptions, their expiry and publications.
    Asked,
    /// As `Kept`; clients of the Protobuf protocol publish data that is not JSON.
    Mixed,
}

/// A channel of every simulation.
pub(crate) struct Channel {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

const fn channel(name: &'static str, kind: Kind) -> Channel {
    Channel { name, kind }
}

pub(crate) const SERVER_SIDE: [&str; 2] = ["server:a", "server:b"];

pub(crate) const CHANNELS: &[Channel] = &[
    channel("plain:a", Kind::Plain),
    channel("kept:a", Kind::Kept),
    channel("kept:b", Kind::Kept),
    channel("position:a", Kind::Positioned),
    channel("cache:a", Kind::Cache),
    channel("room:a", Kind::Room),
    channel("room:b", Kind::Room),
    channel("$kept:p", Kind::Private),
    channel("big:a", Kind::Big),
    channel("mixed:a", Kind::Mixed),
    channel("asked:a", Kind::Asked),
    channel("asked:b", Kind::Asked),
    channel(SERVER_SIDE[0], Kind::ServerSide),
    channel(SERVER_SIDE[1], Kind::ServerSide),
];

/// Maximum number of calls of one session in progress: fewer than clients make at once.
pub(crate) const CONCURRENCY: usize = 3;

const HISTORY_SIZE: u32 = 20;

/// So few are retained in rooms that recoveries start with a gap.
const ROOM_HISTORY_SIZE: u32 = 6;

/// Fewer than are retained elsewhere, so that recoveries end before the top.
const RECOVERY_MAX: u32 = 15;

/// Maximum bytes of publications in one reply: all that the two server-side channels retain, and
/// not all that a big one does.
pub(crate) const REPLY_BYTES: usize = 12 * 1024;

impl Kind {
    pub(crate) fn is_positioned(self) -> bool {
        self != Kind::Plain
    }

    pub(crate) fn is_recoverable(self) -> bool {
        !matches!(self, Kind::Plain | Kind::Positioned)
    }

    /// Number of publications that can be recovered.
    pub(crate) fn history_size(self) -> u64 {
        let size = match self {
            Kind::Plain => 0,
            Kind::Room => ROOM_HISTORY_SIZE,
            _ => HISTORY_SIZE,
        };
        u64::from(size.min(RECOVERY_MAX))
    }
}

/// Rates so low that simulations reach them, and high enough that every client can recover
/// everything over time.
pub(crate) fn rates() -> Rates {
    Rates::new(|bucket| match bucket {
        Bucket::ConnectionCommands => Rate::new(5, 1_000, 20),
        Bucket::ConnectionPublishes => Rate::new(1, 60_000, 1),
        Bucket::ConnectionSubscribes => Rate::new(1, 1_000, 5),
        Bucket::ConnectionNewChannels => Rate::new(1, 1_000, 2),
        Bucket::ConnectionBytes => Rate::new(300, 1_000, 1_500),
        Bucket::ConnectionRefusals => Rate::new(1, 1_000, 8),
        Bucket::UserPublishes => Rate::new(1, 20_000, 1),
        Bucket::UserConnects => Rate::new(1, 1_000, 2),
        _ => None,
    })
}

/// Rules with short times, low limits, and a namespace for each kind of channel.
pub(crate) fn rules() -> Rules {
    let mut rules = Rules::default();
    rules.client.reports = ReportedEvents { clients: true, subscriptions: true };
    let client = &mut rules.client;
    client.queue_max_size = 2 * REPLY_BYTES;
    client.stale_close_delay_ms = 10_000;
    client.expired_close_delay_ms = EXPIRED_CLOSE_DELAY_MS as u64;
    client.expired_sub_close_delay_ms = 3_000;
    client.ping_interval_ms = 5_000;
    client.pong_timeout_ms = 2_000;
    client.position_check_delay_ms = 10_000;
    client.recovery_max_publication_limit = RECOVERY_MAX;
    client.allow_anonymous_connect_without_token = true;
    client.connect_proxy = true;
    client.concurrency = CONCURRENCY;
    let everybody = Permission { client: true, subscriber: true, anonymous: true };
    let plain = Namespace {
        subscribe: SubscribePermission { client: true, anonymous: true },
        publish: everybody,
        presence_read: everybody,
        history_read: everybody,
        ..Namespace::default()
    };
    let position = Namespace {
        history_size: HISTORY_SIZE,
        history_ttl_ms: 3_600_000,
        history_meta_ttl_ms: 3_600_000,
        force_positioning: true,
        ..plain.clone()
    };
    let kept = Namespace { force_recovery: true, ..position.clone() };
    let cache = Namespace { recovery_mode: RecoveryMode::Cache, ..kept.clone() };
    let room = Namespace {
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        history_size: ROOM_HISTORY_SIZE,
        ..kept.clone()
    };
    let proxy: Option<Arc<str>> = Some("default".into());
    let asked = Namespace {
        subscribe_proxy: proxy.clone(),
        publish_proxy: proxy.clone(),
        sub_refresh_proxy: proxy.clone(),
        ..kept.clone()
    };
    rules.rpc.without_namespace = proxy;
    let namespaces = [
        ("plain", plain),
        ("position", position),
        ("kept", kept.clone()),
        ("server", kept.clone()),
        ("big", kept.clone()),
        ("asked", asked),
        ("mixed", kept),
        ("cache", cache),
        ("room", room),
    ];
    rules.channels.namespaces =
        namespaces.into_iter().map(|(name, namespace)| (name.to_owned(), namespace)).collect();
    rules
}

/// The kind of the channel with this name.
pub(crate) fn kind_of(channel: &str) -> Kind {
    CHANNELS.iter().find(|one| one.name == channel).map_or(Kind::Plain, |one| one.kind)
}
