//! Presence over all nodes: one message for each client of a channel, under the lease of its node.
//!
//! Which clients of this node are present is known here as soon as the node takes up a request, and
//! is stored in the order of the channel's requests; what could not be stored, or was not since a
//! task has failed, is stored with a renewal of the lease.
//!
//! Invariant: an entry counts only while the lease of its node is valid; after that one other node
//! cleans up the entries, and claims the cleanup by a conditional store.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use engine::broker::BrokerError;
use engine::channel::LIFECYCLE;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};
use tracing::{debug, info, warn};
use wire::protocol::{ClientInfo, PushEvent};

use super::availability::UnavailableCause;
use super::lease::Lease;
use super::lease_core::{LeaseState, is_lease, name_in};
use super::lifecycle_events;
use super::link::NatsLink;
use super::record;
use super::stored_message::{Ack, StoredMessage};
use super::subject::{self, ChannelName, Store};
use crate::Endpoint;
use crate::limits::{LEASE_RENEWALS, VERIFICATIONS_MAX};

/// See the module.
pub(super) struct PresenceStore {
    pub(super) link: Rc<NatsLink>,
    /// Name of this node.
    pub(super) name: String,
    lease: Lease,
    lease_ms: u64,
    /// The entries that NATS has of this node may differ from [`PresenceStore::own`].
    must_restore_entries: Cell<bool>,
    /// The online events of this node's clients may be missing in NATS.
    must_resend_lifecycle: Cell<bool>,
    /// Leases of failed nodes are left, and offline events of their clients may be missing.
    must_publish_leaves: Cell<bool>,
    /// Held by the one task that restores the entries.
    restoring: Mutex<()>,
    /// Entries of this node by their subjects; one for each client and channel here.
    own: RefCell<HashMap<Endpoint, HashMap<String, Bytes>>>,
    /// Identifiers of nodes whose lease has expired; a node adds one with each start.
    failed: RefCell<HashSet<String>>,
    /// Endpoints of this node that are detached; one for each worker that ended.
    detached: RefCell<HashSet<String>>,
    /// Number of running nodes whose identifier sorts before that of this node; `None` before the
    /// first renewal.
    rank: Cell<Option<usize>>,
    /// Another node with this node's name, and the sequence of its lease when first seen.
    twin: RefCell<Option<(String, u64)>>,
}

impl PresenceStore {
    pub(super) fn new(link: Rc<NatsLink>, name: String, lease_ms: u64) -> PresenceStore {
        PresenceStore {
            lease: Lease::new(link.clone(), &name, lease_ms),
            link,
            name,
            lease_ms,
            must_restore_entries: Cell::new(false),
            must_resend_lifecycle: Cell::new(false),
            must_publish_leaves: Cell::new(true),
            restoring: Mutex::default(),
            own: RefCell::default(),
            failed: RefCell::default(),
            detached: RefCell::default(),
            rank: Cell::new(None),
            twin: RefCell::default(),
        }
    }

    /// A client of this node is present in a channel: [`PresenceStore::store`] must follow. Returns
    /// `false` if its endpoint is detached.
    pub(super) fn add(
        &self,
        endpoint: Endpoint,
        name: &ChannelName,
        info: &Arc<ClientInfo>,
    ) -> bool {
        if self.detached.borrow().contains(&self.endpoint(endpoint)) {
            return false;
        }
        let subject = self.entry(endpoint, &name.token, &info.client);
        let payload = payload(name, info);
        self.own.borrow_mut().entry(endpoint).or_default().insert(subject, payload);
        true
    }

    /// Stores the entry of a client, even if it has left meanwhile: a reader between sees it, and
    /// the removal follows.
    pub(super) async fn store(
        &self,
        endpoint: Endpoint,
        name: &ChannelName,
        info: &Arc<ClientInfo>,
    ) {
        // Otherwise the next renewal stores all entries: while NATS stores none, requests must not
        // wait for one time-out after the other.
        if self.must_restore_entries.get() {
            return;
        }
        let subject = self.entry(endpoint, &name.token, &info.client);
        let own = self.payload(endpoint, &subject);
        let payload = own.unwrap_or_else(|| payload(name, info));
        if self.store_entry(endpoint, &subject, payload).await.is_err() {
            self.request_restore();
        }
    }

