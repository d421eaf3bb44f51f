//! What a node does with requests of its parties and with what Redis says. No sockets are in here.
//!
//! Invariant: while there is no link a request fails at once; what must not be lost is put right with the next link.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, BrokerRequest, Control, HistoryQuery, JoinRead,
    JoinedStream, Membership, PublishOptions,
};
use engine::limits::IDEMPOTENCY_TTL_MS;
use wire::protocol::{
    ClientInfo, HistoryResult, PresenceStats, Publication, PushEvent, StreamPosition,
};

use super::connection::Scripts;
use super::heard::Heard;
use super::link::{self, Asker, Broken, Link, Waiting};
use super::message;
use super::names::Names;
use super::present::{Present, Removal};
use super::resp::Value;
use super::scripts::Script;
use super::{Job, Shared};
use crate::limits::{KEEP_MS_MAX, MEMBERS_MAX, PRESENCE_MS, PROOFS_MAX};
use crate::parties::id_of;
use crate::{Party, control};

/// See the module.
pub(super) struct State {
    pub(super) link: Option<Link>,
    names: Names,
    shared: Arc<Shared>,
    heard: Heard,
    present: Present,
    restores: VecDeque<Restore>,
    epochs: u64,
    turns: u64,
}

/// What is put right after the link was cut, or said again in its turn.
enum Restore {
    Heard(Arc<str>),
    Present(Arc<str>),
}

/// A part of a stream.
#[derive(Default)]
struct Range {
    /// That it is of; empty for any.
    epoch: String,
    command: &'static str,
    ends: [String; 2],
    count: String,
}

impl State {
    pub(super) fn new(names: Names, shared: Arc<Shared>) -> State {
        State {
            link: None,
            present: Present::new(names.node.clone()),
            names,
            shared,
            heard: Heard::default(),
            restores: VecDeque::new(),
            epochs: 0,
            turns: 0,
        }
    }

    /// There is a link, from now on.
    pub(super) fn connect(&mut self, scripts: Scripts) {
        let mut link = Link::new(scripts);
        link.ask(&[b"SUBSCRIBE", self.names.control().as_bytes()], Waiting::Ear);
        self.link = Some(link);
        self.shared.is_well.store(true, Ordering::Relaxed);
        for removal in self.present.take_removals() {
            self.remove(removal);
        }
        self.restores = self.heard.lose().into_iter().map(Restore::Heard).collect();
        self.restores.extend(self.present.channels().cloned().map(Restore::Present));
    }

    /// There is none any more.
    pub(super) fn disconnect(&mut self) {
        self.shared.is_well.store(false, Ordering::Relaxed);
        for removal in self.link.take().map(Link::fail).unwrap_or_default() {
            self.present.remove_later(removal);
        }
        self.heard.lose();
    }

    /// Ends a turn: puts more right, as far as there is room, and lets held answers go.
    pub(super) fn end_turn(&mut self) {
        while self.link.as_ref().is_some_and(|link| link.restoring < PROOFS_MAX)
            && let Some(restore) = self.restores.pop_front()
        {
            match restore {
                Restore::Heard(channel) => self.restore_heard(&channel),
                Restore::Present(channel) => self.restore_present(&channel),
            }
        }
        if let Some(link) = &mut self.link {
            link.fence();
        }
    }

    /// Once a second.
    pub(super) fn beat(&mut self) {
        self.turns += 1;
        let channels = self.present.channels_of_turn(self.turns);
        self.restores.extend(channels.into_iter().map(Restore::Present));
        if let Some(link) = &mut self.link {
            link.ask(&[b"PING"], Waiting::Nobody);
        }
    }

    /// A graceful end: nothing of this node stays.
    pub(super) fn end(&mut self) {
        for removal in self.present.forget(None) {
            self.remove(removal);
        }
    }

    pub(super) fn handle(&mut self, job: Job) {
        match job {
            Job::Detach(party) => {
                for channel in self.heard.forget(party) {
                    self.fall_silent(&channel);
                }
                for removal in self.present.forget(Some(party)) {
                    self.remove(removal);
                }
            }
            Job::Request(party, inbox, request) => {
                self.shared.length.fetch_sub(1, Ordering::Relaxed);
                match (id_of(&request), &self.link) {
                    (Some(id), None) => {
                        Asker { id, inbox }.answer(Err(BrokerError::Unavailable));
                    }
                    (Some(id), Some(_)) => self.question(party, Asker { id, inbox }, request),
                    (None, _) => self.order(party, request),
                }
            }
        }
    }

