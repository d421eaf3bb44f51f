//! Slots of connections that are not authenticated: bounded in number and in bytes, in total and
//! per address.
//!
//! Invariant: a new connection is refused only if no other one can be evicted: of its own address
//! if that is full, or else of any. The connection to evict is the oldest idle one of the address
//! with most idle connections; known connections, such as those with a valid API key, are evicted
//! last.

mod idle_list;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

use self::idle_list::{IdleList, Neighbours};
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
    index: usize,
    /// Tells this connection from a later one with the same index.
    id: Stamp,
}

#[derive(Default)]
struct State {
    stamp: Stamp,
    entries: Slab<Entry>,
    crowds: HashMap<Crowd, usize>,
    members: Slab<Members>,
    /// Crowds with idle connections, ordered by their number. The next eviction is from the last.
    by_size: BTreeSet<Rank>,
    /// Idle known connections, the oldest first.
    known: BTreeMap<Stamp, usize>,
    /// Idle connections that hold bytes. The last holds most, and is the oldest of those.
    by_bytes: BTreeMap<(usize, Reverse<Stamp>), usize>,
    bytes: usize,
}

/// Key of connections that count as one client; `None` for connections without an address and of
/// trusted proxies.
pub(crate) type Crowd = Option<AddressPrefix>;
/// Number that orders connections by their last request.
type Stamp = u64;
/// Number of idle connections of a crowd, its oldest one, and its index.
type Rank = (usize, Reverse<Stamp>, usize);

struct Entry {
    id: Stamp,
    /// Index of its crowd.
    crowd: usize,
    stamp: Stamp,
    bytes: usize,
    is_idle: bool,
    is_known: bool,
    neighbours: Neighbours,
    evict: Arc<dyn Evict>,
}

/// Connections of one crowd.
struct Members {
    crowd: Crowd,
    count: usize,
    /// Connections that may be evicted before known ones.
    idle: IdleList,
    /// Idle known connections.
    known: IdleList,
}

impl Slots {
    pub(crate) fn new(limits: SlotLimits) -> Arc<Slots> {
        Arc::new(Slots { limits, state: Mutex::default() })
    }

    /// Takes a slot for a new connection, which is idle. Returns `None` if no slot is free and no
    /// connection can be evicted.
    pub(crate) fn take(self: &Arc<Slots>, crowd: Crowd, evict: Arc<dyn Evict>) -> Option<Slot> {
        let mut evicted = Vec::new();
        let (index, id) = {
            let mut state = self.state();
            evicted.extend(state.make_room_in(crowd, &self.limits)?);
            if state.entries.len() >= self.limits.connections_max {
                let victim = state.victim()?;
                evicted.push(state.remove(victim));
            }
            state.insert(crowd, evict)
        };
        evicted.iter().for_each(|entry| entry.evict.evict());
        Some(Slot { slots: self.clone(), index, id })
    }

    /// Evicts one connection. Returns `false` if none can be evicted.
    pub(crate) fn make_room(&self) -> bool {
        let mut state = self.state();
        let evicted = state.victim().map(|index| state.remove(index));
        drop(state);
        evicted.inspect(|entry| entry.evict.evict()).is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// A request has begun: the connection cannot be evicted to make room for another. So many
    /// bytes are held that stand behind its head; their total is bounded as in [`Slot::set_bytes`].
    pub(crate) fn begin_request(&self, bytes: usize) {
        self.change(|entry| {
            entry.is_idle = false;
            entry.bytes = bytes;
        });
    }

    /// The request is answered: the connection can be evicted, as the newest.
    pub(crate) fn end_request(&self) {
        self.change(|entry| entry.is_idle = true);
    }

    /// Marks the connection as known, such as after a valid API key.
    pub(crate) fn set_known(&self) {
        self.change(|entry| entry.is_known = true);
    }

    /// Sets the crowd of the client that a proxy has named in place of the peer. Returns `None` if
    /// that crowd is full and none of its connections can be evicted.
    #[must_use]
    pub(crate) fn set_crowd(&self, crowd: Crowd) -> Option<()> {
        let mut state = self.slots.state();
        let evicted = state.make_room_in(crowd, &self.slots.limits)?;
        if state.holds(self) {
            state.move_to(self.index, crowd);
        }
        drop(state);
        evicted.iter().for_each(|entry| entry.evict.evict());
        Some(())
    }

    /// Sets the number of bytes that this connection holds. While the total exceeds its bound,
    /// evicts the idle connection that holds most, or this one if no other can be evicted.
    pub(crate) fn set_bytes(&self, bytes: usize) {
        self.update(|state| state.set_bytes(self.index, bytes));
    }

    /// Changes the entry, which becomes the newest.
    fn change(&self, change: impl FnOnce(&mut Entry)) {
        self.update(|state| state.change(self.index, change));
    }

    /// Updates the state unless this connection was evicted, then evicts while there are too many
    /// bytes.
    fn update(&self, update: impl FnOnce(&mut State)) {
        let mut state = self.slots.state();
        if state.holds(self) {
            update(&mut state);
        }
        let evicted = state.bound_bytes(self);
        drop(state);
        evicted.iter().for_each(|entry| entry.evict.evict());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        // Otherwise it was evicted.
        if state.holds(self) {
            state.remove(self.index);
        }
    }
}

impl State {
    /// Whether the slot was not evicted.
    fn holds(&self, slot: &Slot) -> bool {
        self.entries.get(slot.index).is_some_and(|entry| entry.id == slot.id)
    }

