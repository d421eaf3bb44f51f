//! An endpoint of the simulated world: what it has asked and subscribed, and the rules for what it
//! receives.
//!
//! Invariant: each request gets one reply; a gap is noticed only after an interruption.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::broker::{BrokerEvent, BrokerReply, JoinedStream, Order, Ticket};
use engine::revocation::{Revocation, RevokeOutcome};
use wire::protocol::{Publication, StreamPosition};

use super::messages::{MessageCursor, PlainMessage};
use super::truth::Truth;

/// See the module.
#[derive(Default)]
pub(super) struct SimEndpoint {
    pub(super) open: BTreeMap<u64, Asked>,
    pub(super) subscribed: BTreeMap<Arc<str>, Subscription>,
    pub(super) is_full: bool,
    /// Orders received, by their channels, and how often.
    pub(super) orders: BTreeMap<String, u32>,
    /// Changes of revocations received, by subject and time, and how often.
    pub(super) revocations: BTreeMap<(String, i64), u32>,
    /// Changes of revocations that were stored for this endpoint.
    pub(super) stored: Vec<(String, i64)>,
    /// Results of its surveys: nodes that have answered, and the number of missing ones.
    pub(super) surveys: Vec<(Vec<String>, usize)>,
    /// Questions of other nodes, to be answered.
    pub(super) questions: Vec<Ticket>,
    /// Clients in the last presence replies.
    pub(super) presence: BTreeMap<Arc<str>, BTreeSet<String>>,
    /// Requests that failed.
    pub(super) failures: u64,
    pub(super) successes: u64,
}

/// What may have cost a node publications: it has connected, or subscribed to the channel again.
#[derive(Default)]
pub(super) struct Interruptions {
    node: String,
    pub(super) connects: u64,
    pub(super) subscribes: BTreeMap<Arc<str>, u64>,
}

impl Interruptions {
    pub(super) fn of_node(node: &str) -> Interruptions {
        Interruptions { node: node.to_owned(), ..Interruptions::default() }
    }

    fn of(&self, channel: &Arc<str>) -> u64 {
        self.connects + self.subscribes.get(channel).copied().unwrap_or(0)
    }
}

/// An open request.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    Subscribe(Arc<str>),
    Publish(Arc<str>, Vec<u8>),
    Presence(Arc<str>),
    History(Arc<str>),
    Survey,
    Revoke(Arc<Revocation>),
    Other,
}

/// A subscription, and the position that its subscribers track.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub(super) position: Option<StreamPosition>,
    /// The request that began it; replies to earlier ones are about an earlier subscription.
    first_id: u64,
    /// Interruptions of the node when the position was last certain.
    interruptions: u64,
    messages: MessageCursor,
}

impl SimEndpoint {
    /// Receives an event; `interruptions` are those of the node so far.
    pub(super) fn handle(
        &mut self,
        event: BrokerEvent,
        interruptions: &Interruptions,
        truth: &mut Truth,
    ) {
        match event {
            BrokerEvent::Publication { channel, publication, epoch } => {
                truth.check(&channel, &epoch, &publication);
                let Some(subscription) = self.subscribed.get_mut(&channel) else {
                    panic!("a publication in {channel}, which is not subscribed");
                };
                match publication.offset {
                    0 if channel.starts_with("sys:") => {}
                    0 => {
                        let message = PlainMessage::Publication(publication.data.to_vec());
                        let at = (&*interruptions.node, &*channel);
                        subscription.messages.advance(&truth.messages, at, &message);
                    }
                    _ => subscription.advance(&epoch, &publication, interruptions.of(&channel)),
                }
            }
            BrokerEvent::Position { channel, top } => {
                if let Some(subscription) = self.subscribed.get_mut(&channel)
                    && let Some(held) = &subscription.position
                {
                    let is_behind = held.epoch == top.epoch && top.offset < held.offset;
                    assert!(!is_behind, "{channel}: {top:?} after {held:?}");
                    subscription.set(top, interruptions.of(&channel));
                }
            }
            BrokerEvent::Reply(reply) => self.handle_reply(reply, interruptions, truth),
            BrokerEvent::Question { ticket, .. } => self.questions.push(ticket),
            BrokerEvent::Membership { channel, info, change } => {
                let Some(subscription) = self.subscribed.get_mut(&channel) else {
                    panic!("a change of membership in {channel}, which is not subscribed");
                };
                let message = PlainMessage::Membership(info.client.clone(), change);
                let at = (&*interruptions.node, &*channel);
                subscription.messages.advance(&truth.messages, at, &message);
            }
            BrokerEvent::Control(control) => {
                let Order::Unsubscribe { channel } = &control.order else {
                    panic!("an order that nobody has given: {control:?}");
                };
                let times = self.orders.entry(channel.clone()).or_default();
                *times += 1;
                // Once by Redis, and once by its own node if Redis does not answer in time.
                assert!(*times <= 2, "the order {channel} is given for the third time");
            }
            BrokerEvent::Revocation(revocation) => {
                *self.revocations.entry(change_of(&revocation)).or_default() += 1;
            }
            BrokerEvent::Expired { channel } => panic!("{channel} has no end"),
            BrokerEvent::RevocationsStale => {}
        }
    }

    /// Everything that was published has arrived.
    pub(super) fn expect_messages(&self, interruptions: &Interruptions, truth: &Truth) {
        for (channel, subscription) in &self.subscribed {
            let at = (&*interruptions.node, &**channel);
            subscription.messages.expect_end(&truth.messages, at);
        }
    }

