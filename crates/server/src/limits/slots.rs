//! Slots of connections that are not authenticated: bounded in number and in bytes, in total and
//! per address.
//!
//! Invariant: a new connection is refused only if no other one can be evicted. The connection to
//! evict is the oldest idle one of the address with most idle connections; known connections, such
//! as those with a valid API key, are evicted last.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client_address::AddressPrefix;

/// Slots of one kind of connections.
pub(crate) struct Slots {
    limits: SlotLimits,
    state: Mutex<State>,
}

/// Bounds on connections and on the bytes that they hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotLimits {
    pub(crate) connections_max: usize,
    /// Connections of one crowd; connections without a crowd are not bounded.
    pub(crate) per_address_max: usize,
    /// Total bytes that are received and not handled yet: unfinished heads, and pipelined requests
    /// behind the one that is handled.
    pub(crate) bytes_max: usize,
}

/// Notifies a connection that its slot was taken.
pub(crate) trait Evict: Send + Sync {
    fn evict(&self);
}

/// Slot of one connection; dropping it releases the slot.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    id: u64,
}

#[derive(Default)]
struct State {
    next: u64,
    entries: HashMap<u64, Entry>,
    crowds: HashMap<Crowd, Members>,
    /// Crowds with idle connections, ordered by their number. The next eviction is from the last.
    by_size: BTreeSet<Rank>,
    /// Idle known connections, the oldest first.
    known: BTreeMap<Stamp, u64>,
    /// Idle connections that hold bytes. The last holds most, and is the oldest of those.
    by_bytes: BTreeMap<(usize, Reverse<Stamp>), u64>,
    bytes: usize,
}

/// Key of connections that count as one client; `None` for connections without an address and of
/// trusted proxies.
pub(crate) type Crowd = Option<AddressPrefix>;
/// Number that orders connections by their last request.
type Stamp = u64;
type Rank = (usize, Reverse<Stamp>, Crowd);

struct Entry {
    crowd: Crowd,
    stamp: Stamp,
    bytes: usize,
    is_idle: bool,
    is_known: bool,
    evict: Arc<dyn Evict>,
}

#[derive(Default)]
struct Members {
    count: usize,
    /// Connections that may be evicted, by stamp.
    idle: BTreeMap<Stamp, u64>,
}

impl Slots {
    pub(crate) fn new(limits: SlotLimits) -> Arc<Slots> {
        Arc::new(Slots { limits, state: Mutex::default() })
    }

    /// Takes a slot for a new connection, which is idle. Returns `None` if no slot is free and no
    /// connection can be evicted.
    pub(crate) fn take(self: &Arc<Slots>, crowd: Crowd, evict: Arc<dyn Evict>) -> Option<Slot> {
        let mut evicted = Vec::new();
        let id = {
            let mut state = self.state();
            evicted.extend(state.make_room_in(crowd, &self.limits)?);
            if state.entries.len() >= self.limits.connections_max {
                let victim = state.victim()?;
                evicted.push(state.remove(victim)?);
            }
            state.insert(crowd, evict)
        };
        evicted.iter().for_each(|entry| entry.evict.evict());
        Some(Slot { slots: self.clone(), id })
    }

    /// Evicts one connection. Returns `false` if none can be evicted.
    pub(crate) fn make_room(&self) -> bool {
        let mut state = self.state();
        let evicted = state.victim().and_then(|id| state.remove(id));
        drop(state);
        evicted.inspect(|entry| entry.evict.evict()).is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// A request has begun: the connection cannot be evicted. So many bytes are held that stand
    /// behind its head.
    pub(crate) fn begin_request(&self, bytes: usize) {
        self.slots.state().change(self.id, |entry| {
            entry.is_idle = false;
            entry.bytes = bytes;
        });
    }

    /// The request is answered: the connection can be evicted, as the newest.
    pub(crate) fn end_request(&self) {
        self.slots.state().change(self.id, |entry| entry.is_idle = true);
    }

    /// Marks the connection as known, such as after a valid API key.
    pub(crate) fn set_known(&self) {
        self.slots.state().change(self.id, |entry| entry.is_known = true);
    }

    /// Sets the crowd of the client that a proxy has named in place of the peer. Returns `None` if
    /// that crowd is full and none of its connections can be evicted.
    #[must_use]
    pub(crate) fn set_crowd(&self, crowd: Crowd) -> Option<()> {
        let mut state = self.slots.state();
        let evicted = state.make_room_in(crowd, &self.slots.limits)?;
        state.change(self.id, |entry| {
            entry.crowd = crowd;
            entry.is_known = false;
        });
        drop(state);
        evicted.iter().for_each(|entry| entry.evict.evict());
        Some(())
    }

    /// Sets the number of bytes that this connection holds. While the total exceeds its bound,
    /// evicts the idle connection that holds most, or this one if no other can be evicted.
    pub(crate) fn set_bytes(&self, bytes: usize) {
        let mut evicted = Vec::new();
        {
            let mut state = self.slots.state();
            state.set_bytes(self.id, bytes);
            while state.bytes > self.slots.limits.bytes_max {
                let largest = state.by_bytes.last_key_value().map(|(_, id)| *id);
                let victim = largest.unwrap_or(self.id);
                let Some(entry) = state.remove(victim) else { break };
                evicted.push(entry);
            }
        }
        evicted.iter().for_each(|entry| entry.evict.evict());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // `None` if the connection was evicted.
        let _evicted_before = self.slots.state().remove(self.id);
    }
}

impl State {
    fn insert(&mut self, crowd: Crowd, evict: Arc<dyn Evict>) -> u64 {
        let id = self.stamp();
        let entry = Entry { crowd, stamp: id, bytes: 0, is_idle: true, is_known: false, evict };
        self.link(id, &entry);
        self.entries.insert(id, entry);
        id
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.unlink(&entry);
        Some(entry)
    }

