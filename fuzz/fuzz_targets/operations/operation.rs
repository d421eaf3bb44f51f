//! The operations of a list, and how what a peer says becomes a command.

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use wire::protocol::{
    Codec, ConnectRequest, HistoryRequest, PublishRequest, Request, StreamPosition,
    SubRefreshRequest, SubscribeRequest,
};

use crate::rules::channel;

/// The bytes of one operation. All have the same length, so that a list can be cut and joined
/// anywhere.
pub const RECORD: usize = 20;

/// Reads a list of operations; what the record of the last one lacks is zero.
pub fn read(input: &[u8]) -> impl Iterator<Item = Operation> {
    input.chunks(RECORD).filter_map(|record| Unstructured::new(record).arbitrary().ok())
}

/// Sessions, verdicts and channels are chosen by number, whatever their count.
#[derive(Arbitrary, Debug)]
pub enum Operation {
    Open {
        manner: Manner,
    },
    /// A peer says something, in the message that its next words will stand in when it goes on.
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
    /// The oldest broker events happen.
    Events {
        count: u8,
    },
    /// The oldest broker event is lost, unless it is an answer.
    Lose,
    /// The oldest broker event, if it is an answer, says that the broker could not.
    Fail,
    /// A broker event overtakes those of other channels.
    Overtake {
        which: u8,
    },
    /// A backend publishes.
    Publish {
        channel: u8,
    },
    /// A backend drops what a channel retains.
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
    /// The socket takes so many bytes more, and then none.
    Block {
        peer: u8,
        room: u8,
    },
    Unblock {
        peer: u8,
    },
    /// The driver ends a session.
    Close {
        peer: u8,
    },
    /// The socket is gone.
    Cut {
        peer: u8,
    },
    /// Effects are done and sockets written to.
    Turn,
}

/// How a session begins.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Manner {
    pub is_protobuf: bool,
    pub deflate: bool,
    pub pings_in_frames: bool,
    /// Whether it answers pings.
    pub is_lively: bool,
    pub is_proxy_authenticated: bool,
}

/// A verdict on a token; for whom and what it asks, unless `is_for_another`.
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

/// What a peer can say.
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

/// How a peer wants a subscription.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Wish {
    pub channel: u8,
    pub since: Option<Since>,
    pub join_leave: bool,
    pub rejects_unrecovered: bool,
}

/// From where a subscription is to be recovered.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Since {
    /// From where the peer really was.
    Known,
    /// From an offset of no known epoch.
    Offset(u8),
    /// From another epoch.
    Strange(u8),
}

impl Manner {
    pub fn codec(self) -> Codec {
        if self.is_protobuf { Codec::Protobuf } else { Codec::Json }
    }
}

impl Say {
    /// The request; `known` gives the position that the peer has of a channel, `data` is new for
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
                // The token says what it is for, so that the verdict can.
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