    /// A request that has an answer, while there is a link.
    fn question(&mut self, party: Party, asker: Asker, request: BrokerRequest) {
        let Some(link) = &mut self.link else { return };
        match request {
            BrokerRequest::Subscribe { channel, read, .. } => {
                self.join(party, asker, &channel, read);
            }
            BrokerRequest::Publish { channel, publication, options, .. } => {
                self.publish(asker, &channel, publication, &options);
            }
            BrokerRequest::History { channel, query, meta_ttl_ms, .. } => {
                let range = Range::of_query(&query);
                self.read(&channel, meta_ttl_ms, &range, Waiting::History(asker, query));
            }
            BrokerRequest::RemoveHistory { channel, .. } => {
                let key = self.names.stream(&channel);
                let waiting = Waiting::Fixed(asker, BrokerReply::HistoryRemoved);
                link.ask(&[b"DEL", key.as_bytes()], waiting);
            }
            BrokerRequest::Presence { channel, .. } => {
                self.presence(Script::Clients, &channel, &[], Waiting::Clients(asker));
            }
            BrokerRequest::PresenceStats { channel, .. } => {
                self.presence(Script::Stats, &channel, &[], Waiting::Stats(asker));
            }
            BrokerRequest::Unsubscribe { .. }
            | BrokerRequest::Announce { .. }
            | BrokerRequest::AddPresence { .. }
            | BrokerRequest::RemovePresence { .. }
            | BrokerRequest::Control(_) => unreachable!("it has no answer"),
        }
    }

    /// A request that has none.
    fn order(&mut self, party: Party, request: BrokerRequest) {
        match request {
            BrokerRequest::Unsubscribe { channel } => {
                if self.heard.leave(&channel, party) {
                    self.fall_silent(&channel);
                }
            }
            BrokerRequest::Announce { channel, info, change } => {
                let event = match change {
                    Membership::Join => PushEvent::Join(info),
                    Membership::Leave => PushEvent::Leave(info),
                };
                // While Redis is away, nobody could hear it either.
                if let Some(link) = &mut self.link {
                    let name = self.names.message(&channel);
                    let payload = message::plain(&channel, event);
                    link.ask(&[b"PUBLISH", name.as_bytes(), &payload], Waiting::Nobody);
                }
            }
            BrokerRequest::AddPresence { channel, info } => {
                let (member, value) = self.present.add(&channel, party, &info);
                let members = [(&member, &value)];
                add(&mut self.link, &self.names, &channel, &members, Waiting::Nobody);
            }
            BrokerRequest::RemovePresence { channel, client } => {
                if let Some(removal) = self.present.remove(&channel, party, &client.client) {
                    self.remove(removal);
                }
            }
            BrokerRequest::Control(control) => self.control(&control),
            BrokerRequest::Subscribe { .. }
            | BrokerRequest::Publish { .. }
            | BrokerRequest::Presence { .. }
            | BrokerRequest::PresenceStats { .. }
            | BrokerRequest::History { .. }
            | BrokerRequest::RemoveHistory { .. } => unreachable!("it has an answer"),
        }
    }

    /// An order goes to all nodes through Redis, or, while that is away, at least to the parties here.
    fn control(&mut self, control: &Arc<Control>) {
        match &mut self.link {
            Some(link) => {
                let (name, payload) = (self.names.control(), control::encode(control));
                link.ask(&[b"PUBLISH", name.as_bytes(), &payload], Waiting::Nobody);
            }
            None => self.shared.parties.tell(control),
        }
    }

    fn join(&mut self, party: Party, asker: Asker, channel: &Arc<str>, read: JoinRead) {
        let ear = self.heard.enter(channel, party, &asker.inbox);
        let meta_ttl_ms = match &read {
            JoinRead::Nothing => 0,
            JoinRead::Position { meta_ttl_ms }
            | JoinRead::Since { meta_ttl_ms, .. }
            | JoinRead::Newest { meta_ttl_ms } => *meta_ttl_ms,
        };
        ear.meta_ttl_ms = ear.meta_ttl_ms.max(meta_ttl_ms);
        self.listen(channel);
        if read == JoinRead::Nothing {
            let reply = BrokerReply::Subscribed(JoinedStream::default());
            if let Some(link) = &mut self.link {
                link.ask(&[b"PING"], Waiting::Fixed(asker, reply));
            }
            return;
        }
        let range = Range::of_join(&read);
        self.read(channel, meta_ttl_ms, &range, Waiting::Joined(asker, channel.clone(), read));
    }

