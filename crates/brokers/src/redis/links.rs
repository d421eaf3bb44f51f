//! Links to the broker's servers, and the commands to the driver about their connections.
//!
//! Invariant: each link has one connection or an attempt at one: when a connection ends, the next
//! attempt is ordered.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use engine::broker::BrokerEvent;

use super::clock::MonotonicTime;
use super::connection::backoff;
use super::driver_messages::{ConnectionId, LinkCommand, LinkId, LinkTarget, Observation, Opened};
use super::keys::Keys;
use super::link::{ActiveLink, RedisLink};
use super::master_check::{FoundServer, OtherNodes};
use super::outputs::CoreOutputs;
use super::settings::{Address, ServerLocation};
use super::unavailable::UnavailableReason;

/// All links by id.
#[derive(Default)]
pub(super) struct Links {
    links: BTreeMap<LinkId, RedisLink>,
    next: LinkId,
    commands: VecDeque<LinkCommand>,
}

impl Links {
    /// Adds a link to a server and orders its first connection.
    pub(super) fn add(&mut self, target: LinkTarget) -> LinkId {
        let link = self.next;
        self.next += 1;
        let (connection, reason) = (None, UnavailableReason::Starting);
        let (after, connection_id) = (Duration::ZERO, ConnectionId { link, attempt: 0 });
        self.commands.push_back(LinkCommand::Connect {
            connection_id,
            target: target.clone(),
            after,
        });
        if let LinkTarget::Server(server) = &target {
            self.commands.push_back(LinkCommand::Watch { link, server: server.clone() });
        }
        self.links.insert(
            link,
            RedisLink { target, attempt: 0, connection, reason, failures: 0, closed_by: None },
        );
        link
    }

    /// The link to a target.
    pub(super) fn find(&self, target: &LinkTarget) -> Option<LinkId> {
        let mut links = self.links.iter();
        links.find(|(_, link)| link.target == *target).map(|(id, _)| *id)
    }

    pub(super) fn ids(&self) -> Vec<LinkId> {
        self.links.keys().copied().collect()
    }

    /// Whether the connection is the link's latest.
    pub(super) fn is_current(&self, connection_id: ConnectionId) -> bool {
        self.links
            .get(&connection_id.link)
            .is_some_and(|link| link.attempt == connection_id.attempt)
    }

