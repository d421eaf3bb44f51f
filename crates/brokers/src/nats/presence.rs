//! Who is present, over all nodes: one message for each client of a channel, under the lease of its
//! node.
//!
//! Invariant: an entry counts only while its node speaks; a node that falls silent is cleared away
//! by one other, which claims that by a conditional store.

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
use wire::protocol::{ClientInfo, PresenceStats, PushEvent};

use super::availability::UnavailableCause;
use super::jetstream::{Ack, Stored};
use super::lease::{Lease, LeaseState, is_lease, name_in};
use super::lifecycle::NODE;
use super::link::NatsLink;
use super::record;
use super::stream::ChannelStream;
use super::subject::{self, Store};
use crate::Endpoint;
use crate::limits::{LEASE_RENEWALS, VERIFICATIONS_MAX};

/// See the module.
pub(super) struct PresenceStore {
    pub(super) link: Rc<NatsLink>,
    /// What this node is called.
    pub(super) name: String,
    /// How often this node's clients were told anew to be online.
    pub(super) generation: Cell<u64>,
    lease: Lease,
    lease_ms: u64,
    /// What NATS has of this node's entries may be less, or more, than there is.
    must_restore_entries: Cell<bool>,
    /// NATS does not know, or not any more, that this node's clients are online.
    must_resend_lifecycle: Cell<bool>,
    /// Of nodes that are gone something is left, and their clients may not have been told of.
    must_publish_leaves: Cell<bool>,
    /// Entries are put right by one at a time.
    restoring: Mutex<()>,
    /// Entries of this node by their subjects.
    own: RefCell<HashMap<Endpoint, HashMap<String, Bytes>>>,
    /// Nodes whose lease has ended.
    silent: RefCell<HashSet<String>>,
    gone: RefCell<HashSet<String>>,
    /// How many nodes that live come before this one; `None` before that was looked at.
    rank: Cell<Option<usize>>,
    /// Another node of this node's name, and its lease when it was seen first.
    twin: RefCell<Option<(String, u64)>>,
}

impl PresenceStore {
    pub(super) fn new(link: Rc<NatsLink>, name: String, lease_ms: u64) -> PresenceStore {
        PresenceStore {
            lease: Lease::new(link.clone(), &name, lease_ms),
            link,
            name,
            generation: Cell::new(0),
            lease_ms,
            must_restore_entries: Cell::new(false),
            must_resend_lifecycle: Cell::new(false),
            must_publish_leaves: Cell::new(true),
            restoring: Mutex::default(),
            own: RefCell::default(),
            silent: RefCell::default(),
            gone: RefCell::default(),
            rank: Cell::new(None),
            twin: RefCell::default(),
        }
    }

    pub(super) async fn add(
        &self,
        endpoint: Endpoint,
        place: &ChannelStream,
        info: Arc<ClientInfo>,
    ) {
        let subject = self.entry(endpoint, &place.token, &info.client);
        let payload = record::plain(&place.channel, PushEvent::Join(info));
        self.own.borrow_mut().entry(endpoint).or_default().insert(subject.clone(), payload);
        // Otherwise the next renewal enters all; nobody waits for one after the other while NATS
        // takes none.
        if !self.must_restore_entries.get() && self.put(endpoint, &subject).await.is_err() {
            self.doubt();
        }
    }

    pub(super) async fn remove(&self, endpoint: Endpoint, place: &ChannelStream, client: &str) {
        let subject = self.entry(endpoint, &place.token, client);
        let own = self.own.borrow_mut().get_mut(&endpoint).and_then(|own| own.remove(&subject));
        if own.is_some() && !self.must_restore_entries.get() {
            // By its name: a number may mean another message once NATS has lost its store.
            let purged = self.link.purge(&self.link.names.presence_stream(), &subject).await;
            if purged.is_err() {
                self.doubt();
            }
        }
    }

