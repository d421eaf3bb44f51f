//! The peer of a session: its requests, its subscriptions, and its checks of what it receives.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use engine::SessionKey;
use wire::protocol::{
    Codec, Command, Publication, Push, PushEvent, Reply, ReplyBody, Request, StreamPosition,
    SubscribeRequest, SubscribeResult, decode_replies, encode_command,
};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::{Inflater, Window};

use crate::operation::Manner;
use crate::rules::{CHANNEL_LIMIT, is_cache};

/// The position of each publication, by its payload, which is unique.
pub type Ledger = HashMap<Bytes, StreamPosition>;

pub struct Peer {
    pub key: SessionKey,
    pub codec: Codec,
    pub manner: Manner,
    /// Bytes that the socket still accepts; `None` for no limit.
    pub room: Option<usize>,
    /// Bytes that were queued when the session closed: nothing may follow.
    pub ended_with: Option<usize>,
    pub is_cut: bool,
    pub subscriptions: HashMap<String, Held>,
    /// Positions of subscriptions that have ended.
    known: HashMap<String, StreamPosition>,
    asked: HashMap<u32, Request>,
    used_ids: HashSet<u32>,
    /// Whether an id was used twice, so that replies cannot be assigned.
    pub is_confused: bool,
    is_connected: bool,
    is_refused: bool,
    /// The message that is not sent yet.
    pub message: Vec<u8>,
    decoder: Decoder,
    next_id: u32,
}

/// A subscription as its peer sees it.
#[derive(Debug)]
pub struct Held {
    pub position: StreamPosition,
    pub is_positioned: bool,
}

/// The peer's reaction to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Pong,
    PongFrame,
}

const LIMITS: DecoderLimits = DecoderLimits { message_size: 1 << 20, inflated_size: 1 << 20 };

impl Peer {
    pub fn new(key: SessionKey, manner: Manner) -> Peer {
        Peer {
            key,
            codec: manner.codec(),
            manner,
            room: None,
            ended_with: None,
            is_cut: false,
            subscriptions: HashMap::new(),
            known: HashMap::new(),
            asked: HashMap::new(),
            used_ids: HashSet::new(),
            is_confused: false,
            is_connected: false,
            is_refused: false,
            decoder: Decoder::new(Role::Client, LIMITS, manner.deflate.then_some(Window::Full)),
            message: Vec::new(),
            next_id: 1_000,
        }
    }

    pub fn is_alive(&self) -> bool {
        !self.is_cut && self.ended_with.is_none()
    }

    /// The requests that still need a reply.
    pub fn unanswered(&self) -> Vec<&Request> {
        let is_exempt = self.is_confused || !self.is_alive() || self.is_refused;
        if is_exempt { Vec::new() } else { self.asked.values().collect() }
    }

    pub fn known(&self, channel: &str) -> StreamPosition {
        let held = self.subscriptions.get(channel).map(|held| &held.position);
        held.or(self.known.get(channel)).cloned().unwrap_or_default()
    }

    /// Numbers a request and adds it to the current message.
    pub fn speak(&mut self, request: Request) {
        self.next_id += 1;
        let is_unanswered = matches!(request, Request::Pong | Request::Send { .. });
        let id = if is_unanswered { 0 } else { self.next_id };
        let command = Command { id, request };
        self.note(&command);
        encode_command(self.codec, &command, &mut self.message);
    }

    /// Records a request.
    pub fn note(&mut self, command: &Command) {
        match command.request {
            Request::Pong | Request::Send { .. } | Request::Missing => {}
            _ => {
                self.is_confused |= !self.used_ids.insert(command.id);
                self.asked.insert(command.id, command.request.clone());
            }
        }
    }

