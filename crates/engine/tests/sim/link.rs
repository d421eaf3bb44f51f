//! The network between one worker and the broker. It preserves order unless a fault is injected.
//!
//! After a cut it does what a remote broker's client does: subscribe to the same channels again,
//! and add the same clients to presence. Detecting missed events is up to the engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use brokers::{Broker, Endpoint, Inbox, MemoryBroker};
use engine::broker::{
    BrokerError, BrokerEvent, BrokerRequest, JoinRead, JoinedStream, PresenceRequest,
    PublicationsRequest, RequestId,
};
use wire::protocol::ClientInfo;

/// Events that the broker has sent and the link has not taken.
#[derive(Default)]
pub(crate) struct Mailbox(Mutex<VecDeque<BrokerEvent>>);

impl Inbox for Mailbox {
    fn deliver(&self, event: BrokerEvent) {
        self.with(|events| events.push_back(event));
    }

    fn is_full(&self) -> bool {
        self.with(|events| events.len() >= MAILBOX_MAX)
    }
}

impl Mailbox {
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut VecDeque<BrokerEvent>) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Maximum number of events in flight; above it publishers are refused (111).
const MAILBOX_MAX: usize = 2_000;

/// Id of the link's own requests; the engine does not receive their replies.
const OWN: RequestId<JoinedStream> = RequestId::new(u64::MAX);

/// The link of one worker; see the module.
pub(crate) struct Link {
    mailbox: Arc<Mailbox>,
    endpoint: Endpoint,
    pub(crate) is_up: bool,
    received: BTreeSet<Arc<str>>,
    present: BTreeMap<(Arc<str>, String), Arc<ClientInfo>>,
    held_back: Vec<BrokerEvent>,
    /// Time slices by which a reply is later than an event. Not a fault: the broker is remote and
    /// has to read first.
    answer_lag: u64,
    /// Replies in flight, with the slice in which they arrive.
    slow: VecDeque<(u64, BrokerEvent)>,
    slice: u64,
}

impl Link {
    /// Whether the worker has to take events before the broker accepts publications.
    pub(crate) fn is_full(&self) -> bool {
        self.mailbox.is_full()
    }

    pub(crate) fn new(broker: &MemoryBroker, answer_lag: u64) -> Link {
        let mailbox = Arc::new(Mailbox::default());
        let endpoint = broker.attach(mailbox.clone());
        let (received, present, held_back) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
        let (slow, slice) = (VecDeque::new(), 0);
        Link {
            mailbox,
            endpoint,
            is_up: true,
            received,
            present,
            held_back,
            answer_lag,
            slow,
            slice,
        }
    }

    pub(crate) fn submit(&mut self, broker: &MemoryBroker, request: BrokerRequest) {
        match &request {
            BrokerRequest::Publications(PublicationsRequest::Subscribe { channel, .. })
                if self.is_up =>
            {
                self.received.insert(channel.clone());
            }
            BrokerRequest::Publications(PublicationsRequest::Unsubscribe { channel }) => {
                self.received.remove(channel);
            }
            BrokerRequest::Presence(PresenceRequest::Add { channel, info, .. }) => {
                self.present.insert((channel.clone(), info.client.clone()), info.clone());
            }
            BrokerRequest::Presence(PresenceRequest::Remove { channel, client }) => {
                self.present.remove(&(channel.clone(), client.client.clone()));
            }
            _ => {}
        }
        if self.is_up {
            return broker.submit(self.endpoint, request);
        }
        if let Some(refusal) = request.refuse(BrokerError::Unavailable) {
            self.mailbox.deliver(BrokerEvent::Reply(refusal));
        }
    }

    /// Returns the next event for the worker.
    pub(crate) fn take(&mut self) -> Option<BrokerEvent> {
        if let Some((_, answer)) = self.slow.pop_front_if(|(at, _)| *at <= self.slice) {
            return Some(answer);
        }
        loop {
            let event = self.mailbox.with(VecDeque::pop_front)?;
            if self.answer_lag == 0 || !matches!(event, BrokerEvent::Reply(_)) {
                return Some(event);
            }
            self.slow.push_back((self.slice + self.answer_lag, event));
        }
    }

    /// Advances time by one slice.
    pub(crate) fn tick(&mut self) {
        self.slice += 1;
    }

    pub(crate) fn is_idle(&self) -> bool {
        let has_none = self.held_back.is_empty() && self.slow.is_empty();
        has_none && self.mailbox.with(|events| events.is_empty())
    }

    /// Drops the oldest publication.
    pub(crate) fn lose(&mut self) -> bool {
        self.take_publication(|_| true).is_some()
    }

    /// Holds back the oldest publication of a stream, so that others overtake it.
    pub(crate) fn delay(&mut self) -> bool {
        let event = self.take_publication(|offset| offset > 0);
        let was_there = event.is_some();
        self.held_back.extend(event);
        was_there
    }

    /// Delivers what was held back, newest first.
    pub(crate) fn release(&mut self) -> bool {
        let was_there = !self.held_back.is_empty();
        while let Some(event) = self.held_back.pop() {
            self.mailbox.deliver(event);
        }
        was_there
    }

    /// Turns the oldest reply into an error.
    pub(crate) fn fail(&mut self) -> bool {
        self.mailbox.with(|events| {
            let answer = events.iter_mut().find_map(|event| match event {
                BrokerEvent::Reply(reply) => Some(reply),
                _ => None,
            });
            let was_there = answer.is_some();
            if let Some(reply) = answer {
                reply.refuse(BrokerError::Unavailable);
            }
            was_there
        })
    }

    /// Drops everything in flight; requests are answered with an error.
    pub(crate) fn cut(&mut self, broker: &MemoryBroker) -> bool {
        if !self.is_up {
            return false;
        }
        self.is_up = false;
        broker.detach(self.endpoint);
        self.held_back.clear();
        self.mailbox.with(|events| {
            events.extend(self.slow.drain(..).map(|(_, answer)| answer));
            events.retain_mut(|event| match event {
                BrokerEvent::Reply(reply) => {
                    reply.refuse(BrokerError::Unavailable);
                    true
                }
                _ => false,
            });
        });
        true
    }

    /// Repairs the link, perhaps with a broker that has lost its state.
    pub(crate) fn repair(&mut self, broker: &MemoryBroker) {
        self.endpoint = broker.attach(self.mailbox.clone());
        self.is_up = true;
        for channel in &self.received {
            let (channel, read) = (channel.clone(), JoinRead::Nothing);
            let request = PublicationsRequest::Subscribe { id: OWN, channel, read };
            broker.submit(self.endpoint, request.into());
        }
        for ((channel, _), info) in &self.present {
            let (channel, info, announces) = (channel.clone(), info.clone(), false);
            let request = PresenceRequest::Add { channel, info, announces };
            broker.submit(self.endpoint, request.into());
        }
    }

    fn take_publication(&self, is_meant: impl Fn(u64) -> bool) -> Option<BrokerEvent> {
        self.mailbox.with(|events| {
            let index = events.iter().position(|event| match event {
                BrokerEvent::Publication { publication, .. } => is_meant(publication.offset),
                _ => false,
            })?;
            events.remove(index)
        })
    }
}
