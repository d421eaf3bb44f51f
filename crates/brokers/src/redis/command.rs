//! From requests to commands.
//!
//! Invariant: one request is one command and has one answer; what users say is an argument, never part of a script.

use engine::broker::{BrokerRequest, HistoryQuery, JoinRead, PublishOptions};
use engine::limits::IDEMPOTENCY_TTL_MS;
use wire::protocol::protobuf::encode_client_info;
use wire::protocol::{ClientInfo, Publication};

use super::exchange::Opened;
use super::keys::Keys;
use super::payload;
use super::resp::encode;
use super::scripts::Script;
use crate::control;
use crate::limits::EMPTY_STREAM_TTL_MS;

/// What all commands need to know.
pub(super) struct Commander {
    pub(super) node: String,
    pub(super) presence_ttl_ms: u64,
}

/// Where a command goes.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    pub(super) keys: &'p Keys,
    pub(super) opened: &'p Opened,
    pub(super) partition: usize,
}

/// Which part of a stream to read, as the script wants it.
struct Part {
    first: String,
    last: String,
    limit: i64,
    is_reverse: bool,
    epoch: String,
}

impl Commander {
    /// Writes the command of a request. `epoch` was never used; `is_last` says that this node has nobody left in a
    /// channel that a client leaves.
    pub(super) fn request(
        &self,
        place: Place<'_>,
        epoch: u64,
        is_last: bool,
        request: &BrokerRequest,
        out: &mut Vec<u8>,
    ) {
        match request {
            BrokerRequest::Subscribe { channel, read, .. } => match join_part(read) {
                Some((part, meta_ttl_ms)) => place.read(channel, epoch, meta_ttl_ms, &part, out),
                None => encode(out, &[b"ECHO", b""]),
            },
            BrokerRequest::History { channel, query, meta_ttl_ms, .. } => {
                place.read(channel, epoch, *meta_ttl_ms, &history_part(query), out);
            }
            BrokerRequest::Publish { channel, publication, options, .. } => {
                place.publish(channel, epoch, publication, options, out);
            }
            BrokerRequest::Announce { channel, info, change } => {
                let name = place.keys.key(place.partition, "c", channel);
                place.say(&name, &payload::membership(info, *change), out);
            }
            BrokerRequest::Control(control) => {
                place.say(&place.keys.control(), &control::encode(control), out);
            }
            BrokerRequest::AddPresence { channel, info } => {
                self.enter(place, channel, &[&**info], out);
            }
            BrokerRequest::RemovePresence { channel, client } => {
                let last = if is_last { "last" } else { "" };
                let words = [&*self.node, last, channel, &client.client];
                let keys = place.presence_keys(channel);
                place.script(Script::Leave, &keys, &words.map(str::as_bytes), out);
            }
            BrokerRequest::Presence { channel, .. } => {
                place.script(Script::Present, &place.presence_keys(channel)[..3], &[], out);
            }
            BrokerRequest::PresenceStats { channel, .. } => {
                place.script(Script::Count, &place.presence_keys(channel)[..3], &[], out);
            }
            BrokerRequest::RemoveHistory { channel, .. } => {
                let stream = place.keys.key(place.partition, "stream", channel);
                place.script(Script::Clear, &[stream], &[], out);
            }
            BrokerRequest::Unsubscribe { .. } => unreachable!("is no command but a fence"),
        }
    }

    /// Writes that clients are present for another while.
    pub(super) fn enter(
        &self,
        place: Place<'_>,
        channel: &str,
        clients: &[&ClientInfo],
        out: &mut Vec<u8>,
    ) {
        let ttl = self.presence_ttl_ms.to_string();
        let mut infos = Vec::new();
        let ends: Vec<usize> = clients
            .iter()
            .map(|info| {
                encode_client_info(info, &mut infos);
                infos.len()
            })
            .collect();
        let mut words: Vec<&[u8]> = vec![self.node.as_bytes(), ttl.as_bytes(), channel.as_bytes()];
        let mut start = 0;
        for (info, end) in clients.iter().zip(ends) {
            words.extend([info.client.as_bytes(), info.user.as_bytes(), &infos[start..end]]);
            start = end;
        }
        place.script(Script::Enter, &place.presence_keys(channel), &words, out);
    }
}