    /// A client of this node is not present any longer: [`PresenceStore::remove`] must follow.
    pub(super) fn forget(&self, endpoint: Endpoint, name: &ChannelName, client: &str) {
        let subject = self.entry(endpoint, &name.token, client);
        if let Some(own) = self.own.borrow_mut().get_mut(&endpoint) {
            own.remove(&subject);
        }
    }

    /// Removes the entry of a client that was forgotten.
    pub(super) async fn remove(&self, endpoint: Endpoint, name: &ChannelName, client: &str) {
        // Otherwise the next renewal removes the entry.
        if self.must_restore_entries.get() {
            return;
        }
        let subject = self.entry(endpoint, &name.token, client);
        // By subject: after a loss the same sequence may belong to another message.
        let purged = self.link.purge(&self.link.names.presence_stream(), &subject).await;
        if purged.is_err() {
            self.request_restore();
        }
    }

    /// The clients of all nodes that are present in a channel.
    pub(super) async fn clients(
        &self,
        name: &ChannelName,
    ) -> Result<Vec<Arc<ClientInfo>>, BrokerError> {
        if !self.link.has_jetstream {
            return Err(BrokerError::Unavailable);
        }
        let filter = self.link.names.presence("*", "*", &name.token, "*");
        let stored = self.link.range(&self.link.names.presence_stream(), &filter).await?;
        Ok(stored.iter().filter(|stored| self.counts(&stored.subject)).filter_map(client).collect())
    }

    /// The clients of a detached endpoint are not present any longer. The future publishes that
    /// they have left and removes their entries, when every channel has handled the requests of the
    /// endpoint.
    pub(super) fn detach<F: Future<Output = ()>>(
        self: &Rc<Self>,
        endpoint: Endpoint,
        are_handled: F,
    ) -> Option<impl Future<Output = ()> + use<F>> {
        self.detached.borrow_mut().insert(self.endpoint(endpoint));
        let own = self.own.borrow_mut().remove(&endpoint).filter(|own| !own.is_empty())?;
        let presence = self.clone();
        Some(async move {
            are_handled.await;
            let _published = presence.publish_leaves(own.values()).await;
            let node = &presence.link.names.node;
            let filter = presence.link.names.presence(node, &presence.endpoint(endpoint), "*", "*");
            let stream = presence.link.names.presence_stream();
            if presence.link.purge(&stream, &filter).await.is_err() {
                presence.request_restore();
            }
        })
    }

    /// Returns whether this node has no entries.
    pub(super) fn is_empty(&self) -> bool {
        self.own.borrow().values().all(HashMap::is_empty)
    }

    /// Lets the next renewal store all entries of this node again.
    pub(super) fn request_restore(&self) {
        self.must_restore_entries.set(true);
    }

    /// How long this node waits before it creates a missing stream, so that nodes do not create it
    /// at the same time: zero for the first of the running nodes. A node that does not know the
    /// others yet derives the delay from its identifier.
    pub(super) fn creation_delay(&self) -> Duration {
        let sum = |sum: u32, byte: u8| sum.wrapping_mul(31).wrapping_add(byte.into());
        let odds = self.link.names.node.bytes().fold(0, sum) % 16;
        match self.rank.get() {
            Some(rank) => {
                let rank = u32::try_from(rank.min(RANKS_MAX)).unwrap_or(0);
                // A rank may be some seconds old.
                STREAM_TURN * rank + STREAM_TURN / 16 * odds
            }
            None => STREAM_TURN / 32 * odds,
        }
    }

    /// Returns whether the next renewal is urgent.
    pub(super) fn has_pending_work(&self) -> bool {
        self.lease.is_claimed() || self.must_restore_entries.get()
    }

    /// Returns whether the caller must send the events of all online clients again.
    pub(super) fn take_resend(&self) -> bool {
        !self.must_restore_entries.get() && self.must_resend_lifecycle.take()
    }

    /// Lets the events of all online clients be sent again.
    pub(super) fn resend_lifecycle(&self) {
        self.must_resend_lifecycle.set(true);
    }

    /// Returns whether no lifecycle event is missing, of this node or of a failed one.
    pub(super) fn has_published_all(&self) -> bool {
        !self.must_resend_lifecycle.get() && !self.must_publish_leaves.get()
    }