    pub(super) async fn clients(
        &self,
        place: &ChannelStream,
    ) -> Result<Vec<Arc<ClientInfo>>, BrokerError> {
        if !self.link.keeps {
            return Err(BrokerError::Unavailable);
        }
        let filter = self.link.names.presence("*", "*", &place.token, "*");
        let stored = self.link.range(&self.link.names.presence_stream(), &filter).await?;
        Ok(stored.iter().filter(|stored| self.counts(&stored.subject)).filter_map(client).collect())
    }

    pub(super) async fn stats(&self, place: &ChannelStream) -> Result<PresenceStats, BrokerError> {
        let clients = self.clients(place).await?;
        let users: HashSet<&str> = clients.iter().map(|info| &*info.user).collect();
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        Ok(PresenceStats { num_clients: count(clients.len()), num_users: count(users.len()) })
    }

    /// The endpoint is gone, and its clients with it. Those who listen are told.
    pub(super) fn forget(
        self: &Rc<Self>,
        endpoint: Endpoint,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let own = self.own.borrow_mut().remove(&endpoint).filter(|own| !own.is_empty())?;
        self.gone.borrow_mut().insert(self.endpoint(endpoint));
        let presence = self.clone();
        Some(async move {
            // Those who were online are told of by name.
            let _published = presence.publish_leaves(own.values()).await;
            let node = &presence.link.names.node;
            let filter = presence.link.names.presence(node, &presence.endpoint(endpoint), "*", "*");
            let stream = presence.link.names.presence_stream();
            if presence.link.purge(&stream, &filter).await.is_err() {
                presence.doubt();
            }
        })
    }