    fn listen(&mut self, channel: &str) {
        let (Some(link), Some(ear)) = (&mut self.link, self.heard.ear(channel)) else { return };
        if !std::mem::replace(&mut ear.is_asked, true) {
            let name = self.names.message(channel);
            link.ask(&[b"SUBSCRIBE", name.as_bytes()], Waiting::Ear);
        }
    }

    fn fall_silent(&mut self, channel: &str) {
        if let Some(link) = &mut self.link {
            let name = self.names.message(channel);
            link.ask(&[b"UNSUBSCRIBE", name.as_bytes()], Waiting::Ear);
        }
    }

    fn publish(
        &mut self,
        asker: Asker,
        channel: &Arc<str>,
        publication: Publication,
        options: &PublishOptions,
    ) {
        if self.heard.has_full_listener(channel) {
            return asker.answer(Err(BrokerError::Overloaded));
        }
        let event = PushEvent::Publication(Arc::new(publication));
        let name = self.names.message(channel);
        let has_key = !options.idempotency_key.is_empty();
        if options.history_size == 0 && options.version == 0 && !has_key {
            let payload = message::plain(channel, event);
            if let Some(link) = &mut self.link {
                link.ask(&[b"PUBLISH", name.as_bytes(), &payload], Waiting::Published(asker));
            }
            return;
        }
        let meta_ttl_ms = match options.version {
            0 => options.history_meta_ttl_ms,
            _ => options.history_meta_ttl_ms.max(IDEMPOTENCY_TTL_MS),
        };
        let version = match options.version {
            0 => String::new(),
            version => format!("{version:020}"),
        };
        let keys = [
            self.names.meta(channel),
            self.names.stream(channel),
            self.names.accepted(channel, &options.idempotency_key),
        ];
        let (payload, size) =
            (message::encode_push(channel, event), options.history_size.to_string());
        let (ttl, meta_ttl) = (milliseconds(options.history_ttl_ms), milliseconds(meta_ttl_ms));
        let (key_ttl, new_epoch) = (milliseconds(IDEMPOTENCY_TTL_MS), self.new_epoch());
        let arguments: [&[u8]; 9] = [
            name.as_bytes(),
            &payload,
            size.as_bytes(),
            &ttl,
            &meta_ttl,
            new_epoch.as_bytes(),
            version.as_bytes(),
            options.version_epoch.as_bytes(),
            if has_key { &key_ttl } else { b"0" },
        ];
        if let Some(link) = &mut self.link {
            let keys = keys.each_ref().map(|key| &**key);
            link.run(Script::Publish, &keys, &arguments, Waiting::Published(asker));
        }
    }

    fn read(&mut self, channel: &str, meta_ttl_ms: u64, range: &Range, waiting: Waiting) {
        let ear = self.heard.ear(channel);
        let (told_epoch, told_offset) = ear.map(|ear| ear.told.clone()).unwrap_or_default();
        let (told_offset, new_epoch) = (told_offset.to_string(), self.new_epoch());
        let ttl = if meta_ttl_ms == 0 { b"0".to_vec() } else { milliseconds(meta_ttl_ms) };
        let keys = [self.names.meta(channel), self.names.stream(channel)];
        let arguments: [&[u8]; 9] = [
            &ttl,
            new_epoch.as_bytes(),
            told_epoch.as_bytes(),
            told_offset.as_bytes(),
            range.epoch.as_bytes(),
            range.command.as_bytes(),
            range.ends[0].as_bytes(),
            range.ends[1].as_bytes(),
            range.count.as_bytes(),
        ];
        if let Some(link) = &mut self.link {
            link.run(Script::Read, &keys.each_ref().map(|key| &**key), &arguments, waiting);
        }
    }

    fn remove(&mut self, mut removal: Removal) {
        if self.link.is_none() {
            return self.present.remove_later(removal);
        }
        while !removal.members.is_empty() {
            let rest = removal.members.len().saturating_sub(MEMBERS_MAX);
            let members = removal.members.split_off(rest);
            let how: &[u8] = if removal.must_tell { b"tell" } else { b"" };
            let mut arguments = vec![how];
            arguments.extend(members.iter().map(|member| member.as_bytes()));
            let (channel, must_tell) = (removal.channel.clone(), removal.must_tell);
            let part = Removal { channel, members: members.clone(), must_tell };
            self.presence(Script::Remove, &removal.channel, &arguments, Waiting::Removed(part));
        }
    }

