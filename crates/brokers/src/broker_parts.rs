//! The parts of the broker that a node uses, which may be different servers.
//!
//! Invariant: an endpoint receives publications, control messages and revocations from one broker
//! each; of a broker that carries only presence it receives only replies.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::broker::{
    BrokerError, BrokerEvent, BrokerRequest, Membership, PublicationsRequest, RequestId,
};
use engine::rules::Rules;
use wire::protocol::ClientInfo;

use crate::{
    Broker, Endpoint, Health, Inbox, LeavePublisher, NodeBus, OnConfirmed, PresenceBroker,
    PublicationBroker, RegistryBroker,
};

/// See the module.
pub struct BrokerParts {
    publications: Arc<dyn PublicationBroker>,
    node_bus: Arc<dyn NodeBus>,
    registry: Arc<dyn RegistryBroker>,
    presence: Arc<dyn PresenceBroker>,
    /// Whether presence is on another broker than the other parts.
    has_own_presence: bool,
}

/// An endpoint of all parts.
#[derive(Clone, Copy, Debug)]
pub struct PartsEndpoint {
    main: Endpoint,
    presence: Endpoint,
}

/// Passes on the replies of a broker that carries only presence.
struct RepliesOnly(Arc<dyn Inbox>);

/// Publishes leaves as an endpoint of the broker of publications.
struct PartsLeaves {
    publications: Arc<dyn PublicationBroker>,
    endpoint: Endpoint,
    inbox: Arc<ConfirmationInbox>,
}

/// Passes the replies to confirmations on.
#[derive(Default)]
struct ConfirmationInbox {
    /// By the numbers of their requests.
    open: Mutex<HashMap<u64, OnConfirmed>>,
    last: AtomicU64,
}

impl BrokerParts {
    /// Uses one broker for all parts.
    #[must_use]
    pub fn of<B>(broker: Arc<B>) -> BrokerParts
    where
        B: PublicationBroker + NodeBus + RegistryBroker + PresenceBroker + 'static,
    {
        BrokerParts {
            publications: broker.clone(),
            node_bus: broker.clone(),
            registry: broker.clone(),
            presence: broker,
            has_own_presence: false,
        }
    }

    /// Uses another broker for presence.
    #[must_use]
    pub fn with_presence(self, presence: Arc<dyn PresenceBroker>) -> BrokerParts {
        BrokerParts { presence, has_own_presence: true, ..self }
    }

    /// Returns what a broker that carries only presence publishes leaves with.
    #[must_use]
    pub fn leave_publisher(&self) -> Arc<dyn LeavePublisher> {
        let publications = self.publications.clone();
        let inbox = Arc::new(ConfirmationInbox::default());
        let endpoint = publications.attach(inbox.clone());
        Arc::new(PartsLeaves { publications, endpoint, inbox })
    }

    /// Attaches a new endpoint to all parts.
    pub fn attach(&self, inbox: Arc<dyn Inbox>) -> PartsEndpoint {
        let main = self.publications.attach(inbox.clone());
        let presence = match self.has_own_presence {
            true => self.presence.attach(Arc::new(RepliesOnly(inbox))),
            false => main,
        };
        PartsEndpoint { main, presence }
    }

    /// Submits a request of an endpoint to the part that it concerns. Never blocks.
    pub fn submit(&self, endpoint: PartsEndpoint, request: BrokerRequest) {
        match request {
            BrokerRequest::Publications(request) => {
                self.publications.submit_publications(endpoint.main, request);
            }
            BrokerRequest::Presence(request) => {
                self.presence.submit_presence(endpoint.presence, request);
            }
            BrokerRequest::NodeBus(request) => {
                self.node_bus.submit_node_bus(endpoint.main, request);
            }
            BrokerRequest::Registry(request) => {
                self.registry.submit_registry(endpoint.main, request);
            }
        }
    }

    /// Detaches an endpoint from all parts. Its clients leave presence first, while their leaves
    /// can still be published.
    pub fn detach(&self, endpoint: PartsEndpoint) {
        if self.has_own_presence {
            self.presence.detach(endpoint.presence);
        }
        self.publications.detach(endpoint.main);
    }

    /// See [`Broker::set_rules`]. A broker that carries only presence needs none.
    pub fn set_rules(&self, rules: &Arc<Rules>) {
        self.publications.set_rules(rules);
    }

    /// See [`Broker::expire`].
    pub fn expire(&self) {
        self.brokers().for_each(Broker::expire);
    }

    /// See [`Broker::end`].
    pub fn end(&self) {
        if self.has_own_presence {
            self.presence.end();
        }
        self.publications.end();
    }

    /// Returns whether all parts can carry requests, with the reasons of all that cannot.
    #[must_use]
    pub fn health(&self) -> Health {
        self.brokers().map(Broker::health).fold(Health::Ready, |known, next| match (known, next) {
            (known, Health::Ready) => known,
            (Health::Ready, next) => next,
            (
                Health::Unready { is_lasting, reason },
                Health::Unready { is_lasting: is_next_lasting, reason: next_reason },
            ) => Health::Unready {
                is_lasting: is_lasting || is_next_lasting,
                reason: format!("{reason}; {next_reason}"),
            },
        })
    }

    /// See [`Broker::lag`]; that of publications.
    #[must_use]
    pub fn lag(&self) -> Duration {
        self.publications.lag()
    }

    /// See [`Broker::take_warning`].
    #[must_use]
    pub fn take_warning(&self) -> Option<String> {
        self.brokers().find_map(Broker::take_warning)
    }

    fn brokers(&self) -> impl Iterator<Item = &dyn Broker> {
        let presence = self.has_own_presence.then_some(&*self.presence as &dyn Broker);
        std::iter::once(&*self.publications as &dyn Broker).chain(presence)
    }
}

impl LeavePublisher for PartsLeaves {
    fn publish_leave(&self, channel: Arc<str>, info: Arc<ClientInfo>) {
        let change = Membership::Leave;
        let leave = PublicationsRequest::Announce { channel, info, change };
        self.publications.submit_publications(self.endpoint, leave);
    }

    /// Reads the TTL of the channel: requests about a channel take effect in order, so that the
    /// read succeeds only where the leaves before it have arrived.
    fn confirm(&self, channel: Arc<str>, then: OnConfirmed) {
        let id = RequestId::new(self.inbox.begin(then));
        let read = PublicationsRequest::ChannelTtl { id, channel };
        self.publications.submit_publications(self.endpoint, read);
    }
}

impl ConfirmationInbox {
    fn begin(&self, then: OnConfirmed) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        self.open().insert(number, then);
        number
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, OnConfirmed>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox for ConfirmationInbox {
    fn deliver(&self, event: BrokerEvent) {
        let BrokerEvent::Reply(reply) = event else { return };
        let (number, result) = reply.outcome();
        let then = self.open().remove(&number);
        if let Some(then) = then {
            then(match result {
                // A broker that cannot read the TTL of this channel ever can confirm nothing.
                Err(
                    BrokerError::NotSupported | BrokerError::NameTooLong | BrokerError::TooLarge,
                ) => Ok(()),
                result => result,
            });
        }
    }

    fn is_full(&self) -> bool {
        false
    }
}

impl Inbox for RepliesOnly {
    fn deliver(&self, event: BrokerEvent) {
        if let BrokerEvent::Reply(_) = event {
            self.0.deliver(event);
        }
    }

    fn is_full(&self) -> bool {
        self.0.is_full()
    }
}