    /// Renews the lease of this node, restores its entries if needed, and cleans up failed nodes.
    pub(super) async fn renew(&self) -> Result<(), BrokerError> {
        let availability = &self.link.shared.availability;
        let state = match self.lease.renew().await {
            Ok(state) => state,
            Err(error) => {
                if let Some(reason) = self.lease.reason() {
                    availability.set(UnavailableCause::Lease, &reason);
                }
                return Err(error);
            }
        };
        availability.clear(UnavailableCause::Lease);
        match state {
            LeaseState::Held => {}
            LeaseState::Lost => {
                info!("NATS: the presence entries of this node are lost, and are stored again");
                self.must_restore_entries.set(true);
            }
            LeaseState::Forgotten => {
                warn!(
                    "NATS: other nodes have cleaned up this node as failed; its presence entries are stored and its lifecycle events sent again"
                );
                self.must_restore_entries.set(true);
                self.must_resend_lifecycle.set(true);
            }
        }
        let restored = self.restore().await;
        if restored.is_ok() && !self.must_restore_entries.get() {
            availability.clear(UnavailableCause::Store(Store::Presence));
        }
        restored.and(self.check_others().await)
    }

    /// Reads the leases of all nodes and cleans up the nodes whose leases have expired.
    async fn check_others(&self) -> Result<(), BrokerError> {
        let names = &self.link.names;
        let own = names.lease(&names.node);
        let leases = self.link.range(&names.presence_stream(), &names.lease("*")).await?;
        let now_ms = leases.iter().map(|lease| lease.at_ms).max().unwrap_or(0);
        let is_twin = |lease: &&StoredMessage| {
            lease.subject != own && name_in(lease).is_some_and(|name| name == self.name)
        };
        self.check_twin(leases.iter().find(is_twin));
        let is_before = |lease: &&StoredMessage| {
            lease.subject < own && lease.at_ms + self.lease_ms > now_ms && is_lease(lease)
        };
        self.rank.set(Some(leases.iter().filter(is_before).count()));
        let expired = leases.iter().filter(|lease| lease.at_ms + self.lease_ms <= now_ms);
        let expired: Vec<&StoredMessage> = expired.filter(|lease| lease.subject != own).collect();
        self.failed.borrow_mut().extend(expired.iter().map(|lease| node(lease)));
        // A claimed lease stays until all offline events of its node are published.
        let is_left =
            |lease: &StoredMessage| lease.at_ms + self.lease_ms <= now_ms || !is_lease(lease);
        self.must_publish_leaves.set(leases.iter().any(is_left));
        let mut outcome = Ok(());
        for lease in expired {
            // A failed cleanup does not keep other nodes from theirs.
            outcome = outcome.and(self.clean_up(&node(lease), lease).await);
        }
        for lease in &leases {
            if lease.at_ms + self.lease_ms > now_ms && is_lease(lease) {
                self.failed.borrow_mut().remove(&node(lease));
            }
        }
        outcome
    }

    /// Adds a warning if another running node has the same name. A node that was killed still has
    /// a lease for a while; a lease that is renewed shows that the node runs.
    fn check_twin(&self, lease: Option<&StoredMessage>) {
        let seen = lease.map(|lease| (node(lease), lease.sequence));
        let mut known = self.twin.borrow_mut();
        match (&*known, seen) {
            (Some((twin, first)), Some((node, sequence))) if *twin == node => {
                if *first != sequence {
                    self.link.shared.warnings.add_twin(&self.name);
                }
            }
            (_, seen) => *known = seen,
        }
    }

    /// Identifiers of the nodes with a valid lease; none without JetStream.
    pub(super) async fn living(&self) -> Result<Vec<String>, BrokerError> {
        if !self.link.has_jetstream {
            return Ok(Vec::new());
        }
        let names = &self.link.names;
        let leases = self.link.range(&names.presence_stream(), &names.lease("*")).await?;
        let now_ms = self.link.now_ms();
        let living =
            leases.iter().filter(|lease| lease.at_ms + self.lease_ms > now_ms && is_lease(lease));
        Ok(living.map(node).collect())
    }

    /// Sets the clock of the link by the time at which NATS stored the lease of this node.
    pub(super) async fn learn_time(&self) -> Result<(), BrokerError> {
        // The lease is stored first; the rest of a renewal may take a while.
        let stored = Instant::now();
        self.renew().await?;
        let names = &self.link.names;
        let leases = self.link.range(&names.presence_stream(), &names.lease(&names.node)).await?;
        if let Some(lease) = leases.last() {
            let since_ms = u64::try_from(stored.elapsed().as_millis()).unwrap_or(0);
            self.link.set_now(lease.at_ms + since_ms);
        }
        Ok(())
    }