    fn presence(&mut self, script: Script, channel: &str, arguments: &[&[u8]], waiting: Waiting) {
        presence(&mut self.link, &self.names, script, channel, arguments, waiting);
    }

    /// Hears the channel again and asks where its stream stands.
    fn restore_heard(&mut self, channel: &Arc<str>) {
        self.listen(channel);
        let Some(ear) = self.heard.ear(channel).filter(|ear| !ear.told.0.is_empty()) else {
            return;
        };
        let meta_ttl_ms = ear.meta_ttl_ms;
        self.read(channel, meta_ttl_ms, &Range::default(), Waiting::Proof(channel.clone()));
    }

    fn restore_present(&mut self, channel: &str) {
        let members = self.present.members(channel);
        for members in members.chunks(MEMBERS_MAX) {
            add(&mut self.link, &self.names, channel, members, Waiting::Restored);
        }
    }

    fn new_epoch(&mut self) -> String {
        self.epochs += 1;
        format!("{}{:x}", self.names.node, self.epochs)
    }

    /// Redis has said something.
    pub(super) fn hear(&mut self, value: Value) -> Result<(), Broken> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let Value::Push(words) = value else {
            if let Value::Error(refusal) = &value
                && link::is_broken(refusal)
            {
                return Err(Broken);
            }
            let waiting = link.take()?;
            self.answered(waiting, &value);
            return Ok(());
        };
        match (words.first().and_then(Value::text).map(|kind| &kind[..]), &words[1..]) {
            (Some(b"subscribe" | b"unsubscribe"), _) => link.take_ear()?,
            (Some(b"message"), [Value::Text(name), Value::Text(payload)]) => {
                self.message(name, payload);
            }
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, name: &[u8], payload: &Bytes) {
        let Ok(name) = std::str::from_utf8(name) else { return };
        if let Some(channel) = self.names.channel_of(name) {
            self.heard.hear(channel, payload);
        } else if name == self.names.control()
            && let Some(control) = control::decode(payload)
        {
            self.shared.parties.tell(&Arc::new(control));
        }
    }

    fn answered(&mut self, waiting: Waiting, value: &Value) {
        let is_refused = matches!(value, Value::Error(_));
        match waiting {
            Waiting::Nobody | Waiting::Ear | Waiting::Removed(_) | Waiting::Restored => {}
            Waiting::Fixed(asker, reply) => {
                asker.answer(if is_refused { Err(BrokerError::Unavailable) } else { Ok(reply) });
            }
            Waiting::Published(asker) => {
                let position = match value {
                    Value::Integer(_) => Some(StreamPosition::default()),
                    _ => position(value),
                };
                let link = self.link.as_mut();
                match (position, link) {
                    (Some(position), Some(link)) => {
                        link.hold(asker, BrokerReply::Published(position));
                    }
                    _ => asker.answer(Err(BrokerError::Unavailable)),
                }
            }
            Waiting::Joined(asker, channel, read) => {
                let stream = joined(value, &read).ok_or(BrokerError::Unavailable);
                if let (Ok(stream), Some(ear)) = (&stream, self.heard.ear(&channel)) {
                    ear.is_told(&stream.top);
                }
                asker.answer(stream.map(BrokerReply::Subscribed));
            }
            Waiting::History(asker, query) => asker.answer(history(value, &query)),
            Waiting::Clients(asker) => {
                let clients = clients(value).map(BrokerReply::Presence);
                asker.answer(clients.ok_or(BrokerError::Unavailable));
            }
            Waiting::Stats(asker) => {
                let stats = stats(value).map(BrokerReply::PresenceStats);
                asker.answer(stats.ok_or(BrokerError::Unavailable));
            }
            Waiting::Proof(channel) => {
                if let (Some(top), Some(ear)) = (position(value), self.heard.ear(&channel)) {
                    ear.is_told(&top);
                    ear.tell(&BrokerEvent::Position { channel, top });
                }
            }
        }
    }
}