    /// Changes an entry, which becomes the newest.
    fn change(&mut self, id: u64, change: impl FnOnce(&mut Entry)) {
        let Some(mut entry) = self.remove(id) else { return };
        change(&mut entry);
        entry.stamp = self.stamp();
        self.link(id, &entry);
        self.entries.insert(id, entry);
    }

    /// Sets the bytes of an entry, which keeps its age.
    fn set_bytes(&mut self, id: u64, now: usize) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = entry.bytes;
        entry.bytes = now;
        self.bytes = self.bytes - before + now;
        if entry.is_idle {
            let age = Reverse(entry.stamp);
            self.by_bytes.remove(&(before, age));
            if now > 0 {
                self.by_bytes.insert((now, age), id);
            }
        }
    }

    fn stamp(&mut self) -> Stamp {
        self.next += 1;
        self.next
    }

    /// Takes the oldest idle connection out of a crowd that has as many as it may have. `None` when
    /// it has none.
    fn make_room_in(&mut self, crowd: Crowd, limits: &SlotLimits) -> Option<Option<Entry>> {
        let members = self.crowds.get(&crowd).filter(|_| crowd.is_some());
        match members.filter(|members| members.count >= limits.per_address_max) {
            Some(full) => {
                let (_, oldest) = full.idle.first_key_value()?;
                self.remove(*oldest).map(Some)
            }
            None => Some(None),
        }
    }

    /// The oldest idle connection of the largest crowd, or else the oldest known one.
    fn victim(&self) -> Option<u64> {
        let of_crowd = self.by_size.last().and_then(|(_, _, crowd)| {
            self.crowds.get(crowd)?.idle.first_key_value().map(|(_, id)| *id)
        });
        of_crowd.or_else(|| self.known.first_key_value().map(|(_, id)| *id))
    }

    fn link(&mut self, id: u64, entry: &Entry) {
        self.bytes += entry.bytes;
        self.change_crowd(entry.crowd, |members| {
            members.count += 1;
            if entry.is_idle && !entry.is_known {
                members.idle.insert(entry.stamp, id);
            }
        });
        if entry.is_idle && entry.is_known {
            self.known.insert(entry.stamp, id);
        }
        if entry.is_idle && entry.bytes > 0 {
            self.by_bytes.insert((entry.bytes, Reverse(entry.stamp)), id);
        }
    }

    fn unlink(&mut self, entry: &Entry) {
        self.bytes -= entry.bytes;
        self.known.remove(&entry.stamp);
        self.by_bytes.remove(&(entry.bytes, Reverse(entry.stamp)));
        self.change_crowd(entry.crowd, |members| {
            members.count -= 1;
            members.idle.remove(&entry.stamp);
        });
    }

    fn change_crowd(&mut self, crowd: Crowd, change: impl FnOnce(&mut Members)) {
        let members = self.crowds.entry(crowd).or_default();
        if let Some(rank) = members.rank(crowd) {
            self.by_size.remove(&rank);
        }
        change(members);
        if let Some(rank) = members.rank(crowd) {
            self.by_size.insert(rank);
        }
        if members.count == 0 {
            self.crowds.remove(&crowd);
        }
    }
}