    /// Nothing has failed for long: every gap must have shown by now.
    pub(super) fn expect_certainty(&mut self, interruptions: &Interruptions) {
        for (channel, subscription) in &mut self.subscribed {
            subscription.interruptions = interruptions.of(channel);
        }
    }

    fn handle_reply(
        &mut self,
        reply: BrokerReply,
        interruptions: &Interruptions,
        truth: &mut Truth,
    ) {
        let (id, outcome) = reply.outcome();
        let asked = self.open.remove(&id).expect("one reply for each request");
        match outcome {
            Ok(()) => self.successes += 1,
            Err(_) => self.failures += 1,
        }
        match (asked, reply) {
            (Asked::Subscribe(channel), BrokerReply::Subscribed(_, Ok(stream))) => {
                check_range(&channel, &stream.top.epoch, &stream.publications, truth);
                if let Some(subscription) =
                    self.subscribed.get_mut(&channel).filter(|it| it.first_id <= id)
                {
                    subscription.join(&channel, stream, interruptions.of(&channel));
                }
            }
            (Asked::Subscribe(channel), BrokerReply::Subscribed(_, Err(_))) => {
                // The engine ends or retries the subscription; its position is unknown.
                if let Some(subscription) =
                    self.subscribed.get_mut(&channel).filter(|it| it.first_id <= id)
                {
                    subscription.position = None;
                }
            }
            (Asked::Publish(channel, data), BrokerReply::Published(_, Ok(position))) => {
                assert!(truth.has_published(&data), "acknowledged, but never published: {data:?}");
                let publication = Publication {
                    offset: position.offset,
                    data: data.into(),
                    ..Publication::default()
                };
                truth.check(&channel, &position.epoch, &publication);
            }
            (Asked::History(channel), BrokerReply::History(_, Ok(history))) => {
                check_range(&channel, &history.epoch, &history.publications, truth);
            }
            (Asked::Presence(channel), BrokerReply::Presence(_, Ok(clients))) => {
                let clients = clients.iter().map(|client| client.client.clone()).collect();
                self.presence.insert(channel, clients);
            }
            (Asked::Survey, BrokerReply::Survey(_, Ok(survey))) => {
                let mut nodes: Vec<String> = survey
                    .answers
                    .iter()
                    .map(|answer| String::from_utf8_lossy(answer).into_owned())
                    .collect();
                nodes.sort();
                let is_distinct = nodes.windows(2).all(|pair| pair[0] != pair[1]);
                assert!(is_distinct, "a node has answered twice: {nodes:?}");
                assert!(!nodes.contains(&interruptions.node), "a node has answered itself");
                self.surveys.push((nodes, survey.missing));
            }
            (Asked::Revoke(revocation), BrokerReply::Revoked(_, Ok(RevokeOutcome::Stored))) => {
                self.stored.push(change_of(&revocation));
            }
            (Asked::Revoke(_), BrokerReply::Revoked(_, Ok(_))) => {}
            (Asked::Other, _) => {}
            (asked, reply) => {
                assert!(reply.outcome().1.is_err(), "{asked:?} was answered with {reply:?}");
            }
        }
    }
}

impl Subscription {
    pub(super) fn new(first_id: u64) -> Subscription {
        Subscription { first_id, ..Subscription::default() }
    }

    fn set(&mut self, position: StreamPosition, interruptions: u64) {
        (self.position, self.interruptions) = (Some(position), interruptions);
    }

    /// A publication with an offset: the next one, unless there was an interruption.
    fn advance(&mut self, epoch: &str, publication: &Publication, interruptions: u64) {
        let Some(held) = &self.position else { return };
        if held.epoch == epoch {
            assert!(
                publication.offset > held.offset,
                "delivered again: {publication:?} at {held:?}"
            );
        }
        let is_next = held.epoch == epoch && publication.offset == held.offset + 1;
        assert!(
            is_next || interruptions != self.interruptions,
            "a gap without an interruption: {publication:?} of {epoch} at {held:?}"
        );
        let epoch = epoch.to_owned();
        self.set(StreamPosition { offset: publication.offset, epoch }, interruptions);
    }

    /// The reply to a subscribe: it stands behind every earlier publication.
    fn join(&mut self, channel: &Arc<str>, stream: JoinedStream, interruptions: u64) {
        if stream.top == StreamPosition::default() {
            return;
        }
        if let Some(held) = &self.position
            && interruptions == self.interruptions
        {
            assert_eq!(*held, stream.top, "{channel}: a hidden gap before a reply");
        }
        self.set(stream.top, interruptions);
    }
}

/// Identifies a change of what is revoked.
pub(super) fn change_of(revocation: &Revocation) -> (String, i64) {
    (format!("{:?}", revocation.subject), revocation.changed_at_ms)
}

/// Publications of one read follow each other without a gap.
fn check_range(
    channel: &Arc<str>,
    epoch: &str,
    publications: &[Arc<Publication>],
    truth: &mut Truth,
) {
    for pair in publications.windows(2) {
        let step = pair[1].offset.abs_diff(pair[0].offset);
        assert_eq!(step, 1, "{channel}: a gap in a read: {publications:?}");
    }
    publications.iter().for_each(|publication| truth.check(channel, epoch, publication));
}
