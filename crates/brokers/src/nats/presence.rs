//! Who is present, over all nodes: one message for each client of a channel, under the lease of its node.
//!
//! Invariant: an entry counts only while its node speaks; a node that falls silent is cleared away by one other, which
//! claims that by a conditional store.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use engine::broker::BrokerError;
use engine::channel::LIFECYCLE;
use wire::protocol::{ClientInfo, PresenceStats, PushEvent};

use super::link::{Ack, Link, Stored};
use super::record;
use super::stream::Place;
use super::subject;
use crate::Party;
use crate::limits::LEASE_MS;

/// See the module.
pub(super) struct Presence {
    pub(super) link: Rc<Link>,
    /// What this node is called.
    pub(super) name: String,
    /// Entries of this node by their subjects.
    own: RefCell<HashMap<Party, HashMap<String, Bytes>>>,
    /// Nodes whose lease has ended.
    silent: RefCell<HashSet<String>>,
    gone: RefCell<HashSet<String>>,
}

impl Presence {
    pub(super) fn new(link: Rc<Link>, name: String) -> Presence {
        Presence {
            link,
            name,
            own: RefCell::default(),
            silent: RefCell::default(),
            gone: RefCell::default(),
        }
    }

    pub(super) async fn add(&self, party: Party, place: &Place, info: Arc<ClientInfo>) {
        let subject = self.entry(party, &place.token, &info.client);
        let payload = record::plain(&place.channel, PushEvent::Join(info));
        self.own.borrow_mut().entry(party).or_default().insert(subject.clone(), payload);
        self.put(party, &subject).await;
    }

    pub(super) async fn remove(&self, party: Party, place: &Place, client: &str) {
        let subject = self.entry(party, &place.token, client);
        let own = self.own.borrow_mut().get_mut(&party).and_then(|own| own.remove(&subject));
        if own.is_some() {
            // By its name: a number may mean another message once NATS has lost its store. What cannot be removed now
            // is when the link is back.
            let _later = self.link.purge(&self.link.names.presence_stream(), &subject).await;
        }
    }

    pub(super) async fn clients(&self, place: &Place) -> Result<Vec<Arc<ClientInfo>>, BrokerError> {
        if !self.link.keeps {
            return Err(BrokerError::Unavailable);
        }
        let filter = self.link.names.presence("*", "*", &place.token, "*");
        let stored = self.link.range(&self.link.names.presence_stream(), &filter).await?;
        Ok(stored.iter().filter(|stored| self.counts(&stored.subject)).filter_map(client).collect())
    }

    pub(super) async fn stats(&self, place: &Place) -> Result<PresenceStats, BrokerError> {
        let clients = self.clients(place).await?;
        let users: HashSet<&str> = clients.iter().map(|info| &*info.user).collect();
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        Ok(PresenceStats { num_clients: count(clients.len()), num_users: count(users.len()) })
    }

    /// The party is gone, and its clients with it. Those who listen are told.
    pub(super) fn forget(self: &Rc<Self>, party: Party) {
        let Some(own) = self.own.borrow_mut().remove(&party).filter(|own| !own.is_empty()) else {
            return;
        };
        self.gone.borrow_mut().insert(self.party(party));
        let presence = self.clone();
        tokio::task::spawn_local(async move {
            presence.tell_leaves(own.values()).await;
            let node = &presence.link.names.node;
            let filter = presence.link.names.presence(node, &presence.party(party), "*", "*");
            let stream = presence.link.names.presence_stream();
            // What cannot be removed now is when the link is back.
            let _later = presence.link.purge(&stream, &filter).await;
        });
    }

    /// Says that this node lives, learns the time, and sees to nodes that do not.
    pub(super) async fn renew(&self) -> Result<(), BrokerError> {
        let names = &self.link.names;
        let (stream, own) = (names.presence_stream(), names.lease(&names.node));
        let payload = Bytes::from_static(b"t1 lease\n");
        let Ack::Stored(_) = self.link.store(&own, None, "", payload).await? else {
            return Err(BrokerError::Unavailable);
        };
        let leases = self.link.range(&stream, &names.lease("*")).await?;
        let now_ms = leases.iter().map(|lease| lease.at_ms).max().unwrap_or(0);
        let silent = leases.iter().filter(|lease| lease.at_ms + LEASE_MS <= now_ms);
        let silent: Vec<&Stored> = silent.filter(|lease| lease.subject != own).collect();
        let node = |lease: &Stored| lease.subject.rsplit('.').next().unwrap_or_default().to_owned();
        self.silent.borrow_mut().extend(silent.iter().map(|lease| node(lease)));
        for lease in silent {
            self.clear_away(&node(lease), lease).await?;
        }
        for lease in &leases {
            if lease.at_ms + LEASE_MS > now_ms && lease.payload.starts_with(b"t1 lease") {
                self.silent.borrow_mut().remove(&node(lease));
            }
        }
        Ok(())
    }