    /// The endpoints whose clients are present.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.own.borrow().keys().copied().filter(|endpoint| *endpoint != NODE).collect()
    }

    /// Whether no client of this node is present anywhere.
    pub(super) fn is_empty(&self) -> bool {
        self.own.borrow().values().all(HashMap::is_empty)
    }

    /// Something failed: what NATS has of this node's entries may be wrong, and is put right with
    /// the next renewal.
    pub(super) fn doubt(&self) {
        self.must_restore_entries.set(true);
    }

    /// How long this node leaves to others what one of them should do: none for the first of those
    /// who live. One that does not know the others takes a time that others seldom have.
    pub(super) fn turn(&self) -> Duration {
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

    /// Whether the next renewal is urgent.
    pub(super) fn has_pending_work(&self) -> bool {
        self.lease.is_claimed() || self.must_restore_entries.get()
    }

    /// Whether all who are online must be told again, which the caller sees to.
    pub(super) fn take_resend(&self) -> bool {
        !self.must_restore_entries.get() && self.must_resend_lifecycle.take()
    }

    /// Whoever can be told must be told again of all who are online.
    pub(super) fn resend_lifecycle(&self) {
        self.must_resend_lifecycle.set(true);
    }

    /// Whether there is nobody of whom anybody must still be told, as far as presence knows.
    pub(super) fn has_published_all(&self) -> bool {
        !self.must_resend_lifecycle.get() && !self.must_publish_leaves.get()
    }

    /// Says that this node lives, makes up for what went wrong meanwhile, and sees to nodes that do
    /// not live.
    pub(super) async fn renew(&self) -> Result<(), BrokerError> {
        let availability = &self.link.shared.availability;
        let standing = match self.lease.renew().await {
            Ok(standing) => standing,
            Err(error) => {
                if let Some(reason) = self.lease.reason() {
                    availability.set(UnavailableCause::Lease, &reason);
                }
                return Err(error);
            }
        };
        availability.clear(UnavailableCause::Lease);
        match standing {
            LeaseState::Held => {}
            LeaseState::Lost => {
                info!("NATS: the presence of this node's clients is lost, and is entered again");
                self.must_restore_entries.set(true);
            }
            LeaseState::Forgotten => {
                warn!(
                    "NATS: this node was taken for dead; its clients are entered and their lifecycle events sent again"
                );
                self.must_restore_entries.set(true);
                self.must_resend_lifecycle.set(true);
            }
        }
        let restored = self.restore().await;
        if restored.is_ok() && !self.must_restore_entries.get() {
            availability.clear(UnavailableCause::Store(Store::Presence));
        }
        restored.and(self.see_to_others().await)
    }

    async fn see_to_others(&self) -> Result<(), BrokerError> {
        let names = &self.link.names;
        let own = names.lease(&names.node);
        let leases = self.link.range(&names.presence_stream(), &names.lease("*")).await?;
        let now_ms = leases.iter().map(|lease| lease.at_ms).max().unwrap_or(0);
        let is_twin = |lease: &&Stored| {
            lease.subject != own && name_in(lease).is_some_and(|name| name == self.name)
        };
        self.look_at_twin(leases.iter().find(is_twin));
        let is_before = |lease: &&Stored| {
            lease.subject < own && lease.at_ms + self.lease_ms > now_ms && is_lease(lease)
        };
        self.rank.set(Some(leases.iter().filter(is_before).count()));
        let silent = leases.iter().filter(|lease| lease.at_ms + self.lease_ms <= now_ms);
        let silent: Vec<&Stored> = silent.filter(|lease| lease.subject != own).collect();
        self.silent.borrow_mut().extend(silent.iter().map(|lease| node(lease)));
        // One that is claimed is told of until it is removed, whoever does that.
        let is_left = |lease: &Stored| lease.at_ms + self.lease_ms <= now_ms || !is_lease(lease);
        self.must_publish_leaves.set(leases.iter().any(is_left));
        let mut cleared = Ok(());
        for lease in silent {
            // One that cannot be cleared away now does not keep others from it.
            cleared = cleared.and(self.clear_away(&node(lease), lease).await);
        }
        for lease in &leases {
            if lease.at_ms + self.lease_ms > now_ms && is_lease(lease) {
                self.silent.borrow_mut().remove(&node(lease));
            }
        }
        cleared
    }

    /// One that has just been killed may still seem to live: it lives when its lease is renewed.
    fn look_at_twin(&self, lease: Option<&Stored>) {
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

    /// The nodes whose leases hold; none without JetStream.
    pub(super) async fn living(&self) -> Result<Vec<String>, BrokerError> {
        if !self.link.keeps {
            return Ok(Vec::new());
        }
        let names = &self.link.names;
        let leases = self.link.range(&names.presence_stream(), &names.lease("*")).await?;
        let now_ms = self.link.now_ms();
        let living =
            leases.iter().filter(|lease| lease.at_ms + self.lease_ms > now_ms && is_lease(lease));
        Ok(living.map(node).collect())
    }

    /// The time of NATS, as its newest message of ours shows it.
    pub(super) async fn learn_time(&self) -> Result<(), BrokerError> {
        // It is stored at once; what else a renewal does may take a while.
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

    /// If something is owed: every entry of this node is stored anew, and what is older is removed.
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

    /// A graceful end: nothing of this node stays.
    pub(super) async fn end(&self) {
        self.lease.end().await;
        let _restored = self.restoring.lock().await;
        let names = &self.link.names;
        let stream = names.presence_stream();
        let entries = format!("{}.presence.{}.>", names.prefix, names.node);
        if self.link.purge(&stream, &entries).await.is_ok() {
            // Otherwise the lease ends by itself, and somebody sees to the entries.
            let _later = self.link.purge(&stream, &names.lease(&names.node)).await;
        }
    }

    async fn put(&self, endpoint: Endpoint, subject: &str) -> Result<(), BrokerError> {
        let payload = self.own.borrow().get(&endpoint).and_then(|own| own.get(subject)).cloned();
        let Some(payload) = payload else { return Ok(()) };
        let length = payload.len();
        match self.link.store(subject, None, "", payload).await {
            Ok(_) => {}
            Err(error @ (BrokerError::TooLarge | BrokerError::NameTooLong)) => {
                // It never fits, and must not keep the others from being entered.
                self.own.borrow_mut().get_mut(&endpoint).and_then(|own| own.remove(subject));
                debug!(%error, length, "NATS: a client is not entered into presence");
                self.link.shared.warnings.add(format!(
                    "clients are left out of presence, since what they show of themselves is larger than NATS takes ({length} bytes, \
                     max_payload of nats-server)"
                ));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let is_wanted =
            self.own.borrow().get(&endpoint).is_some_and(|own| own.contains_key(subject));
        match is_wanted {
            true => Ok(()),
            false => self.link.purge(&self.link.names.presence_stream(), subject).await,
        }
    }

    async fn clear_away(&self, node: &str, lease: &Stored) -> Result<(), BrokerError> {
        let names = &self.link.names;
        let (stream, filter) =
            (names.presence_stream(), format!("{}.presence.{node}.>", names.prefix));
        let Ack::Stored(claimed) =
            self.link.store(&lease.subject, Some(lease.sequence), "", self.claim()).await?
        else {
            return Ok(());
        };
        info!(%node, "NATS: cleanup of a node whose lease has ended");
        // What is stored later comes from a node that lives again.
        let mut entries = self.link.range(&stream, &filter).await?;
        entries.retain(|entry| entry.sequence < claimed);
        let mut claim = Claim { subject: &lease.subject, sequence: claimed, since: Instant::now() };
        for entries in entries.chunks(VERIFICATIONS_MAX) {
            // Without that the claim ends, and somebody tries again.
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

    /// Renews a claim that is not new any more; says whether nobody else has it.
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

    /// Tells that clients have left, and of those who were online that they are offline, all at
    /// once.
    async fn publish_leaves(
        &self,
        entries: impl Iterator<Item = &Bytes>,
    ) -> Result<(), BrokerError> {
        let publishing = entries.filter_map(entry).map(|(channel, info)| async move {
            if *channel == *LIFECYCLE {
                return self.publish_lost(info).await;
            }
            let subject = self.link.names.channel(&subject::token(&channel));
            // Whoever is cut off asks for presence when it is back.
            let _ignored =
                self.link.publish(subject, record::plain(&channel, PushEvent::Leave(info))).await;
            Ok(())
        });
        join_all(publishing).await.into_iter().collect()
    }

    /// Whether an entry's node and endpoint are still there.
    fn counts(&self, subject: &str) -> bool {
        let mut words = subject[self.link.names.prefix.len()..].split('.').skip(2);
        let (Some(node), Some(endpoint)) = (words.next(), words.next()) else { return false };
        if node == self.link.names.node {
            return !self.gone.borrow().contains(endpoint);
        }
        !self.silent.borrow().contains(node)
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

/// How much later than the one before it a node makes a stream that is missing: many times what
/// that takes.
const STREAM_TURN: Duration = Duration::from_millis(400);

/// Nodes that have a turn of their own.
const RANKS_MAX: usize = 8;

/// That this node clears another one away.
struct Claim<'a> {
    subject: &'a str,
    sequence: u64,
    since: Instant,
}

/// Whose lease it is.
fn node(lease: &Stored) -> String {
    lease.subject.rsplit('.').next().unwrap_or_default().to_owned()
}

fn client(stored: &Stored) -> Option<Arc<ClientInfo>> {
    entry(&stored.payload).map(|(_, info)| info)
}

fn entry(payload: &Bytes) -> Option<(Arc<str>, Arc<ClientInfo>)> {
    let end = payload.iter().position(|byte| *byte == b'\n')?;
    let push = record::decode_push(&payload[end + 1..])?;
    match push.event {
        PushEvent::Join(info) => Some((push.channel, info)),
        _ => None,
    }
}