impl Place<'_> {
    /// Writes the question for a stream's position.
    pub(super) fn position(self, channel: &str, epoch: u64, meta_ttl_ms: u64, out: &mut Vec<u8>) {
        self.read(channel, epoch, meta_ttl_ms, &Part::all(0), out);
    }

    /// Writes something to be said in a channel of Redis.
    pub(super) fn say(self, name: &str, payload: &[u8], out: &mut Vec<u8>) {
        encode(out, &[self.publish_command(), name.as_bytes(), payload]);
    }

    fn publish_command(self) -> &'static [u8] {
        if self.opened.has_shards { b"SPUBLISH" } else { b"PUBLISH" }
    }

    fn publish(
        self,
        channel: &str,
        epoch: u64,
        publication: &Publication,
        options: &PublishOptions,
        out: &mut Vec<u8>,
    ) {
        let name = self.keys.key(self.partition, "c", channel);
        let is_kept = options.history_size > 0;
        if !is_kept && options.version == 0 && options.idempotency_key.is_empty() {
            let mut payload = b"p0::".to_vec();
            payload::publication(publication, &mut payload);
            return self.say(&name, &payload, out);
        }
        let mut payload = Vec::new();
        payload::publication(publication, &mut payload);
        let key = |kind| self.keys.key(self.partition, kind, channel);
        let mut keys = vec![key("meta"), key("stream")];
        if !options.idempotency_key.is_empty() {
            keys.push(self.keys.once(self.partition, channel, &options.idempotency_key));
        }
        let numbers =
            [u64::from(options.history_size), options.history_ttl_ms, options.history_meta_ttl_ms]
                .map(|number| number.to_string());
        let [size, ttl, meta_ttl] = numbers.each_ref().map(|number| number.as_bytes());
        let (epoch, version) = (epoch_name(epoch), options.version.to_string());
        let key_ttl = IDEMPOTENCY_TTL_MS.to_string();
        let words = [
            name.as_bytes(),
            self.publish_command(),
            &payload,
            size,
            ttl,
            meta_ttl,
            epoch.as_bytes(),
            key_ttl.as_bytes(),
            version.as_bytes(),
            options.version_epoch.as_bytes(),
            self.opened.life.as_bytes(),
        ];
        self.script(Script::Publish, &keys, &words, out);
    }

    fn read(self, channel: &str, epoch: u64, meta_ttl_ms: u64, part: &Part, out: &mut Vec<u8>) {
        let key = |kind| self.keys.key(self.partition, kind, channel);
        let numbers = [epoch_name(epoch), meta_ttl_ms.to_string(), EMPTY_STREAM_TTL_MS.to_string()];
        let [epoch, meta_ttl, empty_ttl] = numbers.each_ref().map(|number| number.as_bytes());
        let limit = part.limit.to_string();
        let words: [&[u8]; 9] = [
            epoch,
            meta_ttl,
            empty_ttl,
            part.first.as_bytes(),
            part.last.as_bytes(),
            limit.as_bytes(),
            if part.is_reverse { b"reverse" } else { b"" },
            part.epoch.as_bytes(),
            self.opened.life.as_bytes(),
        ];
        self.script(Script::Read, &[key("meta"), key("stream")], &words, out);
    }

    fn presence_keys(self, channel: &str) -> [String; 4] {
        let key = |kind| self.keys.key(self.partition, kind, channel);
        [key("clients"), key("users"), key("ends"), self.keys.of_node(self.partition)]
    }

    fn script(self, script: Script, keys: &[String], arguments: &[&[u8]], out: &mut Vec<u8>) {
        let count = keys.len().to_string();
        let mut words = Vec::with_capacity(3 + keys.len() + arguments.len());
        words.extend([b"EVALSHA", &self.opened.digests[script as usize][..], count.as_bytes()]);
        words.extend(keys.iter().map(String::as_bytes));
        words.extend_from_slice(arguments);
        encode(out, &words);
    }
}

impl Part {
    fn all(limit: i64) -> Part {
        Part {
            first: "-".to_owned(),
            last: "+".to_owned(),
            limit,
            is_reverse: false,
            epoch: String::new(),
        }
    }
}

/// What a joining subscriber reads; `None` for nothing.
fn join_part(read: &JoinRead) -> Option<(Part, u64)> {
    Some(match read {
        JoinRead::Nothing => return None,
        JoinRead::Position { meta_ttl_ms } => (Part::all(0), *meta_ttl_ms),
        JoinRead::Newest { meta_ttl_ms } => {
            (Part { is_reverse: true, ..Part::all(1) }, *meta_ttl_ms)
        }
        JoinRead::Since { since, limit, meta_ttl_ms } => {
            let query =
                HistoryQuery { limit: Some(*limit), since: Some(since.clone()), reverse: false };
            (history_part(&query), *meta_ttl_ms)
        }
    })
}

fn history_part(query: &HistoryQuery) -> Part {
    let limit = query.limit.map_or(-1, i64::from);
    let mut part = Part { is_reverse: query.reverse, ..Part::all(limit) };
    let Some(since) = &query.since else {
        return part;
    };
    part.epoch.clone_from(&since.epoch);
    let next =
        if query.reverse { since.offset.checked_sub(1) } else { since.offset.checked_add(1) };
    match next {
        Some(offset) if query.reverse => part.last = offset.to_string(),
        Some(offset) => part.first = offset.to_string(),
        None => part.limit = 0,
    }
    part
}

fn epoch_name(epoch: u64) -> String {
    format!("{epoch:016x}")
}

/// How long the position is kept that a joining subscriber holds from now on, when it does.
pub(super) fn meta_ttl_ms(read: &JoinRead) -> Option<u64> {
    match read {
        JoinRead::Nothing => None,
        JoinRead::Position { meta_ttl_ms }
        | JoinRead::Since { meta_ttl_ms, .. }
        | JoinRead::Newest { meta_ttl_ms } => Some(*meta_ttl_ms),
    }
}