    pub(super) fn is_up(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| link.connection.is_some())
    }

    /// The link's open connection.
    pub(super) fn connection(&mut self, id: LinkId) -> Option<&mut ActiveLink> {
        self.links.get_mut(&id)?.connection.as_mut()
    }

    /// The link's open connection, unless its replies are overdue.
    pub(super) fn usable(&mut self, id: Option<LinkId>) -> Option<&mut ActiveLink> {
        self.connection(id?).filter(|connection| !connection.is_silent())
    }

    /// Whether the server closed the previous connection without having restarted since.
    pub(super) fn has_been_cut(&mut self, id: LinkId, opened: &Opened) -> bool {
        let closed_by = self.links.get_mut(&id).and_then(|link| link.closed_by.take());
        closed_by.is_some_and(|run_id| opened.identity.is_same(&run_id))
    }

    /// A connection is open.
    pub(super) fn open(&mut self, now: MonotonicTime, id: LinkId, opened: Opened) {
        if let Some(link) = self.links.get_mut(&id) {
            link.failures = 0;
            link.reason = UnavailableReason::Unverified(opened.address.clone());
            link.connection = Some(ActiveLink::new(now, opened));
        }
    }

    /// A connection has ended; orders the next attempt and returns the connection's state.
    pub(super) fn end(
        &mut self,
        id: LinkId,
        reason: UnavailableReason,
        jitter: u64,
    ) -> Option<ActiveLink> {
        let link = self.links.get_mut(&id)?;
        let connection = link.connection.take();
        if let Some(connection) = &connection {
            let is_closed =
                matches!(reason, UnavailableReason::Lost(..) | UnavailableReason::CutOff(..));
            link.closed_by = is_closed.then(|| connection.opened.identity.run_id.clone());
        }
        link.reason = reason;
        link.attempt += 1;
        let after = backoff(link.failures, jitter);
        link.failures = link.failures.saturating_add(1);
        let (connection_id, target) =
            (ConnectionId { link: id, attempt: link.attempt }, link.target.clone());
        self.commands.push_back(LinkCommand::Connect { connection_id, target, after });
        connection
    }

    /// Orders an open connection to be closed; returns the server's address.
    pub(super) fn close(&mut self, id: LinkId) -> Option<Address> {
        let link = self.links.get(&id)?;
        let connection = link.connection.as_ref()?;
        let connection_id = ConnectionId { link: id, attempt: link.attempt };
        self.commands.push_back(LinkCommand::Close { connection_id });
        Some(connection.opened.address.clone())
    }

    /// Whether the link's server is found through Sentinels.
    pub(super) fn has_sentinels(&self, id: LinkId) -> bool {
        let target = self.links.get(&id).map(|link| &link.target);
        matches!(target, Some(LinkTarget::Server(ServerLocation::Sentinel { .. })))
    }

    /// Removes links that are not needed; returns the states of their connections.
    pub(super) fn forget(
        &mut self,
        is_needed: impl Fn(LinkId) -> bool,
    ) -> Vec<(LinkId, Option<ActiveLink>)> {
        let unneeded = self.links.extract_if(.., |id, _| !is_needed(*id));
        let forgotten: Vec<(LinkId, RedisLink)> = unneeded.collect();
        let connection_ids =
            forgotten.iter().map(|(id, link)| ConnectionId { link: *id, attempt: link.attempt });
        self.commands
            .extend(connection_ids.map(|connection_id| LinkCommand::Close { connection_id }));
        forgotten.into_iter().map(|(id, link)| (id, link.connection)).collect()
    }

    /// Orders a read of the cluster's slots from one of these members.
    pub(super) fn refresh_slots(&mut self, members: Vec<Address>) {
        self.commands.push_back(LinkCommand::ReadSlots { members });
    }

    /// Whether [`Links::poll_command`] has a command.
    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// The next command to the driver.
    pub(super) fn poll_command(&mut self) -> Option<LinkCommand> {
        self.commands.pop_front()
    }

    /// Sends buffered output, one write for each server.
    pub(super) fn flush(&mut self, keys: &Keys, mut send: impl FnMut(ConnectionId, &mut Vec<u8>)) {
        for (id, link) in &mut self.links {
            let Some(connection) = &mut link.connection else { continue };
            let out = connection.take_output(keys);
            if !out.is_empty() {
                send(ConnectionId { link: *id, attempt: link.attempt }, out);
            }
        }
    }

    /// Whether no reply is pending.
    pub(super) fn is_idle(&self) -> bool {
        let mut connection = self.links.values().filter_map(|link| link.connection.as_ref());
        connection.all(|connection| connection.head().is_none() && !connection.has_batch())
    }

    /// Handles an observation of where a link should lead. Returns why the node must leave the
    /// server; it acknowledges no publication through a server after it has learned that another
    /// one is the master.
    pub(super) fn handle_observation(
        &mut self,
        now: MonotonicTime,
        (id, seen): (LinkId, Observation),
        other_nodes: OtherNodes,
        outputs: &mut CoreOutputs,
    ) -> Option<UnavailableReason> {
        let Observation { address, asked_at, doubt, identity } = seen;
        let has_sentinels = self.has_sentinels(id);
        let connection = self.connection(id)?;
        // The link was opened after this observation began, so its own is newer.
        if connection.master_check.is_outdated(asked_at) {
            return None;
        }
        // An answer of fewer than half of the Sentinels neither moves a link nor confirms it.
        if let Some(doubt) = doubt {
            if connection.master_check.is_unconfirmed(now) {
                outputs.warn(doubt.to_string());
            }
            return None;
        }
        let used = &connection.opened.identity.run_id;
        // One server may have two addresses.
        let is_same = identity.as_ref().is_some_and(|identity| identity.is_same(used));
        if has_sentinels && address != connection.opened.address && !is_same {
            let used = connection.opened.address.clone();
            return Some(UnavailableReason::OtherMaster { used, named: address });
        }
        connection.master_check.note_named(now, other_nodes);
        let identity = identity?;
        // Only a master counts: a replica is not used by this node, and a starting server is not
        // ready.
        let found = match !has_sentinels && identity.is_master && identity.is_another(used) {
            true => FoundServer::Different,
            false => FoundServer::Same,
        };
        if connection.master_check.is_replaced(found) {
            let (used, found) = (used.clone(), identity.run_id);
            let address = connection.opened.address.clone();
            return Some(UnavailableReason::OtherServer { address, used, found });
        }
        if identity.run_id == *used && identity.eviction != connection.opened.identity.eviction {
            connection.opened.identity.eviction = identity.eviction;
            self.note_eviction(id, outputs);
        }
        None
    }

    /// Links that neither Sentinels nor other nodes confirm: this node may be on the minority side
    /// of a partition.
    pub(super) fn isolated(
        &mut self,
        now: MonotonicTime,
        other_nodes: OtherNodes,
    ) -> Vec<(LinkId, UnavailableReason)> {
        let mut isolated = Vec::new();
        for id in self.ids() {
            let has_sentinels = self.has_sentinels(id);
            let connection = self.connection(id).filter(|_| has_sentinels);
            if let Some(connection) = connection
                && connection.master_check.is_isolated(now, other_nodes)
            {
                let address = connection.opened.address.clone();
                isolated.push((id, UnavailableReason::Alone(address)));
            }
        }
        isolated
    }

    /// Whether a server evicts keys when its memory is full.
    pub(super) fn may_evict(&self) -> bool {
        let connections = self.links.values().filter_map(|link| link.connection.as_ref());
        connections.into_iter().any(|it| it.opened.identity.eviction.is_possible())
    }

    /// Warns once of a server's eviction policy, and again when it evicts keys.
    pub(super) fn note_eviction(&mut self, id: LinkId, outputs: &mut CoreOutputs) {
        let Some(connection) = self.connection(id) else { return };
        let (address, eviction) =
            (&connection.opened.address, &connection.opened.identity.eviction);
        if let Some(warning) = eviction.warning(address) {
            outputs.warn(warning);
        }
        let count = connection.master_check.newly_evicted(eviction.keys);
        if count > 0 {
            outputs
                .warn(format!("Redis at {address} has evicted {count} keys: its memory is full"));
            // Revocations may have been evicted.
            outputs.notify(BrokerEvent::RevocationsStale);
        }
    }

    /// Why one of the links is unusable; `None` when all work.
    pub(super) fn reason(&self) -> Option<UnavailableReason> {
        self.links.values().find_map(|link| match &link.connection {
            Some(connection) if connection.is_silent() => {
                Some(UnavailableReason::Silent(connection.opened.address.clone()))
            }
            Some(connection) if connection.subscribe_refusal.is_some() => {
                connection.subscribe_refusal.clone()
            }
            Some(connection) if connection.refusal.is_some() => connection.refusal.clone(),
            Some(connection) if connection.is_verified => None,
            _ => Some(link.reason.clone()),
        })
    }
}