impl Members {
    fn rank(&self, crowd: Crowd) -> Option<Rank> {
        let (oldest, _) = self.idle.first_key_value()?;
        Some((self.idle.len(), Reverse(*oldest), crowd))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::client_address::ClientAddress;

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Evict for Flag {
        fn evict(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    struct Client {
        flag: Arc<Flag>,
        slot: Option<Slot>,
    }

    impl Client {
        fn of(slots: &Arc<Slots>, ip: &str) -> Client {
            let flag = Arc::new(Flag::default());
            let address = ClientAddress::from(ip.parse::<IpAddr>().unwrap());
            let slot = slots.take(address.prefix(), flag.clone());
            Client { flag, slot }
        }

        fn slot(&self) -> &Slot {
            self.slot.as_ref().expect("the connection has a slot")
        }

        fn is_in(&self) -> bool {
            self.slot.is_some() && !self.flag.0.load(Ordering::Relaxed)
        }
    }

    fn slots(connections_max: usize, per_address_max: usize) -> Arc<Slots> {
        Slots::new(SlotLimits { connections_max, per_address_max, bytes_max: 1000 })
    }

    #[test]
    fn the_oldest_connection_of_the_largest_crowd_is_evicted() {
        let slots = slots(4, 3);
        let other = Client::of(&slots, "192.0.2.1");
        let crowd: Vec<Client> = (0..3).map(|_| Client::of(&slots, "192.0.2.9")).collect();
        let newcomer = Client::of(&slots, "192.0.2.2");
        assert!(newcomer.is_in() && other.is_in());
        assert_eq!(crowd.iter().map(Client::is_in).collect::<Vec<_>>(), [false, true, true]);
        // The crowd is at its own bound again and loses one of its own.
        let fourth = Client::of(&slots, "192.0.2.9");
        assert!(fourth.is_in() && !crowd[1].is_in() && newcomer.is_in() && other.is_in());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_client() {
        let slots = slots(10, 2);
        let clients: Vec<Client> =
            (1..=3).map(|n| Client::of(&slots, &format!("2001:db8:0:1::{n}"))).collect();
        assert_eq!(clients.iter().map(Client::is_in).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn among_equal_crowds_the_oldest_connection_is_evicted() {
        let slots = slots(3, 3);
        let clients: Vec<Client> =
            ["192.0.2.1", "192.0.2.250", "192.0.2.3"].map(|ip| Client::of(&slots, ip)).into();
        let newcomer = Client::of(&slots, "192.0.2.251");
        assert!(newcomer.is_in());
        assert_eq!(clients.iter().map(Client::is_in).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn connections_with_requests_are_kept_and_known_ones_are_evicted_last() {
        let slots = slots(2, 2);
        let busy = Client::of(&slots, "192.0.2.1");
        busy.slot().begin_request(0);
        let known = Client::of(&slots, "192.0.2.2");
        known.slot().set_known();
        let first = Client::of(&slots, "192.0.2.3");
        assert!(first.is_in() && busy.is_in() && !known.is_in(), "no other connection was idle");
        first.slot().begin_request(0);
        assert!(!Client::of(&slots, "192.0.2.4").is_in(), "no connection can be evicted");
        busy.slot().end_request();
        assert!(Client::of(&slots, "192.0.2.4").is_in() && !busy.is_in());
    }

    #[test]
    fn known_connections_are_not_evicted_by_unknown_ones() {
        let slots = slots(3, 3);
        let known = Client::of(&slots, "192.0.2.2");
        known.slot().set_known();
        let strangers: Vec<Client> =
            (0..9).map(|n| Client::of(&slots, &format!("198.51.100.{n}"))).collect();
        assert!(known.is_in());
        assert_eq!(strangers.iter().filter(|stranger| stranger.is_in()).count(), 2);
    }

    #[test]
    fn a_client_behind_a_proxy_has_no_more_than_its_own() {
        let slots = slots(10, 2);
        let moved = |ip: &str| {
            let client = Client::of(&slots, "10.0.0.1");
            client.slot().set_crowd(ClientAddress::from(ip.parse::<IpAddr>().unwrap()).prefix())?;
            Some(client)
        };
        let clients: Vec<Client> = (0..3).map(|_| moved("192.0.2.1").unwrap()).collect();
        assert_eq!(clients.iter().map(Client::is_in).collect::<Vec<_>>(), [false, true, true]);
        clients.iter().for_each(|client| client.slot().begin_request(0));
        assert!(moved("192.0.2.1").is_none() && moved("192.0.2.2").is_some());
    }

    #[test]
    fn bytes_are_bounded_and_released() {
        let slots = slots(10, 10);
        let clients: Vec<Client> = (0..3).map(|_| Client::of(&slots, "192.0.2.1")).collect();
        clients[0].slot().set_bytes(400);
        clients[1].slot().set_bytes(600);
        assert!(clients.iter().all(Client::is_in));
        clients[2].slot().set_bytes(1);
        let are_in = || clients.iter().map(Client::is_in).collect::<Vec<_>>();
        assert_eq!(are_in(), [true, false, true], "the one that held most was evicted");
        clients[2].slot().set_bytes(0);
        clients[0].slot().set_bytes(1000);
        assert_eq!(are_in(), [true, false, true], "a smaller count releases bytes");
        clients[2].slot().set_bytes(999);
        assert_eq!(are_in(), [false, false, true]);
        // Pipelined requests are counted as well; only the connection itself can be evicted.
        clients[2].slot().begin_request(900);
        clients[2].slot().set_bytes(1000);
        assert!(clients[2].is_in());
        clients[2].slot().set_bytes(1001);
        assert!(!clients[2].is_in());
        drop(clients);
        let state = slots.state();
        assert!(state.entries.is_empty() && state.crowds.is_empty() && state.by_size.is_empty());
        assert_eq!((state.bytes, state.known.len(), state.by_bytes.len()), (0, 0, 0));
    }
}