    /// If requested: stores every entry of this node again and removes older ones.
    async fn restore(&self) -> Result<(), BrokerError> {
        let Ok(_turn) = self.restoring.try_lock() else { return Ok(()) };
        if !self.must_restore_entries.take() {
            return Ok(());
        }
        let restored = self.store_entries().await;
        if restored.is_err() {
            self.must_restore_entries.set(true);
        }
        restored
    }

    async fn store_entries(&self) -> Result<(), BrokerError> {
        let names = &self.link.names;
        let (stream, lease) = (names.presence_stream(), names.lease(&names.node));
        let newest = self.link.newest(&stream, &lease).await?.map_or(0, |lease| lease.sequence);
        let entries: Vec<(Endpoint, String)> = {
            let own = self.own.borrow();
            let entries =
                own.iter().flat_map(|(endpoint, own)| own.keys().map(|key| (*endpoint, key)));
            entries.map(|(endpoint, subject)| (endpoint, subject.clone())).collect()
        };
        let storing = entries.iter().map(|(endpoint, subject)| self.put(*endpoint, subject));
        stream::iter(storing).buffer_unordered(VERIFICATIONS_MAX).try_collect::<()>().await?;
        let filter = format!("{}.presence.{}.>", names.prefix, names.node);
        self.link.purge_before(&stream, &filter, newest).await
    }

    /// Removes the entries and the lease of this node when it ends.
    pub(super) async fn end(&self) {
        self.lease.end().await;
        let _restored = self.restoring.lock().await;
        let names = &self.link.names;
        let stream = names.presence_stream();
        let entries = format!("{}.presence.{}.>", names.prefix, names.node);
        if self.link.purge(&stream, &entries).await.is_ok() {
            // On failure the lease expires, and another node cleans up.
            let _later = self.link.purge(&stream, &names.lease(&names.node)).await;
        }
    }

    async fn put(&self, endpoint: Endpoint, subject: &str) -> Result<(), BrokerError> {
        let Some(payload) = self.payload(endpoint, subject) else { return Ok(()) };
        self.store_entry(endpoint, subject, payload).await?;
        match self.payload(endpoint, subject).is_some() {
            true => Ok(()),
            false => self.link.purge(&self.link.names.presence_stream(), subject).await,
        }
    }

