//! Encodes broker requests as Redis commands.
//!
//! Invariant: one request is one command with one reply; user data is an argument, never part of a
//! script.

use std::time::Duration;

use engine::broker::{Control, PresenceRequest};
use engine::channel::LIFECYCLE;
use engine::lifecycle::{Change, Lifecycle};
use engine::revocation::{Revocation, Subject};
use wire::protocol::ClientInfo;
use wire::protocol::protobuf::encode_client_info;

use super::command_request::{CommandRequest, PublishCommand};
use super::driver_messages::Opened;
use super::keys::Keys;
use super::link::ProbeScope;
use super::open_request::OpenRequest;
use super::page_progress::PageProgress;
use super::payload;
use super::publish_call::{PublishRun, PublishScriptCall, epoch_name};
use super::published_leaves::PublishedLeaves;
use super::resp::encode;
use super::scripts::Script;
use super::settings::{RedisParts, RedisSettings};
use super::stream_range::StreamRange;
use crate::channel_options::EncodedOptions;
use crate::control;
use crate::limits::{
    CLEANED_PER_COMMAND, EMPTY_STREAM_TTL_MS, LIFECYCLE_TTL_MS, PARTITIONS, REGISTRY_TTL_MS,
    REVOCATIONS_PER_COMMAND,
};

/// Settings of this node that commands contain.
pub(super) struct CommandEncoder {
    pub(super) node: String,
    /// Node name in lifecycle events.
    pub(super) name: String,
    lease_ms: u64,
    /// Maximum length of the stream of lifecycle events.
    events_max: u32,
    pub(super) presence_ttl_ms: u64,
}

/// State that a node reports when it renews its lease.
pub(super) struct LeaseReport {
    /// Whether the node can take on the cleanup of another node.
    pub(super) is_free: bool,
    /// Number of this node's clients that Redis should hold; `None` while events are in flight.
    pub(super) clients: Option<usize>,
    pub(super) options: EncodedOptions,
}

/// Keys, server and partition that a command addresses.
#[derive(Clone, Copy)]
pub(super) struct CommandTarget<'p> {
    pub(super) keys: &'p Keys,
    pub(super) opened: &'p Opened,
    pub(super) partition: usize,
}

/// What a request's command contains beside the request.
#[derive(Clone, Copy)]
pub(super) struct RequestContext {
    /// An epoch that was never used, for a stream that begins.
    pub(super) unused_epoch: u64,
    pub(super) remaining_clients: RemainingClients,
}

/// Whether clients of this node remain in the channel that a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemainingClients {
    Some,
    None,
}

/// One step of a node's cleanup.
pub(super) struct CleanupStep<'s> {
    pub(super) node: &'s str,
    /// Offline reason of its clients.
    pub(super) reason: &'s str,
    /// `HSCAN` cursor of the step.
    pub(super) cursor: &'s [u8],
}

struct StreamRead<'r> {
    channel: &'r str,
    epoch: u64,
    meta_ttl_ms: u64,
    range: StreamRange,
}

impl CommandEncoder {
    pub(super) fn new(settings: &RedisSettings) -> CommandEncoder {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        CommandEncoder {
            node: settings.node.clone(),
            name: settings.name.clone(),
            lease_ms: ms(settings.lease),
            events_max: settings.events_max,
            presence_ttl_ms: ms(settings.presence_ttl),
        }
    }

