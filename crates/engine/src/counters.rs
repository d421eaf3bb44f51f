//! Counters of a worker. They only grow; the driver turns them into metrics.

use crate::rates::BUCKETS;

/// Totals of one worker since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Sessions whose connect command was accepted.
    pub sessions_connected: u64,
    /// Commands handled, in the order of [`CommandKind::ALL`].
    pub commands: [u64; CommandKind::ALL.len()],
    /// Error replies.
    pub error_replies: u64,
    /// Publications, joins and leaves put into outboxes.
    pub deliveries: u64,
    /// Publications received from the broker.
    pub publications: u64,
    /// Subscriptions that became active.
    pub subscriptions_joined: u64,
    /// Recoveries that delivered every missed publication.
    pub recoveries_whole: u64,
    /// Recoveries that could not deliver every missed publication.
    pub recoveries_refused: u64,
    /// Publications delivered by recovery.
    pub recovered_publications: u64,
    /// Gaps detected and reported to the client.
    pub gaps_reported: u64,
    /// Requests refused by rate limits, in the order of [`crate::rates::Bucket::ALL`].
    pub limited: [u64; BUCKETS],
}

impl Counters {
    /// Adds the totals of another worker.
    pub fn add(&mut self, other: &Counters) {
        // Destructured without `..`, so that a new counter cannot be forgotten here.
        let Counters {
            sessions_opened,
            sessions_connected,
            commands,
            error_replies,
            deliveries,
            publications,
            subscriptions_joined,
            recoveries_whole,
            recoveries_refused,
            recovered_publications,
            gaps_reported,
            limited,
        } = other;
        self.sessions_opened += sessions_opened;
        self.sessions_connected += sessions_connected;
        for (total, count) in self.commands.iter_mut().zip(commands) {
            *total += count;
        }
        self.error_replies += error_replies;
        self.deliveries += deliveries;
        self.publications += publications;
        self.subscriptions_joined += subscriptions_joined;
        self.recoveries_whole += recoveries_whole;
        self.recoveries_refused += recoveries_refused;
        self.recovered_publications += recovered_publications;
        self.gaps_reported += gaps_reported;
        for (total, count) in self.limited.iter_mut().zip(limited) {
            *total += count;
        }
    }
}

/// The kind of a command, for counters and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// `connect`
    Connect,
    /// `subscribe`
    Subscribe,
    /// `unsubscribe`
    Unsubscribe,
    /// `publish`
    Publish,
    /// `presence`
    Presence,
    /// `presence_stats`
    PresenceStats,
    /// `history`
    History,
    /// `rpc`
    Rpc,
    /// `send`
    Send,
    /// `refresh`
    Refresh,
    /// `sub_refresh`
    SubRefresh,
    /// `ping`
    Ping,
    /// The empty command, which answers a ping.
    Pong,
    /// A command without a known request.
    Unknown,
}

impl CommandKind {
    /// All kinds, in the order of [`Counters::commands`].
    pub const ALL: &'static [CommandKind] = &[
        CommandKind::Connect,
        CommandKind::Subscribe,
        CommandKind::Unsubscribe,
        CommandKind::Publish,
        CommandKind::Presence,
        CommandKind::PresenceStats,
        CommandKind::History,
        CommandKind::Rpc,
        CommandKind::Send,
        CommandKind::Refresh,
        CommandKind::SubRefresh,
        CommandKind::Ping,
        CommandKind::Pong,
        CommandKind::Unknown,
    ];

    /// Returns the name used in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CommandKind::Connect => "connect",
            CommandKind::Subscribe => "subscribe",
            CommandKind::Unsubscribe => "unsubscribe",
            CommandKind::Publish => "publish",
            CommandKind::Presence => "presence",
            CommandKind::PresenceStats => "presence_stats",
            CommandKind::History => "history",
            CommandKind::Rpc => "rpc",
            CommandKind::Send => "send",
            CommandKind::Refresh => "refresh",
            CommandKind::SubRefresh => "sub_refresh",
            CommandKind::Ping => "ping",
            CommandKind::Pong => "client_pong",
            CommandKind::Unknown => "unknown",
        }
    }
}