    /// The nodes whose leases hold; none without JetStream.
    pub(super) async fn living(&self) -> Result<Vec<String>, BrokerError> {
        if !self.link.keeps {
            return Ok(Vec::new());
        }
        let names = &self.link.names;
        let leases = self.link.range(&names.presence_stream(), &names.lease("*")).await?;
        let now_ms = self.link.now_ms();
        let living = leases.iter().filter(|lease| {
            lease.at_ms + LEASE_MS > now_ms && lease.payload.starts_with(b"t1 lease")
        });
        let node = |lease: &Stored| lease.subject.rsplit('.').next().unwrap_or_default().to_owned();
        Ok(living.map(node).collect())
    }

    /// The time of NATS, as its newest message of ours shows it.
    pub(super) async fn learn_time(&self) -> Result<(), BrokerError> {
        self.renew().await?;
        let names = &self.link.names;
        let leases = self.link.range(&names.presence_stream(), &names.lease(&names.node)).await?;
        if let Some(lease) = leases.last() {
            self.link.set_now(lease.at_ms);
        }
        Ok(())
    }

    /// After the link was cut: everything of this node is stored anew, and what is older is removed.
    pub(super) async fn restore(&self) -> Result<(), BrokerError> {
        let names = &self.link.names;
        let (stream, lease) = (names.presence_stream(), names.lease(&names.node));
        let newest = self.link.newest(&stream, &lease).await?.map_or(0, |lease| lease.sequence);
        let entries: Vec<(Party, String)> = {
            let own = self.own.borrow();
            let entries = own.iter().flat_map(|(party, own)| own.keys().map(|key| (*party, key)));
            entries.map(|(party, subject)| (party, subject.clone())).collect()
        };
        for (party, subject) in entries {
            self.put(party, &subject).await;
        }
        let filter = format!("{}.presence.{}.>", names.prefix, names.node);
        self.link.purge_before(&stream, &filter, newest).await
    }

    /// A graceful end: nothing of this node stays.
    pub(super) async fn end(&self) {
        let names = &self.link.names;
        let stream = names.presence_stream();
        for filter in
            [format!("{}.presence.{}.>", names.prefix, names.node), names.lease(&names.node)]
        {
            // Otherwise the lease ends by itself.
            let _later = self.link.purge(&stream, &filter).await;
        }
    }

    async fn put(&self, party: Party, subject: &str) {
        let payload = self.own.borrow().get(&party).and_then(|own| own.get(subject)).cloned();
        let Some(payload) = payload else { return };
        // What cannot be stored now is when the link is back.
        let _later = self.link.store(subject, None, "", payload).await;
        let is_wanted = self.own.borrow().get(&party).is_some_and(|own| own.contains_key(subject));
        if !is_wanted {
            let _later = self.link.purge(&self.link.names.presence_stream(), subject).await;
        }
    }

    async fn clear_away(&self, node: &str, lease: &Stored) -> Result<(), BrokerError> {
        let names = &self.link.names;
        let (stream, filter) =
            (names.presence_stream(), format!("{}.presence.{node}.>", names.prefix));
        let claim = Bytes::from(format!("t1 cleared by {}\n", names.node));
        let Ack::Stored(claimed) =
            self.link.store(&lease.subject, Some(lease.sequence), "", claim).await?
        else {
            return Ok(());
        };
        let entries = self.link.range(&stream, &filter).await?;
        self.tell_leaves(entries.iter().map(|entry| &entry.payload)).await;
        self.link.purge(&stream, &filter).await?;
        self.link.purge_before(&stream, &lease.subject, claimed + 1).await
    }

    async fn tell_leaves(&self, entries: impl Iterator<Item = &Bytes>) {
        for payload in entries {
            let Some((channel, info)) = entry(payload) else { continue };
            if *channel == *LIFECYCLE {
                // Whoever cannot be told now finds out who is there.
                let _untold = self.tell_lost(info).await;
                continue;
            }
            let subject = self.link.names.channel(&subject::token(&channel));
            // Whoever is cut off asks for presence when it is back.
            let _unheard =
                self.link.publish(subject, record::plain(&channel, PushEvent::Leave(info))).await;
        }
    }

    /// Whether an entry's node and party are still there.
    fn counts(&self, subject: &str) -> bool {
        let mut words = subject[self.link.names.prefix.len()..].split('.').skip(2);
        let (Some(node), Some(party)) = (words.next(), words.next()) else { return false };
        if node == self.link.names.node {
            return !self.gone.borrow().contains(party);
        }
        !self.silent.borrow().contains(node)
    }

    fn entry(&self, party: Party, token: &str, client: &str) -> String {
        let names = &self.link.names;
        names.presence(&names.node, &self.party(party), token, &subject::token(client))
    }

    #[expect(clippy::unused_self, reason = "the names of this node's entries are made here")]
    fn party(&self, party: Party) -> String {
        party.0.to_string()
    }
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