    /// Writes the command of a request.
    pub(super) fn request(
        &self,
        target: CommandTarget<'_>,
        context: RequestContext,
        pending: &OpenRequest,
        out: &mut Vec<u8>,
    ) {
        let epoch = context.unused_epoch;
        let first = PageProgress::default();
        let progress = pending.progress.as_deref().unwrap_or(&first);
        match &pending.request {
            CommandRequest::Subscribe { channel, .. } | CommandRequest::History { channel, .. } => {
                match StreamRange::next_of(&pending.request, progress) {
                    Some((range, meta_ttl_ms)) => {
                        target.read(&StreamRead { channel, epoch, meta_ttl_ms, range }, out);
                    }
                    None => encode(out, &[b"ECHO", b""]),
                }
            }
            CommandRequest::Publish(command) => target.publish(command, epoch, out),
            CommandRequest::Announce { channel, info, change } => {
                let name = target.keys.key(target.partition, "c", channel);
                target.publish_payload(&name, &payload::membership(info, *change), out);
            }
            CommandRequest::RemoveHistory { channel, .. } => {
                let stream = target.keys.key(target.partition, "stream", channel);
                target.script(Script::Clear, &[stream], &[], out);
            }
            CommandRequest::LimitTtl { channel, ttl_ms } => {
                target.channel_ttl(channel, *ttl_ms, out);
            }
            CommandRequest::ChannelTtl { channel, .. } => target.channel_ttl(channel, 0, out),
            CommandRequest::Presence(request) => {
                self.presence(target, context, (request, progress), out);
            }
            CommandRequest::Control(control) => target.control(control, out),
            CommandRequest::Answer { ticket, answer } => {
                let payload = control::encode_answer(&self.node, ticket.number, answer);
                target.publish_payload(&target.keys.control_of(&ticket.node), &payload, out);
            }
            CommandRequest::Revoke { revocation, .. } => target.revoke(revocation, out),
            CommandRequest::FindRevocation { subject, .. } => target.find_revocation(subject, out),
        }
    }

    fn presence(
        &self,
        target: CommandTarget<'_>,
        context: RequestContext,
        (request, progress): (&PresenceRequest, &PageProgress),
        out: &mut Vec<u8>,
    ) {
        let keys = target.presence_keys(request.channel(), &self.node);
        match request {
            PresenceRequest::Add { channel, info, announces } => {
                self.renew_presence(target, channel, &[(&**info, *announces)], out);
            }
            PresenceRequest::Remove { channel, client } => {
                let last = match context.remaining_clients {
                    RemainingClients::None => "last",
                    RemainingClients::Some => "",
                };
                let words = [&*self.node, last, channel, &client.client];
                target.script(Script::Leave, &keys, &words.map(str::as_bytes), out);
            }
            PresenceRequest::Clients { .. } => {
                let budget = progress.budget().to_string();
                let words = [progress.cursor(), budget.as_bytes()];
                target.script(Script::Present, &keys[..3], &words, out);
            }
            PresenceRequest::Stats { .. } => target.script(Script::Count, &keys[..3], &[], out),
        }
    }

    /// Writes a renewal of clients' presence.
    pub(super) fn renew_presence(
        &self,
        target: CommandTarget<'_>,
        channel: &str,
        clients: &[(&ClientInfo, bool)],
        out: &mut Vec<u8>,
    ) {
        let ttl = self.presence_ttl_ms.to_string();
        let mut infos = Vec::new();
        let ends: Vec<usize> = clients
            .iter()
            .map(|(info, _)| {
                encode_client_info(info, &mut infos);
                infos.len()
            })
            .collect();
        let mut words: Vec<&[u8]> = vec![self.node.as_bytes(), ttl.as_bytes(), channel.as_bytes()];
        let mut start = 0;
        for ((info, announces), end) in clients.iter().zip(ends) {
            let announces: &[u8] = if *announces { b"1" } else { b"0" };
            let info_bytes = &infos[start..end];
            words.extend([info.client.as_bytes(), info.user.as_bytes(), info_bytes, announces]);
            start = end;
        }
        target.script(Script::Enter, &target.presence_keys(channel, &self.node), &words, out);
    }