    fn insert(&mut self, crowd: Crowd, evict: Arc<dyn Evict>) -> (usize, Stamp) {
        let (id, crowd) = (self.next_stamp(), self.join(crowd));
        let index = self.entries.insert(Entry {
            id,
            crowd,
            stamp: id,
            bytes: 0,
            is_idle: true,
            is_known: false,
            neighbours: Neighbours::default(),
            evict,
        });
        self.link(index);
        (index, id)
    }

    fn remove(&mut self, index: usize) -> Entry {
        self.unlink(index);
        let entry = self.entries.remove(index);
        self.leave(entry.crowd);
        entry
    }

    /// Changes an entry, which becomes the newest.
    fn change(&mut self, index: usize, change: impl FnOnce(&mut Entry)) {
        self.unlink(index);
        let stamp = self.next_stamp();
        let entry = &mut self.entries[index];
        change(entry);
        entry.stamp = stamp;
        self.link(index);
    }

    /// Moves an entry to another crowd, in which it is not known.
    fn move_to(&mut self, index: usize, crowd: Crowd) {
        let crowd = self.join(crowd);
        let mut before = crowd;
        self.change(index, |entry| {
            before = std::mem::replace(&mut entry.crowd, crowd);
            entry.is_known = false;
        });
        self.leave(before);
    }

    /// Sets the bytes of an entry, which keeps its age.
    fn set_bytes(&mut self, index: usize, now: usize) {
        let entry = &mut self.entries[index];
        let before = std::mem::replace(&mut entry.bytes, now);
        self.bytes = self.bytes - before + now;
        if entry.is_idle {
            let age = Reverse(entry.stamp);
            if before > 0 {
                self.by_bytes.remove(&(before, age));
            }
            if now > 0 {
                self.by_bytes.insert((now, age), index);
            }
        }
    }

    /// Removes entries while the bytes exceed their bound: idle ones, or else that of `own`.
    fn bound_bytes(&mut self, own: &Slot) -> Vec<Entry> {
        let mut removed = Vec::new();
        while self.bytes > own.slots.limits.bytes_max {
            let largest = self.by_bytes.last_key_value().map(|(_, index)| *index);
            let own = self.holds(own).then_some(own.index);
            let Some(victim) = largest.or(own) else { break };
            removed.push(self.remove(victim));
        }
        removed
    }

    fn next_stamp(&mut self) -> Stamp {
        self.stamp += 1;
        self.stamp
    }

    /// Takes the oldest idle connection out of a crowd that has as many as it may have. `None` when
    /// it has none.
    fn make_room_in(&mut self, crowd: Crowd, limits: &SlotLimits) -> Option<Option<Entry>> {
        let members = self.crowds.get(&crowd).filter(|_| crowd.is_some());
        let members = members.map(|index| &self.members[*index]);
        match members.filter(|members| members.count >= limits.per_address_max) {
            Some(full) => {
                let oldest = full.idle.oldest().or(full.known.oldest())?;
                Some(Some(self.remove(oldest)))
            }
            None => Some(None),
        }
    }

