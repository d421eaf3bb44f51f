//! A client that behaves as the SDKs do, and compares everything it receives with the truth.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use engine::SessionKey;
use engine::claims::TokenRefusal;
use engine::encoding::Encoding;
use engine::rates::{Bucket, Rates};
use wire::protocol::{
    self, Codec, Command, ConnectRequest, ErrorReply, HistoryRequest, PublishRequest, Push,
    PushEvent, Reply, ReplyBody, Request, StreamPosition, SubscribeRequest, SubscribeResult,
};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, Message};
use wire::websocket::deflate::{Inflater, Window};
use wire::websocket::encoder::{self, FrameKind};

use super::asked::{Asked, check_order};
use super::calls::{granted_to, quoted};
use super::channels::{CHANNELS, CONCURRENCY, Kind, SERVER_SIDE, kind_of};
use super::judge::{self, check_history, check_recovery, check_refusal};
use super::live::Live;
use super::node::LIMITS;
use super::oracle::{Oracle, Violation};
use super::publishers::payload;
use super::token::Token;
use super::truth::Truth;

/// The connection of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) key: SessionKey,
}

/// A simulated client; see the module.
pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) user: String,
    pub(crate) encoding: Encoding,
    pub(crate) place: Option<Place>,
    /// Client id; `None` until the connect command was accepted.
    pub(crate) id: Option<String>,
    /// Earliest time of the next connection.
    pub(crate) retry_at_ms: u64,
    pub(crate) read_paused_until_ms: u64,
    /// Refusal of its next token.
    pub(crate) bad_token: Option<TokenRefusal>,
    pub(crate) subscriptions: BTreeMap<&'static str, Subscription>,
    /// Commands that the client will write.
    pub(crate) unsent: Vec<Command>,
    asked: HashMap<u32, Asked>,
    next_id: u32,
    decoder: Decoder,
    published: u64,
    connections: u64,
    /// Time at which its socket was opened, and its accepted publications since.
    opened_at_ms: u64,
    accepted: u64,
    /// Whether it closes the connection by itself.
    pub(crate) gives_up: bool,
}

/// A client's state of one subscription.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscription {
    /// Whether it wants to be subscribed.
    pub(crate) is_wanted: bool,
    /// Whether its last command for the channel was a subscribe.
    is_asked: bool,
    pub(crate) retry_at_ms: u64,
    /// The active subscription, as far as the client has read.
    pub(crate) live: Option<Live>,
    /// Position to recover from.
    position: Option<StreamPosition>,
}

/// What a client needs to decide its next command.
pub(crate) struct Surroundings<'w> {
    pub(crate) truth: &'w Truth,
    pub(crate) now_ms: u64,
    pub(crate) unix_seconds: i64,
    /// Whether no fault has occurred so far.
    pub(crate) is_faultless: bool,
    /// Publications may be refused for now, with no time after which to try again.
    pub(crate) was_overloaded: bool,
    pub(crate) rates: &'w Rates,
}

impl Client {
    pub(crate) fn new(index: usize) -> Client {
        let codec = if index % 3 == 1 { Codec::Protobuf } else { Codec::Json };
        let deflate = [None, None, Some(Window::Small), Some(Window::Full)][index % 4];
        let encoding = Encoding { codec, deflate };
        Client {
            index,
            // The first clients are anonymous, the others share users in pairs.
            user: if index < 2 { String::new() } else { format!("user{}", index / 2) },
            encoding,
            place: None,
            id: None,
            retry_at_ms: 0,
            read_paused_until_ms: 0,
            bad_token: None,
            subscriptions: BTreeMap::new(),
            unsent: Vec::new(),
            asked: HashMap::new(),
            next_id: 0,
            decoder: Decoder::new(Role::Client, LIMITS, encoding.deflate),
            published: 0,
            connections: 0,
            opened_at_ms: 0,
            accepted: 0,
            gives_up: false,
        }
    }