    /// Reads what the socket has accepted.
    pub fn receive(
        &mut self,
        mut bytes: &mut [u8],
        inflater: &mut Inflater,
        ledger: &Ledger,
    ) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(message) = self.decoder.next(inflater, &mut bytes).expect("good frames") {
            let payload = match (message, self.codec) {
                (Message::Text(payload), Codec::Json) => payload,
                (Message::Binary(payload), Codec::Protobuf) => payload,
                (Message::Ping(_), _) if self.manner.pings_in_frames => {
                    assert!(self.is_connected, "a ping before the connect reply");
                    answers.push(Answer::PongFrame);
                    continue;
                }
                (message, codec) => panic!("{message:?} to a peer of {codec:?}"),
            };
            for reply in decode_replies(self.codec, &payload).expect("good replies") {
                answers.extend(self.take(reply, ledger));
            }
        }
        if self.manner.is_lively { answers } else { Vec::new() }
    }

    fn take(&mut self, reply: Reply, ledger: &Ledger) -> Option<Answer> {
        let begins = matches!(reply.body, ReplyBody::Connect(_) | ReplyBody::Error(_));
        assert!(self.is_connected || begins, "before the connect reply: {reply:?}");
        match reply.body {
            ReplyBody::Ping => {
                assert!(!self.manner.pings_in_frames);
                return Some(Answer::Pong);
            }
            ReplyBody::Push(push) => self.take_push(push, ledger),
            body => {
                let asked = self.asked.remove(&reply.id);
                if !self.is_confused {
                    let asked = asked.unwrap_or_else(|| panic!("nobody asked for {body:?}"));
                    self.take_answer(asked, body, ledger);
                }
            }
        }
        None
    }

    fn take_answer(&mut self, asked: Request, body: ReplyBody, ledger: &Ledger) {
        match (asked, body) {
            (Request::Connect(_), ReplyBody::Error(_)) => self.is_refused = true,
            (_, ReplyBody::Error(_)) => {}
            (Request::Connect(request), ReplyBody::Connect(result)) => {
                assert!(!self.is_connected, "a second connect reply");
                self.is_connected = true;
                for (channel, result) in result.subs {
                    let wish = request.subs.iter().find(|(name, _)| *name == channel);
                    self.begin(&channel, wish.map(|(_, wish)| wish), &result, ledger);
                }
            }
            (Request::Subscribe(request), ReplyBody::Subscribe(result)) => {
                self.begin(&request.channel, Some(&request), &result, ledger);
            }
            (Request::Unsubscribe { channel }, ReplyBody::Unsubscribe) => self.end(&channel),
            (Request::History(request), ReplyBody::History(result)) => {
                let offsets: Vec<u64> = result.publications.iter().map(|one| one.offset).collect();
                let step = |pair: &[u64]| pair[1].wrapping_sub(pair[0]);
                let expected = if request.reverse { u64::MAX } else { 1 };
                assert!(offsets.windows(2).all(|pair| step(pair) == expected), "{offsets:?}");
            }
            (Request::Publish(_), ReplyBody::Publish)
            | (Request::Presence { .. }, ReplyBody::Presence(_))
            | (Request::PresenceStats { .. }, ReplyBody::PresenceStats(_))
            | (Request::Refresh { .. }, ReplyBody::Refresh(_))
            | (Request::SubRefresh(_), ReplyBody::SubRefresh { .. }) => {}
            (asked, body) => panic!("{asked:?} was answered by {body:?}"),
        }
    }

    fn take_push(&mut self, push: Push, ledger: &Ledger) {
        let channel = &*push.channel;
        match push.event {
            // Ordered again, a server-side subscription goes on from where it is.
            PushEvent::Subscribe { positioned, position, .. }
                if !self.is_confused && self.subscriptions.contains_key(channel) =>
            {
                let held = &self.subscriptions[channel];
                assert_eq!(positioned, held.is_positioned);
                assert!(!positioned || position == held.position, "{position:?} {held:?}");
            }
            PushEvent::Subscribe { positioned, position, .. } => {
                let result = SubscribeResult {
                    positioned,
                    offset: position.offset,
                    epoch: position.epoch,
                    ..SubscribeResult::default()
                };
                self.begin(channel, None, &result, ledger);
            }
            PushEvent::Unsubscribe { .. } => {
                assert!(self.is_confused || self.subscriptions.contains_key(channel), "{channel}");
                self.end(channel);
            }
            PushEvent::Publication(publication) => {
                self.take_publication(channel, &publication, ledger);
            }
            PushEvent::Join(_) | PushEvent::Leave(_) => {
                assert!(self.is_confused || self.subscriptions.contains_key(channel), "{channel}");
            }
            PushEvent::Refresh { .. } => {}
            event @ (PushEvent::Message { .. }
            | PushEvent::Disconnect { .. }
            | PushEvent::Unknown) => {
                panic!("nobody says {event:?}")
            }
        }
    }

    fn begin(
        &mut self,
        channel: &str,
        wish: Option<&SubscribeRequest>,
        result: &SubscribeResult,
        ledger: &Ledger,
    ) {
        let position = StreamPosition { offset: result.offset, epoch: result.epoch.clone() };
        if let Some(wish) = wish.filter(|_| result.recovered && !is_cache(channel)) {
            assert!(wish.recover, "recovered unasked");
            assert_eq!(wish.offset, position.offset, "it goes on from where the peer is");
            assert!(wish.epoch.is_empty() || wish.epoch == position.epoch);
        }
        let held = Held { position, is_positioned: result.positioned };
        let before = self.subscriptions.insert(channel.to_owned(), held);
        assert!(before.is_none() || self.is_confused, "subscribed to {channel} twice");
        assert!(self.subscriptions.len() <= CHANNEL_LIMIT || self.is_confused);
        for publication in &result.publications {
            self.take_publication(channel, publication, ledger);
        }
    }

    fn end(&mut self, channel: &str) {
        if let Some(held) = self.subscriptions.remove(channel) {
            self.known.insert(channel.to_owned(), held.position);
        }
    }

    fn take_publication(&mut self, channel: &str, publication: &Publication, ledger: &Ledger) {
        if self.is_confused {
            return;
        }
        let Some(held) = self.subscriptions.get_mut(channel) else {
            panic!("a publication of {channel}, which is not subscribed to");
        };
        if !held.is_positioned {
            return;
        }
        let (offset, last) = (publication.offset, held.position.offset);
        assert_eq!(offset, last + 1, "{channel}: {offset} follows {last}");
        held.position.offset = offset;
        let truth = ledger.get(&publication.data).expect("somebody published it");
        assert_eq!(*truth, held.position, "{channel}: a publication of another epoch");
    }
}