    /// The oldest idle connection of the largest crowd, or else the oldest known one.
    fn victim(&self) -> Option<usize> {
        let largest = self.by_size.last();
        let of_crowd = largest.and_then(|(_, _, crowd)| self.members[*crowd].idle.oldest());
        of_crowd.or(self.known.first_key_value().map(|(_, index)| *index))
    }

    /// Adds an entry to the orders that it belongs to.
    fn link(&mut self, index: usize) {
        let entry = &self.entries[index];
        let (bytes, age) = (entry.bytes, Reverse(entry.stamp));
        self.bytes += bytes;
        if !entry.is_idle {
            return;
        }
        match entry.is_known {
            true => {
                self.known.insert(entry.stamp, index);
                self.members[entry.crowd].known.push(&mut self.entries, index);
            }
            false => self.change_idle(entry.crowd, |idle, entries| idle.push(entries, index)),
        }
        if bytes > 0 {
            self.by_bytes.insert((bytes, age), index);
        }
    }

    /// Removes an entry from all orders.
    fn unlink(&mut self, index: usize) {
        let entry = &self.entries[index];
        let (bytes, age) = (entry.bytes, Reverse(entry.stamp));
        self.bytes -= bytes;
        if !entry.is_idle {
            return;
        }
        match entry.is_known {
            true => {
                self.known.remove(&entry.stamp);
                self.members[entry.crowd].known.remove(&mut self.entries, index);
            }
            false => self.change_idle(entry.crowd, |idle, entries| idle.remove(entries, index)),
        }
        if bytes > 0 {
            self.by_bytes.remove(&(bytes, age));
        }
    }

    /// Changes the idle connections of a crowd, and its rank with them.
    fn change_idle(&mut self, crowd: usize, change: impl FnOnce(&mut IdleList, &mut Slab<Entry>)) {
        let State { entries, members, by_size, .. } = self;
        let idle = &mut members[crowd].idle;
        if let Some(rank) = rank(crowd, idle, entries) {
            by_size.remove(&rank);
        }
        change(idle, entries);
        if let Some(rank) = rank(crowd, idle, entries) {
            by_size.insert(rank);
        }
    }

    /// Counts one more connection of a crowd, whose index it returns.
    fn join(&mut self, crowd: Crowd) -> usize {
        let State { crowds, members, .. } = self;
        let new = || {
            members.insert(Members {
                crowd,
                count: 0,
                idle: IdleList::default(),
                known: IdleList::default(),
            })
        };
        let index = *crowds.entry(crowd).or_insert_with(new);
        members[index].count += 1;
        index
    }

    /// Counts one connection of a crowd less.
    fn leave(&mut self, index: usize) {
        let members = &mut self.members[index];
        members.count -= 1;
        if members.count == 0 {
            self.crowds.remove(&members.crowd);
            self.members.remove(index);
        }
    }
}

fn rank(crowd: usize, idle: &IdleList, entries: &Slab<Entry>) -> Option<Rank> {
    let oldest = idle.oldest()?;
    Some((idle.length(), Reverse(entries[oldest].stamp), crowd))
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
    fn a_full_crowd_of_idle_known_connections_makes_room() {
        let slots = slots(10, 2);
        let known: Vec<Client> = (0..2).map(|_| Client::of(&slots, "192.0.2.1")).collect();
        known.iter().for_each(|client| client.slot().set_known());
        let other = Client::of(&slots, "192.0.2.9");
        let newcomer = Client::of(&slots, "192.0.2.1");
        assert!(newcomer.is_in() && other.is_in());
        assert_eq!(known.iter().map(Client::is_in).collect::<Vec<_>>(), [false, true]);
        let second = Client::of(&slots, "192.0.2.1");
        assert!(second.is_in() && known[1].is_in() && !newcomer.is_in(), "known ones leave last");
        known[1].slot().begin_request(0);
        second.slot().begin_request(0);
        assert!(!Client::of(&slots, "192.0.2.1").is_in(), "no connection can be evicted");
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
        assert!(state.members.is_empty() && state.by_bytes.is_empty());
        assert_eq!((state.bytes, state.known.len()), (0, 0));
    }
}