    /// Its socket is open: connects and subscribes in the same message.
    pub(crate) fn begin(&mut self, at: &Surroundings<'_>, place: Place) {
        self.place = Some(place);
        (self.opened_at_ms, self.accepted) = (at.now_ms, 0);
        self.connections += 1;
        self.decoder = Decoder::new(Role::Client, LIMITS, self.encoding.deflate);
        let token = self.connection_token(at);
        let server_side = self.subscriptions.iter().filter(|(channel, _)| is_server_side(channel));
        let subs = server_side.map(|(channel, subscription)| {
            ((*channel).to_owned(), request("", subscription.position.as_ref()))
        });
        let request = ConnectRequest { token, subs: subs.collect(), ..ConnectRequest::default() };
        self.ask(Asked::Connect, Request::Connect(Box::new(request)));
        self.subscribe_wanted(at);
    }

    /// Its socket is closed.
    pub(crate) fn end(&mut self, now_ms: u64) {
        self.place = None;
        self.id = None;
        self.gives_up = false;
        self.retry_at_ms = now_ms + 300 + 100 * (self.index as u64 % 5);
        self.asked.clear();
        self.unsent.clear();
        for subscription in self.subscriptions.values_mut() {
            subscription.is_asked = false;
            subscription.live = None;
        }
    }

    pub(crate) fn subscribe(&mut self, at: &Surroundings<'_>, channel: usize) {
        let channel = CHANNELS[channel].name;
        if is_server_side(channel) {
            return;
        }
        self.subscriptions.entry(channel).or_default().is_wanted = true;
        if self.place.is_some() {
            self.subscribe_wanted(at);
        }
    }

