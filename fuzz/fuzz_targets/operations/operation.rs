//! The operations of a list, and how a peer's choice becomes a command.

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use wire::protocol::{
    Codec, ConnectRequest, HistoryRequest, PublishRequest, Request, StreamPosition,
    SubRefreshRequest, SubscribeRequest,
};

use crate::rules::channel;

/// Bytes of one operation. All have the same length, so that lists can be cut and joined anywhere.
pub const RECORD: usize = 20;

/// Reads a list of operations; missing bytes of the last record are zero.
pub fn read(input: &[u8]) -> impl Iterator<Item = Operation> {
    input.chunks(RECORD).filter_map(|record| Unstructured::new(record).arbitrary().ok())
}

/// An operation. Sessions, verdicts and channels are chosen by number, modulo their count.
#[derive(Arbitrary, Debug)]
pub enum Operation {
    Open {
        manner: Manner,
    },
    /// A peer adds a command to its current message, which it sends unless it continues.
    Say {
        peer: u8,
        goes_on: bool,
        say: Say,
    },
    /// A peer sends one message of any bytes, up to the first zero.
    Babble {
        peer: u8,
        bytes: [u8; 8],
    },
    PongFrame {
        peer: u8,
    },
    Verdict {
        which: u8,
        verdict: Judged,
    },
    /// The oldest broker events are delivered.
    Events {
        count: u8,
    },
    /// The oldest broker event is lost, unless it is a reply.
    Lose,
    /// The oldest broker event, if it is a reply, becomes an error.
    Fail,
    /// A broker event overtakes those of other channels.
    Overtake {
        which: u8,
    },
    /// The API publishes.
    Publish {
        channel: u8,
    },
    /// The API removes a channel's history.
    Forget {
        channel: u8,
    },
    Order {
        user: u8,
        order: Ordered,
    },
    /// Tenths of a second.
    Pass {
        tenths: u8,
    },
    /// The socket accepts this many more bytes, and then none.
    Block {
        peer: u8,
        room: u8,
    },
    Unblock {
        peer: u8,
    },
    /// The driver closes a session.
    Close {
        peer: u8,
    },
    /// The socket is closed.
    Cut {
        peer: u8,
    },
    /// Effects are performed and sockets written.
    Turn,
}

/// Parameters of a session.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Manner {
    pub is_protobuf: bool,
    pub deflate: bool,
    pub pings_in_frames: bool,
    /// Whether it answers pings.
    pub is_lively: bool,
    pub is_proxy_authenticated: bool,
}

/// A verdict on a token, for the session's user and the requested channel unless `is_for_another`.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Judged {
    Good {
        user: u8,
        is_for_another: bool,
        expires_in: Option<u8>,
        channels: [Option<u8>; 2],
        overrides: u8,
    },
    Expired,
    Invalid,
    Unavailable,
    Close,
}

/// An order of the server API.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Ordered {
    Subscribe { channel: u8, expires_in: Option<u8>, since: Option<u8> },
    Unsubscribe { channel: u8 },
    UnsubscribeAll,
    Disconnect,
    Refresh { expires_in: Option<u8>, expired: bool },
}

/// A command of a peer.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Say {
    Connect { has_token: bool, wish: Option<Wish> },
    Subscribe { wish: Wish, has_token: bool },
    Unsubscribe { channel: u8 },
    Publish { channel: u8, is_binary: bool },
    Presence { channel: u8 },
    PresenceStats { channel: u8 },
    History { channel: u8, limit: i8, since: Option<u8>, reverse: bool },
    Refresh,
    SubRefresh { channel: u8 },
    Pong,
    Ping,
    Rpc,
    Send,
    Missing,
}

/// The parameters of a subscribe command.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Wish {
    pub channel: u8,
    pub since: Option<Since>,
    pub join_leave: bool,
    pub rejects_unrecovered: bool,
}

/// The position from which to recover.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Since {
    /// The peer's real position.
    Known,
    /// An offset without an epoch.
    Offset(u8),
    /// A position of another epoch.
    Strange(u8),
}

impl Manner {
    pub fn codec(self) -> Codec {
        if self.is_protobuf { Codec::Protobuf } else { Codec::Json }
    }
}

impl Say {
    /// Returns the request; `known` returns the peer's position in a channel, `data` is unique for
    /// each publication.
    pub fn request(self, known: impl Fn(&str) -> StreamPosition, data: Bytes) -> Request {
        let name = |choice| channel(choice).to_owned();
        match self {
            Say::Connect { has_token, wish } => {
                let wishes =
                    wish.into_iter().map(|wish| (name(wish.channel), wish.request(&known)));
                Request::Connect(Box::new(ConnectRequest {
                    token: if has_token { "t".to_owned() } else { String::new() },
                    subs: wishes.collect(),
                    ..ConnectRequest::default()
                }))
            }
            Say::Subscribe { wish, has_token } => {
                // The token names its channel, so that the verdict can use it.
                let token = if has_token { name(wish.channel) } else { String::new() };
                Request::Subscribe(Box::new(SubscribeRequest { token, ..wish.request(&known) }))
            }
            Say::Unsubscribe { channel } => Request::Unsubscribe { channel: name(channel) },
            Say::Publish { channel, .. } => Request::Publish(PublishRequest {
                channel: name(channel),
                data,
                ..PublishRequest::default()
            }),
            Say::Presence { channel } => Request::Presence { channel: name(channel) },
            Say::PresenceStats { channel } => Request::PresenceStats { channel: name(channel) },
            Say::History { channel, limit, since, reverse } => Request::History(HistoryRequest {
                channel: name(channel),
                limit: limit.into(),
                since: since.map(|offset| StreamPosition {
                    offset: offset.into(),
                    epoch: known(&name(channel)).epoch,
                }),
                reverse,
            }),
            Say::Refresh => Request::Refresh { token: "t".to_owned() },
            Say::SubRefresh { channel } => Request::SubRefresh(SubRefreshRequest {
                channel: name(channel),
                token: name(channel),
                ..SubRefreshRequest::default()
            }),
            Say::Pong => Request::Pong,
            Say::Ping => Request::Ping,
            Say::Rpc => Request::Rpc { method: "m".to_owned(), data: Bytes::new() },
            Say::Send => Request::Send { data },
            Say::Missing => Request::Missing,
        }
    }
}

impl Wish {
    fn request(self, known: &impl Fn(&str) -> StreamPosition) -> SubscribeRequest {
        let channel = channel(self.channel).to_owned();
        let position = match self.since {
            None => StreamPosition::default(),
            Some(Since::Known) => known(&channel),
            Some(Since::Offset(offset)) => {
                StreamPosition { offset: offset.into(), epoch: String::new() }
            }
            Some(Since::Strange(offset)) => {
                StreamPosition { offset: offset.into(), epoch: "strange".to_owned() }
            }
        };
        SubscribeRequest {
            channel,
            recover: self.since.is_some(),
            epoch: position.epoch,
            offset: position.offset,
            positioned: true,
            recoverable: true,
            join_leave: self.join_leave,
            flag: if self.rejects_unrecovered { 2 } else { 0 },
            ..SubscribeRequest::default()
        }
    }
}
