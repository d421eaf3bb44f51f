//! The channels of every world, and the rules that make them what they are.

use engine::rates::{Bucket, Rate, Rates};
use engine::rules::{Namespace, Permission, RecoveryMode, Rules, SubscribePermission};

use super::node::EXPIRED_CLOSE_DELAY_MS;

/// What a channel is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No stream: at most once.
    Plain,
    /// A stream with recovery.
    Kept,
    /// A stream, gaps are told, nothing is recovered.
    Positioned,
    /// Recovery gives the newest publication.
    Cache,
    /// As kept, with presence, join and leave.
    Room,
    /// As kept, with a subscription token that expires.
    Private,
    /// As kept, subscribed by the server.
    ServerSide,
    /// As kept, with publications so large that not all that is retained fits into a reply.
    Big,
    /// As kept, and clients of the Protobuf protocol publish what is no JSON.
    Mixed,
}

/// A channel of every world.
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
    channel(SERVER_SIDE[0], Kind::ServerSide),
    channel(SERVER_SIDE[1], Kind::ServerSide),
];

const HISTORY_SIZE: u32 = 20;

/// So little is retained in rooms that recoveries begin with a hole.
const ROOM_HISTORY_SIZE: u32 = 6;

/// Less than what is retained elsewhere, so that recoveries end before the top.
const RECOVERY_MAX: u32 = 15;

/// Bytes of publications in one reply at most: all that is retained in the two channels of the
/// server, and not all that is in a big one.
pub(crate) const REPLY_BYTES: usize = 12 * 1024;

impl Kind {
    pub(crate) fn is_positioned(self) -> bool {
        self != Kind::Plain
    }

    pub(crate) fn is_recoverable(self) -> bool {
        !matches!(self, Kind::Plain | Kind::Positioned)
    }

    /// Publications that can be recovered.
    pub(crate) fn history_size(self) -> u64 {
        let size = match self {
            Kind::Plain => 0,
            Kind::Room => ROOM_HISTORY_SIZE,
            _ => HISTORY_SIZE,
        };
        u64::from(size.min(RECOVERY_MAX))
    }
}

/// Rates so low that worlds meet them, with which everybody can still come back with everything, by
/// and by.
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

/// Rules with short times, small bounds, and a namespace for each kind of channel.
pub(crate) fn rules() -> Rules {
    let mut rules = Rules::default();
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
    let namespaces = [
        ("plain", plain),
        ("position", position),
        ("kept", kept.clone()),
        ("server", kept.clone()),
        ("big", kept.clone()),
        ("mixed", kept),
        ("cache", cache),
        ("room", room),
    ];
    rules.channels.namespaces =
        namespaces.into_iter().map(|(name, namespace)| (name.to_owned(), namespace)).collect();
    rules
}

/// What the channel of this name is like.
pub(crate) fn kind_of(channel: &str) -> Kind {
    CHANNELS.iter().find(|one| one.name == channel).map_or(Kind::Plain, |one| one.kind)
}