    pub(crate) fn unsubscribe(&mut self, channel: usize) {
        let channel = CHANNELS[channel].name;
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return };
        subscription.is_wanted = false;
        if std::mem::take(&mut subscription.is_asked) {
            let request = Request::Unsubscribe { channel: channel.to_owned() };
            self.ask(Asked::Unsubscribe(channel), request);
        }
    }

    /// It waits for the answer to a subscription.
    pub(crate) fn is_joining(&self) -> bool {
        let joins = |asked: &Asked| matches!(asked, Asked::Connect | Asked::Subscribe(..));
        self.asked.values().any(joins)
    }

    /// It waits for the answer to a subscription to this channel.
    fn is_subscribing(&self, channel: &str) -> bool {
        let subscribes =
            |asked: &Asked| matches!(asked, Asked::Subscribe(name, _) if *name == channel);
        self.asked.values().any(subscribes)
    }

    pub(crate) fn publish(&mut self, channel: usize) {
        let channel = CHANNELS[channel].name.to_owned();
        if self.place.is_none() {
            return;
        }
        self.published += 1;
        let mut data = payload(self.index, self.connections, self.published).into_bytes();
        let is_mixed = kind_of(&channel) == Kind::Mixed;
        if is_mixed && self.encoding.codec == Codec::Protobuf && self.published.is_multiple_of(2) {
            data.insert(0, judge::FOREIGN);
        }
        let data = Bytes::from(data);
        let asked = Asked::Publish(data.clone());
        let request = PublishRequest { channel, data, ..PublishRequest::default() };
        self.ask(asked, Request::Publish(request));
    }

    pub(crate) fn ask_about(&mut self, channel: usize) {
        let description = &CHANNELS[channel];
        let name = description.name.to_owned();
        if self.place.is_none() {
            return;
        }
        match description.kind {
            Kind::Room if self.encoding.deflate.is_none() => {
                self.ask(Asked::Other, Request::Presence { channel: name });
            }
            Kind::Room => self.ask(Asked::Other, Request::PresenceStats { channel: name }),
            Kind::Plain => {
                let channel = judge::NO_NAMES[self.index % judge::NO_NAMES.len()].to_owned();
                let request = match self.index % 2 {
                    0 => Request::Subscribe(Box::new(request(&channel, None))),
                    _ => Request::Presence { channel },
                };
                self.ask(Asked::NoName, request);
            }
            // More than may be in progress at once.
            Kind::Asked => (0..=CONCURRENCY).for_each(|_| {
                let data = quoted(&format!("{} {}", self.index, self.next_id));
                let method = "echo".to_owned();
                self.ask(Asked::Rpc(data.clone()), Request::Rpc { method, data });
            }),
            _ => {
                let request =
                    HistoryRequest { channel: name, limit: -1, ..HistoryRequest::default() };
                self.ask(Asked::History(description.name), Request::History(request));
            }
        }
    }

    pub(crate) fn refresh(&mut self, at: &Surroundings<'_>, seconds: i64) {
        if self.id.is_none() || self.user.is_empty() {
            return;
        }
        let token = Token {
            expire_at: Some(at.unix_seconds + seconds),
            user: self.user.clone(),
            server_side: server_side_of(self.index),
            ..Token::default()
        };
        self.ask(Asked::Other, Request::Refresh { token: token.text() });
    }

    /// Subscribes to every wanted channel that was not requested yet.
    pub(crate) fn subscribe_wanted(&mut self, at: &Surroundings<'_>) {
        let channels: Vec<&'static str> = self.subscriptions.keys().copied().collect();
        for channel in channels {
            let subscription = &self.subscriptions[channel];
            let waits = subscription.retry_at_ms > at.now_ms;
            if !subscription.is_wanted || subscription.is_asked || waits {
                continue;
            }
            let since = subscription.position.clone();
            let mut request = request(channel, since.as_ref());
            if channel.starts_with('$') {
                request.token = self.subscription_token(at, channel);
            }
            self.subscriptions.entry(channel).or_default().is_asked = true;
            self.ask(Asked::Subscribe(channel, since), Request::Subscribe(Box::new(request)));
        }
    }

    /// Encodes all unsent commands as one message.
    pub(crate) fn write(&mut self) -> Option<Vec<u8>> {
        if self.unsent.is_empty() {
            return None;
        }
        let mut message = Vec::new();
        for command in self.unsent.drain(..) {
            protocol::encode_command(self.encoding.codec, &command, &mut message);
        }
        let kind = match self.encoding.codec {
            Codec::Json => FrameKind::Text,
            Codec::Protobuf => FrameKind::Binary,
        };
        let mut frame = Vec::new();
        encoder::client_frame(kind, &message, [7, 11, 13, 17], &mut frame);
        Some(frame)
    }

    /// Reads bytes of its socket. Returns the code if the server has closed.
    pub(crate) fn read(
        &mut self,
        at: &Surroundings<'_>,
        mut bytes: Vec<u8>,
    ) -> Result<Option<u16>, Violation> {
        let mut input = &mut bytes[..];
        let mut inflater = Inflater::default();
        loop {
            let message = match self.decoder.next(&mut inflater, &mut input) {
                Ok(None) => return Ok(None),
                Ok(Some(Message::Text(text))) => text.to_vec(),
                Ok(Some(Message::Binary(binary))) => binary.to_vec(),
                Ok(Some(Message::Ping(_) | Message::Pong(_))) => continue,
                Ok(Some(Message::Close(close))) => {
                    return Ok(Some(close.map_or(1005, |close| close.code.number())));
                }
                Err(error) => return Oracle::Order.broken(format!("a broken frame: {error}")),
            };
            let replies = protocol::decode_replies(self.encoding.codec, &message)
                .or_else(|error| Oracle::Order.broken(format!("{error}: {message:?}")))?;
            for reply in replies {
                self.handle(at, reply)?;
            }
            if self.gives_up {
                // Replies after a refused connect are ignored.
                return Ok(None);
            }
        }
    }

    fn handle(&mut self, at: &Surroundings<'_>, reply: Reply) -> Result<(), Violation> {
        match reply.body {
            ReplyBody::Ping => {
                self.unsent.push(Command { id: 0, request: Request::Pong });
                return Ok(());
            }
            ReplyBody::Push(push) => return self.handle_push(at, &push),
            _ => {}
        }
        let Some(asked) = self.asked.remove(&reply.id) else {
            return Oracle::Answer.broken(format!("nobody asked {}: {:?}", reply.id, reply.body));
        };
        check_order(&self.asked, (reply.id, &asked), &reply.body)?;
        match (asked, reply.body) {
            (Asked::Connect, ReplyBody::Connect(result)) => {
                let is_own = result.data.is_empty() || result.data == quoted(&result.client);
                Oracle::Answer.check(is_own, || format!("connected as another: {result:?}"))?;
                self.id = Some(result.client);
                let known: Vec<&'static str> =
                    self.subscriptions.keys().copied().filter(|c| is_server_side(c)).collect();
                for channel in known {
                    if !result.subs.iter().any(|(name, _)| name == channel) {
                        self.subscriptions.remove(channel);
                    }
                }
                for (name, joined) in result.subs {
                    let channel = static_name(&name)?;
                    let entry = self.subscriptions.entry(channel).or_default();
                    let since = entry.position.clone();
                    self.handle_joined(at, channel, since.as_ref(), joined)?;
                }
                Ok(())
            }
            (Asked::Subscribe(channel, since), ReplyBody::Subscribe(joined)) => {
                let own = granted_to(self.id.as_deref().unwrap_or_default(), channel);
                let is_own = kind_of(channel) != Kind::Asked || joined.data == own;
                Oracle::Answer.check(is_own, || format!("{channel}: {:?}", joined.data))?;
                self.handle_joined(at, channel, since.as_ref(), *joined)
            }
            (Asked::Unsubscribe(channel), ReplyBody::Unsubscribe) => {
                self.subscriptions.entry(channel).or_default().live = None;
                Ok(())
            }
            (Asked::History(channel), ReplyBody::History(result)) => {
                let is_json = self.encoding.codec == Codec::Json;
                check_history(at.truth, channel, &result, is_json)
            }
            (asked, ReplyBody::Error(error)) => self.handle_error(at, &asked, &error),
            (Asked::Rpc(data), ReplyBody::Rpc { data: echo }) => {
                Oracle::Answer.check(data == echo, || format!("{data:?} is answered {echo:?}"))
            }
            (Asked::Publish(_), ReplyBody::Publish) => self.handle_published(at),
            (Asked::Other, _) => Ok(()),
            (asked, body) => Oracle::Answer.broken(format!("{asked:?} is answered {body:?}")),
        }
    }

    fn handle_error(
        &mut self,
        at: &Surroundings<'_>,
        asked: &Asked,
        error: &ErrorReply,
    ) -> Result<(), Violation> {
        let wait_ms = wait_ms(error);
        let is_overload = at.was_overloaded
            && matches!(asked, Asked::Publish(_))
            && error.message == "too many requests";
        let is_explained = wait_ms.is_some() || is_overload;
        Oracle::Rate.check((error.code == 111) == is_explained, || format!("{error:?}"))?;
        match (asked, error.code) {
            // The token was spoilt or could not be verified: reconnect with another one.
            (Asked::Connect, 100 | 109 | 110 | 111)
            // As the SDKs do: the server may still have the subscription.
            | (Asked::Unsubscribe(_), 111) => self.gives_up = true,
            (Asked::Subscribe(channel, _), 100 | 109 | 110 | 111 | 103) => {
                let is_subscribing = self.is_subscribing(channel);
                let subscription = self.subscriptions.entry(channel).or_default();
                subscription.retry_at_ms = at.now_ms + wait_ms.unwrap_or(500);
                subscription.is_asked = is_subscribing;
            }
            (Asked::Publish(payload), 111) => {
                let is_there = at.truth.has(payload);
                return Oracle::Rate.check(!is_there, || format!("{payload:?} is refused, and there"));
            }
            (Asked::Publish(_) | Asked::Other | Asked::History(_) | Asked::Rpc(_), 100 | 103 | 111)
            | (Asked::NoName, 107 | 111) => {}
            (asked, code) => {
                return Oracle::Answer.broken(format!("{asked:?} is refused with {code}"));
            }
        }
        Ok(())
    }

    /// Counts an accepted publication: no more than the rate allows since the socket was opened.
    fn handle_published(&mut self, at: &Surroundings<'_>) -> Result<(), Violation> {
        self.accepted += 1;
        let Some(rate) = at.rates.of(Bucket::ConnectionPublishes) else { return Ok(()) };
        let earned = (at.now_ms - self.opened_at_ms) * u64::from(rate.amount());
        let most = earned / u64::from(rate.window_ms()) + u64::from(rate.burst());
        let accepted = self.accepted;
        Oracle::Rate.check(accepted <= most, || format!("{accepted} publications, {most} allowed"))
    }

    /// Applies a subscribe result with its position.
    fn handle_joined(
        &mut self,
        at: &Surroundings<'_>,
        channel: &'static str,
        since: Option<&StreamPosition>,
        joined: SubscribeResult,
    ) -> Result<(), Violation> {
        let position = StreamPosition { offset: joined.offset, epoch: joined.epoch };
        let mut live = Live::new(joined.positioned, position, self.encoding.codec);
        let kind = kind_of(channel);
        let wants_position = kind.is_positioned();
        Oracle::Recovery.check(joined.positioned == wants_position, || {
            format!("{channel} is positioned: {}", joined.positioned)
        })?;
        let tried = since.is_some() && kind.is_recoverable();
        Oracle::Recovery.check(joined.was_recovering == since.is_some(), || {
            format!("{channel}: recovery was tried: {}", joined.was_recovering)
        })?;
        if let Some(since) = since.filter(|_| tried && kind != Kind::Cache) {
            if joined.recovered {
                Oracle::Recovery.check(live.position == *since, || {
                    format!("{channel} is recovered from {since:?} and told {:?}", live.position)
                })?;
            } else {
                check_refusal(at.truth, channel, since)?;
            }
        }
        Oracle::Recovery.check(joined.recovered || joined.publications.is_empty(), || {
            format!("{channel} is not recovered, and gets publications")
        })?;
        check_recovery(channel, &joined.publications)?;
        for publication in &joined.publications {
            live.accept(at, channel, publication)?;
        }
        let subscription = self.subscriptions.entry(channel).or_default();
        subscription.position = Some(live.position.clone()).filter(|_| live.is_positioned);
        subscription.live = Some(live);
        Ok(())
    }

    fn handle_push(&mut self, at: &Surroundings<'_>, push: &Push) -> Result<(), Violation> {
        if push.channel.is_empty() {
            return Ok(());
        }
        let channel = static_name(&push.channel)?;
        if let PushEvent::Subscribe { positioned, position, .. } = &push.event {
            let live = Live::new(*positioned, position.clone(), self.encoding.codec);
            let subscription = self.subscriptions.entry(channel).or_default();
            subscription.position = Some(position.clone());
            subscription.live = Some(live);
            return Ok(());
        }
        // As the SDKs do: a client that is subscribing ignores the end of an older subscription.
        let is_subscribing = self.is_subscribing(channel);
        let Some((subscription, live)) = self.subscriptions.get_mut(channel).and_then(|one| {
            let live = one.live.take()?;
            Some((one, live))
        }) else {
            return Oracle::ReplyFirst
                .broken(format!("{channel}, not subscribed: {:?}", push.event));
        };
        match &push.event {
            PushEvent::Message { .. } => {
                let mut live = live;
                live.notices += 1;
                Oracle::Duplicate.check(live.notices == 1 && live.is_json, || {
                    format!("{channel}: it is told {} times that it misses some", live.notices)
                })?;
                subscription.live = Some(live);
            }
            PushEvent::Publication(publication) => {
                let mut live = live;
                live.accept(at, channel, publication)?;
                Oracle::Gap.check(live.notices == u32::from(live.has_skipped), || {
                    format!("{channel}: {} notices before {}", live.notices, publication.offset)
                })?;
                subscription.position = Some(live.position.clone()).filter(|_| live.is_positioned);
                subscription.live = Some(live);
            }
            PushEvent::Unsubscribe { code, .. } => {
                subscription.is_asked = is_subscribing;
                let may_end =
                    *code == 2000 || (matches!(code, 2500 | 2501) && !is_server_side(channel));
                Oracle::Close.check(may_end, || format!("{channel} ends with {code}"))?;
                if *code == 2000 || is_server_side(channel) {
                    self.subscriptions.remove(channel);
                }
            }
            _ => subscription.live = Some(live),
        }
        Ok(())
    }

    fn ask(&mut self, asked: Asked, request: Request) {
        self.next_id += 1;
        self.asked.insert(self.next_id, asked);
        self.unsent.push(Command { id: self.next_id, request });
    }

    fn connection_token(&mut self, at: &Surroundings<'_>) -> String {
        if self.user.is_empty() {
            return String::new();
        }
        let lifetime = [None, Some(6), Some(20)][self.index % 3];
        let token = Token {
            user: self.user.clone(),
            expire_at: lifetime.map(|seconds| at.unix_seconds + seconds),
            refusal: self.bad_token.take(),
            server_side: server_side_of(self.index),
            ..Token::default()
        };
        token.text()
    }

    fn subscription_token(&mut self, at: &Surroundings<'_>, channel: &str) -> String {
        let token = Token {
            user: self.user.clone(),
            channel: channel.to_owned(),
            expire_at: Some(at.unix_seconds + 8),
            refusal: self.bad_token.take(),
            ..Token::default()
        };
        token.text()
    }

    /// Whether its token names, or named, server-side subscriptions.
    pub(crate) fn has_server_side(&self) -> bool {
        let has = self.subscriptions.keys().any(|channel| is_server_side(channel));
        has || !server_side_of(self.index).is_empty()
    }

    /// Number of commands without a reply.
    pub(crate) fn unanswered(&self) -> usize {
        self.asked.len()
    }
}