    /// Writes a renewal of this node's lease.
    pub(super) fn lease(&self, target: CommandTarget<'_>, report: &LeaseReport, out: &mut Vec<u8>) {
        let node = &self.node;
        let (online, owners) = (format!("online:{node}"), format!("owners:{node}"));
        let keys = ["nodes", "names", "claims", &online, &owners, "options"]
            .map(|name| target.keys.registry(name));
        let (lease, ttl) = (self.lease_ms.to_string(), REGISTRY_TTL_MS.to_string());
        let free = if report.is_free { "free" } else { "" };
        let clients = report.clients.map_or(String::new(), |count| count.to_string());
        let (control, look) = (target.keys.control(), control::encode_look());
        let EncodedOptions { digest, text } = &report.options;
        let mut words = [&**node, &*self.name, &lease, &ttl, free, &clients, digest, text]
            .map(str::as_bytes)
            .to_vec();
        words.extend([target.publish_command(), control.as_bytes(), &look]);
        target.script(Script::Lease, &keys, &words, out);
    }

    /// Writes lifecycle events of this node's clients.
    pub(super) fn lifecycle(
        &self,
        target: CommandTarget<'_>,
        events: &[Lifecycle],
        out: &mut Vec<u8>,
    ) {
        let keys = self.registry_keys(target, &self.node);
        let [size, ttl, node_ttl] = [u64::from(self.events_max), LIFECYCLE_TTL_MS, REGISTRY_TTL_MS]
            .map(|it| it.to_string());
        let times: Vec<String> = events.iter().map(|event| event.at_ms.to_string()).collect();
        let channel = target.lifecycle_channel();
        let head = [&*self.name, &size, &ttl, &node_ttl].map(str::as_bytes);
        let mut words: Vec<&[u8]> = head.to_vec();
        words.extend([target.publish_command(), channel.as_bytes()]);
        for (event, time) in events.iter().zip(&times) {
            let kind = if event.change == Change::Online { "+" } else { "-" };
            let (_, reason) = event.change.words();
            let of_client = [kind, &event.info.client, &event.info.user, time, reason];
            words.extend(of_client.map(str::as_bytes));
        }
        target.script(Script::Lifecycle, &keys[..4], &words, out);
    }

    /// Writes one step of the cleanup of a node's clients.
    pub(super) fn clean_up(
        &self,
        target: CommandTarget<'_>,
        step: &CleanupStep<'_>,
        out: &mut Vec<u8>,
    ) {
        let CleanupStep { node, reason, cursor } = *step;
        let keys = self.registry_keys(target, node);
        let [size, ttl, count] =
            [u64::from(self.events_max), LIFECYCLE_TTL_MS, u64::from(CLEANED_PER_COMMAND)]
                .map(|it| it.to_string());
        let channel = target.lifecycle_channel();
        let words = [
            node.as_bytes(),
            size.as_bytes(),
            ttl.as_bytes(),
            target.publish_command(),
            channel.as_bytes(),
            reason.as_bytes(),
            count.as_bytes(),
            if node == self.node { b"self" } else { b"" },
            cursor,
        ];
        target.script(Script::CleanUp, &keys, &words, out);
    }

    /// Writes a scan for clients that Redis records as online at this node.
    pub(super) fn scan(&self, target: CommandTarget<'_>, cursor: &[u8], out: &mut Vec<u8>) {
        let key = target.keys.registry(&format!("online:{}", self.node));
        let count = CLEANED_PER_COMMAND.to_string();
        encode(out, &[b"HSCAN", key.as_bytes(), cursor, b"COUNT", count.as_bytes()]);
    }

    #[expect(clippy::unused_self, reason = "a method beside its callers")]
    fn registry_keys(&self, target: CommandTarget<'_>, node: &str) -> [String; 7] {
        let (online, owners) = (format!("online:{node}"), format!("owners:{node}"));
        ["nodes", &online, &owners, "events", "names", "claims", "options"]
            .map(|name| target.keys.registry(name))
    }
}

