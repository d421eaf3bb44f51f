//! An endpoint of the simulated world: what it has asked and subscribed, and the rules for what it
//! receives.
//!
//! Invariant: each request gets one reply; a gap is noticed only after an interruption.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::broker::{BrokerEvent, BrokerReply, JoinedStream, Ticket};
use wire::protocol::{Publication, StreamPosition};

use super::truth::Truth;

/// See the module.
#[derive(Default)]
pub(super) struct SimEndpoint {
    pub(super) open: BTreeMap<u64, Asked>,
    pub(super) subscribed: BTreeMap<Arc<str>, Subscription>,
    pub(super) is_full: bool,
    /// Contents received in channels without history.
    pub(super) received: BTreeSet<Vec<u8>>,
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
    pub(super) connects: u64,
    pub(super) subscribes: BTreeMap<Arc<str>, u64>,
}

impl Interruptions {
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
                    0 => assert!(
                        self.received.insert(publication.data.to_vec()),
                        "{:?} was delivered twice",
                        publication.data
                    ),
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
            BrokerEvent::Membership { .. }
            | BrokerEvent::Expired { .. }
            | BrokerEvent::Control(_)
            | BrokerEvent::Revocation(_)
            | BrokerEvent::RevocationsStale => {}
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