fn request(channel: &str, since: Option<&StreamPosition>) -> SubscribeRequest {
    SubscribeRequest {
        channel: channel.to_owned(),
        recover: since.is_some(),
        offset: since.map_or(0, |since| since.offset),
        epoch: since.map_or(String::new(), |since| since.epoch.clone()),
        ..SubscribeRequest::default()
    }
}

/// The token of every third client names one or two subscriptions.
fn server_side_of(index: usize) -> Vec<(String, engine::claims::SubscriptionGrant)> {
    let count = if index % 3 != 2 { 0 } else { 1 + usize::from(index > 2) };
    let names = SERVER_SIDE.into_iter().take(count);
    names.map(|name| (name.to_owned(), engine::claims::SubscriptionGrant::default())).collect()
}

pub(crate) fn is_server_side(channel: &str) -> bool {
    kind_of(channel) == Kind::ServerSide
}

fn static_name(name: &str) -> Result<&'static str, Violation> {
    match CHANNELS.iter().find(|one| one.name == name) {
        Some(channel) => Ok(channel.name),
        None => Oracle::ReplyFirst.broken(format!("something of {name:?}, which is unknown")),
    }
}

/// The delay to retry in a refusal by a rate limit, in milliseconds.
fn wait_ms(error: &ErrorReply) -> Option<u64> {
    let wait = error.message.strip_prefix("too many requests; retry after ")?;
    wait.strip_suffix(" ms")?.parse().ok().filter(|wait| *wait > 0)
}