impl<'p> CommandTarget<'p> {
    /// The server and the tag of a partition.
    pub(super) fn new(keys: &'p Keys, opened: &'p Opened, index: usize) -> CommandTarget<'p> {
        CommandTarget { keys, opened, partition: index % PARTITIONS }
    }

    /// Writes a read of a stream's position.
    pub(super) fn position(self, channel: &str, epoch: u64, meta_ttl_ms: u64, out: &mut Vec<u8>) {
        let range = StreamRange::position();
        self.read(&StreamRead { channel, epoch, meta_ttl_ms, range }, out);
    }

    /// Writes a message to a pub/sub channel.
    pub(super) fn publish_payload(self, name: &str, payload: &[u8], out: &mut Vec<u8>) {
        encode(out, &[self.publish_command(), name.as_bytes(), payload]);
    }

    /// Writes a probe: the server must execute it and deliver its message to this node.
    pub(super) fn probe(self, name: &str, probe_scope: ProbeScope, out: &mut Vec<u8>) {
        let extent: &[u8] = if probe_scope == ProbeScope::Full { b"all" } else { b"" };
        let words = [name.as_bytes(), self.publish_command(), extent];
        self.script(Script::Probe, &[name.to_owned()], &words, out);
    }

    /// Writes a control message to the nodes that have the addressed clients.
    fn control(self, control: &Control, out: &mut Vec<u8>) {
        let payload = control::encode(control);
        // A broadcast is required in two cases. When one user connects to two nodes at once, the
        // registry may not list both clients yet; and a server that evicts keys may have lost the
        // registry.
        if control.target.admitted_before.is_some() || self.opened.identity.eviction.is_possible() {
            return self.publish_payload(&self.keys.control(), &payload, out);
        }
        let words = [
            self.keys.registry_base().as_bytes(),
            control.target.user.as_bytes(),
            control.target.client.as_bytes(),
            self.publish_command(),
            &payload,
        ];
        self.script(Script::Order, &[self.keys.registry("nodes")], &words, out);
    }

    /// Writes a survey question to all nodes.
    pub(super) fn survey(self, payload: &[u8], out: &mut Vec<u8>) {
        let control = self.keys.control();
        let words = [self.publish_command(), control.as_bytes(), payload];
        self.script(Script::Survey, &[self.keys.registry("nodes")], &words, out);
    }

    /// Writes a read of the channels in which a node's clients are present.
    pub(super) fn channels_of(self, node: &str, out: &mut Vec<u8>) {
        let key = self.keys.of_node(self.partition, node);
        encode(out, &[b"SMEMBERS", key.as_bytes()]);
    }

    /// Writes one step of removing a failed node's clients from a channel. Their leaves are
    /// announced by Redis if it carries publications too.
    pub(super) fn evict(
        self,
        (node, parts): (&str, RedisParts),
        step: &PublishedLeaves,
        out: &mut Vec<u8>,
    ) {
        let channel = &step.channel;
        let name = match parts {
            RedisParts::All => self.keys.key(self.partition, "c", channel),
            RedisParts::Presence => String::new(),
        };
        let count = CLEANED_PER_COMMAND.to_string();
        let mut words = vec![
            node.as_bytes(),
            channel.as_bytes(),
            self.publish_command(),
            name.as_bytes(),
            &step.cursor,
            count.as_bytes(),
        ];
        words.extend(step.clients.iter().map(String::as_bytes));
        self.script(Script::Evict, &self.presence_keys(channel, node), &words, out);
    }

    /// Writes a read of a channel's remaining TTL; a non-zero `ttl_ms` starts it when there is
    /// none.
    pub(super) fn channel_ttl(self, channel: &str, ttl_ms: u64, out: &mut Vec<u8>) {
        let ttl = ttl_ms.to_string();
        self.script(Script::ChannelTtl, &self.ttl_keys(channel), &[ttl.as_bytes()], out);
    }

    /// Writes the removal of an expired channel.
    pub(super) fn end(self, channel: &str, out: &mut Vec<u8>) {
        self.script(Script::End, &self.ttl_keys(channel), &[], out);
    }

    fn ttl_keys(self, channel: &str) -> [String; 4] {
        ["life", "lived", "meta", "stream"].map(|kind| self.keys.key(self.partition, kind, channel))
    }

    /// Writes a revocation.
    pub(super) fn revoke(self, revocation: &Revocation, out: &mut Vec<u8>) {
        let keys = ["revocations", "revocation_ends"].map(|name| self.keys.registry(name));
        let subject = control::subject_key(&revocation.subject);
        let ends_at = revocation.ends_at.to_string();
        let (change, channel) = (control::encode_revocation(revocation), self.keys.control());
        let words = [
            subject.as_bytes(),
            ends_at.as_bytes(),
            &change,
            self.publish_command(),
            channel.as_bytes(),
        ];
        self.script(Script::Revoke, &keys, &words, out);
    }

    /// Writes a read of one subject's revocation.
    pub(super) fn find_revocation(self, subject: &Subject, out: &mut Vec<u8>) {
        let key = self.keys.registry("revocations");
        let subject = control::subject_key(subject);
        encode(out, &[b"HGET", key.as_bytes(), subject.as_bytes()]);
    }

    /// Writes a read of a part of the revocations.
    pub(super) fn read_revocations(self, cursor: &[u8], out: &mut Vec<u8>) {
        let key = self.keys.registry("revocations");
        let count = REVOCATIONS_PER_COMMAND.to_string();
        encode(out, &[b"HSCAN", key.as_bytes(), cursor, b"COUNT", count.as_bytes()]);
    }

    fn lifecycle_channel(self) -> String {
        self.keys.key(Keys::partition(LIFECYCLE), "c", LIFECYCLE)
    }

    pub(super) fn publish_command(self) -> &'static [u8] {
        self.opened.publish_command()
    }

    fn publish(self, command: &PublishCommand, unused_epoch: u64, out: &mut Vec<u8>) {
        if !command.needs_script() {
            let name = self.keys.key(self.partition, "c", &command.channel);
            let mut payload = b"p0::".to_vec();
            payload::publication(&command.publication, &mut payload);
            return self.publish_payload(&name, &payload, out);
        }
        let mut call = PublishScriptCall::new(self.opened, unused_epoch);
        let run = PublishRun { partition: self.partition, first: command, length: 1 };
        call.begin_run(self.keys, &run);
        call.add(command);
        call.write(self.opened, out);
    }

    fn read(self, read: &StreamRead<'_>, out: &mut Vec<u8>) {
        let StreamRead { channel, epoch, meta_ttl_ms, range } = read;
        let key = |kind| self.keys.key(self.partition, kind, channel);
        let numbers =
            [epoch_name(*epoch), meta_ttl_ms.to_string(), EMPTY_STREAM_TTL_MS.to_string()];
        let [epoch, meta_ttl, empty_ttl] = numbers.each_ref().map(|number| number.as_bytes());
        let (limit, budget) = (range.limit.to_string(), range.budget.to_string());
        let words: [&[u8]; 10] = [
            epoch,
            meta_ttl,
            empty_ttl,
            range.first.as_bytes(),
            range.last.as_bytes(),
            limit.as_bytes(),
            if range.is_reverse { b"reverse" } else { b"" },
            range.epoch.as_bytes(),
            self.opened.identity.replication_id.as_bytes(),
            budget.as_bytes(),
        ];
        self.script(Script::Read, &[key("meta"), key("stream")], &words, out);
    }

    fn presence_keys(self, channel: &str, node: &str) -> [String; 4] {
        let key = |kind| self.keys.key(self.partition, kind, channel);
        [key("clients"), key("users"), key("ends"), self.keys.of_node(self.partition, node)]
    }

    pub(super) fn script(
        self,
        script: Script,
        keys: &[String],
        arguments: &[&[u8]],
        out: &mut Vec<u8>,
    ) {
        let count = keys.len().to_string();
        let mut words = Vec::with_capacity(3 + keys.len() + arguments.len());
        words.extend([b"EVALSHA", &self.opened.digests[script as usize][..], count.as_bytes()]);
        words.extend(keys.iter().map(String::as_bytes));
        words.extend_from_slice(arguments);
        encode(out, &words);
    }
}