    async fn store_entry(
        &self,
        endpoint: Endpoint,
        subject: &str,
        payload: Bytes,
    ) -> Result<(), BrokerError> {
        let length = payload.len();
        match self.link.store(subject, None, "", payload).await {
            Ok(_) => Ok(()),
            Err(error @ (BrokerError::TooLarge | BrokerError::NameTooLong)) => {
                // Another attempt cannot succeed, and must not keep other entries from the store.
                if let Some(own) = self.own.borrow_mut().get_mut(&endpoint) {
                    own.remove(subject);
                }
                debug!(%error, length, "NATS: a presence entry is not stored");
                self.link.shared.warnings.add(format!(
                    "clients are left out of presence, since what they show of themselves is larger than NATS takes ({length} bytes, \
                     max_payload of nats-server)"
                ));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The entry of a client that is present.
    fn payload(&self, endpoint: Endpoint, subject: &str) -> Option<Bytes> {
        self.own.borrow().get(&endpoint).and_then(|own| own.get(subject)).cloned()
    }

    /// Cleans up a failed node: publishes that its clients have left, and removes its entries.
    async fn clean_up(&self, node: &str, lease: &StoredMessage) -> Result<(), BrokerError> {
        let names = &self.link.names;
        let (stream, filter) =
            (names.presence_stream(), format!("{}.presence.{node}.>", names.prefix));
        let Ack::Stored(claimed) =
            self.link.store(&lease.subject, Some(lease.sequence), "", self.claim()).await?
        else {
            return Ok(());
        };
        info!(%node, "NATS: cleanup of a node whose lease has ended");
        // A later entry shows that the node runs after all.
        let mut entries = self.link.range(&stream, &filter).await?;
        entries.retain(|entry| entry.sequence < claimed);
        let mut claim = Claim { subject: &lease.subject, sequence: claimed, since: Instant::now() };
        for entries in entries.chunks(VERIFICATIONS_MAX) {
            // On failure the claim expires, and a node tries again.
            self.publish_leaves(entries.iter().map(|entry| &entry.payload)).await?;
            if !self.holds(&mut claim).await? {
                info!(%node, "NATS: another node has taken over this cleanup");
                return Ok(());
            }
        }
        self.link.purge_before(&stream, &filter, claimed).await?;
        self.link.purge_before(&stream, &lease.subject, claim.sequence + 1).await?;
        info!(%node, clients = entries.len(), "NATS: cleanup done");
        Ok(())
    }

    /// Renews a claim in time; returns whether no other node has it.
    async fn holds(&self, claim: &mut Claim<'_>) -> Result<bool, BrokerError> {
        if claim.since.elapsed() < Duration::from_millis(self.lease_ms / LEASE_RENEWALS) {
            return Ok(true);
        }
        claim.since = Instant::now();
        let (after, payload) = (Some(claim.sequence), self.claim());
        match self.link.store(claim.subject, after, "", payload).await? {
            Ack::Stored(sequence) => claim.sequence = sequence,
            Ack::Conflict | Ack::Duplicate(_) => return Ok(false),
        }
        Ok(true)
    }

    fn claim(&self) -> Bytes {
        format!("t1 cleared by {}\n", self.link.names.node).into()
    }

    /// Publishes leave events for presence entries and offline events for lifecycle entries, all at
    /// once.
    async fn publish_leaves(
        &self,
        entries: impl Iterator<Item = &Bytes>,
    ) -> Result<(), BrokerError> {
        let publishing = entries.filter_map(entry).map(|(channel, info)| async move {
            if *channel == *LIFECYCLE {
                return lifecycle_events::publish_lost(&self.link, info).await;
            }
            let subject = self.link.names.channel(&subject::token(&channel));
            // A node without a connection reads presence again when it is connected.
            let _ignored =
                self.link.publish(subject, record::plain(&channel, PushEvent::Leave(info))).await;
            Ok(())
        });
        join_all(publishing).await.into_iter().collect()
    }

    /// Returns whether the node of an entry runs and its endpoint is attached.
    fn counts(&self, subject: &str) -> bool {
        let mut words = subject[self.link.names.prefix.len()..].split('.').skip(2);
        let (Some(node), Some(endpoint)) = (words.next(), words.next()) else { return false };
        if node == self.link.names.node {
            return !self.detached.borrow().contains(endpoint);
        }
        !self.failed.borrow().contains(node)
    }

    fn entry(&self, endpoint: Endpoint, token: &str, client: &str) -> String {
        let names = &self.link.names;
        names.presence(&names.node, &self.endpoint(endpoint), token, &subject::token(client))
    }

    #[expect(clippy::unused_self, reason = "the names of this node's entries are made here")]
    fn endpoint(&self, endpoint: Endpoint) -> String {
        endpoint.0.to_string()
    }
}

/// Owner of the entries of online clients, whichever worker has them.
pub(super) const NODE: Endpoint = Endpoint(u32::MAX);

/// Delay between two nodes that may create a missing stream: many times what the creation takes.
const STREAM_TURN: Duration = Duration::from_millis(400);

/// Nodes with a creation delay of their own; the others share the last one.
const RANKS_MAX: usize = 8;

/// The claim of this node on the cleanup of another one.
struct Claim<'a> {
    /// Subject of the lease.
    subject: &'a str,
    sequence: u64,
    since: Instant,
}

/// The identifier of the node that has a lease.
fn node(lease: &StoredMessage) -> String {
    lease.subject.rsplit('.').next().unwrap_or_default().to_owned()
}

fn client(stored: &StoredMessage) -> Option<Arc<ClientInfo>> {
    entry(&stored.payload).map(|(_, info)| info)
}

fn payload(name: &ChannelName, info: &Arc<ClientInfo>) -> Bytes {
    record::plain(&name.channel, PushEvent::Join(info.clone()))
}

fn entry(payload: &Bytes) -> Option<(Arc<str>, Arc<ClientInfo>)> {
    let end = payload.iter().position(|byte| *byte == b'\n')?;
    let push = record::decode_push(&payload[end + 1..])?;
    match push.event {
        PushEvent::Join(info) => Some((push.channel, info)),
        _ => None,
    }
}