impl Range {
    fn of_join(read: &JoinRead) -> Range {
        match read {
            JoinRead::Nothing | JoinRead::Position { .. } => Range::default(),
            JoinRead::Newest { .. } => Range {
                command: "XREVRANGE",
                ends: ["+".into(), "-".into()],
                count: "1".into(),
                ..Range::default()
            },
            JoinRead::Since { since, limit, .. } => {
                let limit = Some(*limit);
                Range::of_query(&HistoryQuery { limit, since: Some(since.clone()), reverse: false })
            }
        }
    }

    fn of_query(query: &HistoryQuery) -> Range {
        if query.limit == Some(0) {
            return Range::default();
        }
        let since = query.since.as_ref();
        let (command, ends) = match (since, query.reverse) {
            (None, false) => ("XRANGE", ["-".into(), "+".into()]),
            (None, true) => ("XREVRANGE", ["+".into(), "-".into()]),
            // Entries have the numbers `OFFSET-0`: the next one behind `OFFSET-1` is another offset.
            (Some(since), false) => ("XRANGE", [format!("{}-1", since.offset), "+".into()]),
            (Some(since), true) => {
                let before = since.offset.saturating_sub(1);
                ("XREVRANGE", [format!("{before}-0"), "-".into()])
            }
        };
        let epoch = since.map(|since| since.epoch.clone()).unwrap_or_default();
        let count = query.limit.map(|limit| limit.to_string()).unwrap_or_default();
        Range { epoch, command, ends, count }
    }
}

fn add(
    link: &mut Option<Link>,
    names: &Names,
    channel: &str,
    members: &[(&String, &Vec<u8>)],
    waiting: Waiting,
) {
    let ttl = milliseconds(PRESENCE_MS);
    let mut arguments: Vec<&[u8]> = vec![&ttl];
    for (member, value) in members {
        arguments.extend([member.as_bytes(), value]);
    }
    presence(link, names, Script::Add, channel, &arguments, waiting);
}

fn presence(
    link: &mut Option<Link>,
    names: &Names,
    script: Script,
    channel: &str,
    arguments: &[&[u8]],
    waiting: Waiting,
) {
    let Some(link) = link else { return };
    let (keys, name) = (names.presence(channel), names.message(channel));
    let mut words: Vec<&[u8]> = vec![name.as_bytes()];
    words.extend(arguments);
    link.run(script, &keys.each_ref().map(|key| &**key), &words, waiting);
}

/// As Redis wants a time to keep something: it refuses zero and what it cannot count.
fn milliseconds(ms: u64) -> Vec<u8> {
    ms.clamp(1, KEEP_MS_MAX).to_string().into_bytes()
}

fn position(value: &Value) -> Option<StreamPosition> {
    let [epoch, offset, ..] = value.array() else { return None };
    let epoch = String::from_utf8(epoch.text()?.to_vec()).ok()?;
    Some(StreamPosition { offset: offset.number()?, epoch })
}

/// The answer of [`Script::Read`].
fn stream(value: &Value) -> Option<(StreamPosition, Vec<Arc<Publication>>)> {
    let entries = value.array().get(2)?.array().iter().map(|entry| {
        let [identifier, fields] = entry.array() else { return None };
        let [_, _, _, payload] = fields.array() else { return None };
        message::decode_retained(identifier.text()?, payload.text()?)
    });
    Some((position(value)?, entries.collect::<Option<_>>()?))
}

fn joined(value: &Value, read: &JoinRead) -> Option<JoinedStream> {
    let (top, publications) = stream(value)?;
    debug_assert!(!matches!(read, JoinRead::Position { .. }) || publications.is_empty());
    Some(JoinedStream { top, publications })
}

fn history(value: &Value, query: &HistoryQuery) -> Result<BrokerReply, BrokerError> {
    let (top, publications) = stream(value).ok_or(BrokerError::Unavailable)?;
    let StreamPosition { offset, epoch } = top;
    let since = query.since.as_ref().map_or("", |since| &since.epoch);
    if !since.is_empty() && since != epoch {
        return Err(BrokerError::UnrecoverablePosition);
    }
    Ok(BrokerReply::History(HistoryResult { publications, epoch, offset }))
}

fn clients(value: &Value) -> Option<Vec<Arc<ClientInfo>>> {
    let Value::Array(values) = value else { return None };
    values.iter().map(|value| message::decode_present(value.text()?)).collect()
}

fn stats(value: &Value) -> Option<PresenceStats> {
    let [clients, users] = value.array() else { return None };
    let count = |value: &Value| value.number().and_then(|number| u32::try_from(number).ok());
    Some(PresenceStats { num_clients: count(clients)?, num_users: count(users)? })
}
