//! The simulated world: nodes, servers, the network between them, and time.
//!
//! Invariant: everything follows from the seed, and time only advances in [`World::step`].

use std::rc::Rc;
use std::time::Duration;

use engine::random::Random;

use super::network::{Lane, Wire};
use super::node::{LeaveBroker, SimNode};
use super::server::{Kept, SimServer};
use super::truth::Truth;
use crate::Endpoint;
use crate::redis::clock::{ClockReading, MonotonicTime};
use crate::redis::driver_messages::{
    ConnectionId, DriverEvent, LinkEvent, LinkTarget, Observation,
};
use crate::redis::resp::RespDecoder;
use crate::redis::settings::{
    Address, Deployment, Login, RedisParts, RedisSettings, ServerLocation,
};
use crate::redis::tests::model::reply::Reply;
use crate::redis::tests::model::scripts::Interpreter;
use crate::redis::unavailable::UnavailableReason;

/// See the module.
pub(super) struct World {
    pub(super) random: Random,
    pub(super) now_ms: u64,
    pub(super) servers: Vec<SimServer>,
    pub(super) nodes: Vec<Option<SimNode>>,
    pub(super) wires: Vec<Wire>,
    pub(super) truth: Truth,
    deployment: Deployment,
    /// The server that the Sentinels name.
    pub(super) master: usize,
    /// Servers that execute nothing until a time.
    pub(super) frozen_until_ms: Vec<u64>,
    next_client: u64,
    /// Nodes that were started.
    starts: u64,
    /// What Redis carries.
    parts: RedisParts,
    /// The broker of publications, if Redis carries presence only.
    pub(super) leave_broker: LeaveBroker,
}

/// Lease of the nodes.
pub(super) const LEASE_MS: u64 = 4_000;
/// TTL of presence without renewal.
pub(super) const PRESENCE_TTL_MS: u64 = 12_000;
/// Unix time at the beginning.
const BEGIN_MS: u64 = 1_700_000_000_000;
const PREFIX: &str = "sim";

impl World {
    pub(super) fn new(seed: u64, parts: RedisParts) -> World {
        let mut random = Random::new(seed);
        let interpreter = Rc::new(Interpreter::new());
        let small_hash = random.below(3) as usize * 64;
        let servers: Vec<SimServer> =
            (0..2).map(|index| SimServer::new(index, &interpreter, small_hash)).collect();
        let at = |index: usize| ServerLocation::At(servers[index].address.clone());
        let deployment = Deployment::Servers(match random.below(3) {
            0 => vec![at(0)],
            1 => vec![at(0), at(1)],
            _ => {
                let (master, sentinels) = ("master".to_owned(), Vec::new());
                vec![ServerLocation::Sentinel { master, sentinels, login: Login::default() }]
            }
        });
        let mut world = World {
            random,
            now_ms: 0,
            servers,
            nodes: Vec::new(),
            wires: Vec::new(),
            truth: Truth::new(PREFIX),
            deployment,
            master: 0,
            frozen_until_ms: vec![0; 2],
            next_client: 0,
            starts: 0,
            parts,
            leave_broker: LeaveBroker::Takes,
        };
        for _ in 0..3 {
            let node = world.start_node();
            world.nodes.push(Some(node));
        }
        world
    }

    pub(super) fn now(&self) -> ClockReading {
        let time = MonotonicTime::after_start(Duration::from_millis(self.now_ms));
        ClockReading { time, unix_ms: i64::try_from(BEGIN_MS + self.now_ms).unwrap_or(i64::MAX) }
    }

    fn now_us(&self) -> i64 {
        self.now().unix_ms * 1000
    }

    pub(super) fn has_sentinels(&self) -> bool {
        matches!(&self.deployment, Deployment::Servers(servers)
            if matches!(servers[0], ServerLocation::Sentinel { .. }))
    }

    pub(super) fn has_one_server(&self) -> bool {
        matches!(&self.deployment, Deployment::Servers(servers) if servers.len() == 1)
    }

    /// Whether a server holds a client as present.
    pub(super) fn has_client(&mut self, channel: &str, client: &str) -> bool {
        let suffix = format!(":clients:{channel}").into_bytes();
        self.servers.iter_mut().any(|server| {
            let store = &mut server.model.store;
            let keys = store.keys().into_iter().filter(|key| key.ends_with(&suffix));
            keys.collect::<Vec<_>>().into_iter().any(|key| {
                let words = [b"HEXISTS".to_vec(), key, client.as_bytes().to_vec()];
                matches!(store.execute(&words), Reply::Integer(1))
            })
        })
    }

    pub(super) fn start_node(&mut self) -> SimNode {
        self.starts += 1;
        let name = format!("n{}", self.starts);
        let settings = RedisSettings {
            deployment: self.deployment.clone(),
            login: Login::default(),
            database: 0,
            tls: None,
            prefix: PREFIX.to_owned(),
            node: name.clone(),
            name,
            lease: Duration::from_millis(LEASE_MS),
            events_max: 100_000,
            seed: self.random.next_u64(),
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(1),
            presence_ttl: Duration::from_millis(match self.parts {
                RedisParts::All => PRESENCE_TTL_MS,
                // Only a cleanup ends the presence of a failed node's clients.
                RedisParts::Presence => 10 * PRESENCE_TTL_MS,
            }),
            parts: self.parts,
        };
        SimNode::new(self.now(), &settings)
    }

    /// All endpoints of all nodes.
    pub(super) fn places(&self) -> Vec<(usize, Endpoint)> {
        let nodes = self.nodes.iter().enumerate();
        let places = nodes.filter_map(|(index, node)| Some((index, node.as_ref()?)));
        let of = |(index, node): (usize, &SimNode)| {
            node.endpoints.0.keys().map(move |endpoint| (index, *endpoint)).collect::<Vec<_>>()
        };
        places.flat_map(of).collect()
    }

    /// Advances time a little, and does everything that is due.
    pub(super) fn step(&mut self) {
        self.now_ms += 1 + self.random.below(10);
        for index in 0..self.wires.len() {
            self.carry(index);
        }
        for index in 0..self.nodes.len() {
            self.turn(index);
        }
    }

    /// Carries what is due on one connection, in both directions.
    fn carry(&mut self, index: usize) {
        let wire = &mut self.wires[index];
        let server = wire.server;
        if self.servers[server].is_running && self.frozen_until_ms[server] <= self.now_ms {
            let bytes = wire.to_server.arrive(self.now_ms, &mut self.random);
            let client = wire.client;
            self.receive(server, client, &bytes);
        }
        let wire = &mut self.wires[index];
        let node = wire.node;
        let is_awake =
            self.nodes[node].as_ref().is_some_and(|node| node.frozen_until_ms <= self.now_ms);
        if is_awake {
            let bytes = wire.to_node.arrive(self.now_ms, &mut self.random);
            self.hear(index, &bytes);
        }
    }

    /// A server receives bytes; what it writes to its connections begins its way.
    fn receive(&mut self, server: usize, client: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let now_us = self.now_us();
        let model = &mut self.servers[server].model;
        model.receive(client, bytes, now_us);
        let log = std::mem::take(&mut model.log);
        let mut subscribes = std::mem::take(&mut model.subscribes).into_iter().peekable();
        for (index, message) in log.iter().map(Some).chain([None]).enumerate() {
            while let Some((_, client, name)) = subscribes.next_if(|(at, ..)| *at <= index) {
                self.handle_subscribed(server, client, &name);
            }
            if let Some(message) = message {
                self.truth.handle_published(server, message);
            }
        }
        for wire in self.wires.iter_mut().filter(|wire| wire.server == server) {
            let bytes = self.servers[server].model.take_output(wire.client);
            wire.to_node.send(self.now_ms, &mut self.random, bytes);
        }
    }

    /// A server has executed a subscription of a node.
    fn handle_subscribed(&mut self, server: usize, client: u64, name: &[u8]) {
        let wire = self.wires.iter().find(|wire| wire.client == client);
        let Some(node) = wire.and_then(|wire| self.nodes[wire.node].as_mut()) else { return };
        if let Some(channel) = self.truth.channel(name) {
            self.truth.messages.begin(&channel, server, &node.name);
            *node.interruptions.subscribes.entry(channel).or_default() += 1;
        }
    }

    /// A node receives bytes.
    fn hear(&mut self, index: usize, bytes: &[u8]) {
        let now = self.now();
        let wire = &mut self.wires[index];
        wire.decoder.buffer().extend_from_slice(bytes);
        let decoder = &mut wire.decoder;
        let frames: Vec<_> =
            std::iter::from_fn(|| decoder.next().expect("the model speaks RESP")).collect();
        let (node, connection_id) = (wire.node, wire.connection_id);
        if !frames.is_empty()
            && let Some(node) = &mut self.nodes[node]
        {
            node.core
                .handle_event(now, DriverEvent::Link(connection_id, LinkEvent::Frames(frames)));
        }
    }

    /// One turn of a node's driver.
    fn turn(&mut self, index: usize) {
        let (now, now_ms) = (self.now(), self.now_ms);
        let Some(node) = &mut self.nodes[index] else { return };
        if node.frozen_until_ms > now_ms {
            return;
        }
        node.turn(now, now_ms, &mut self.truth);
        node.publish_leaves(now, self.leave_broker, &mut self.truth);
        let sent = std::mem::take(&mut node.sent);
        let closes = std::mem::take(&mut node.closes);
        let is_due = |(at, ..): &mut (u64, ConnectionId, LinkTarget)| *at <= now_ms;
        let connects: Vec<_> = node.connects.extract_if(.., is_due).collect();
        for (connection_id, bytes) in sent {
            let is_it =
                |wire: &&mut Wire| wire.node == index && wire.connection_id == connection_id;
            if let Some(wire) = self.wires.iter_mut().find(is_it) {
                wire.to_server.send(now_ms, &mut self.random, bytes);
            }
        }
        for connection_id in closes {
            let is_it = |wire: &Wire| wire.node == index && wire.connection_id == connection_id;
            if let Some(at) = self.wires.iter().position(is_it) {
                self.end_wire(at);
            }
            if let Some(node) = &mut self.nodes[index] {
                node.connects.retain(|(_, pending, _)| *pending != connection_id);
            }
        }
        for (_, connection_id, target) in connects {
            self.connect(index, connection_id, &target);
        }
        self.observe(index);
    }

    fn server_of(&self, location: &ServerLocation) -> usize {
        match location {
            ServerLocation::At(address) => self.server_at(address),
            ServerLocation::Sentinel { .. } => self.master,
        }
    }

    fn server_at(&self, address: &Address) -> usize {
        let mut servers = self.servers.iter();
        servers.position(|server| server.address == *address).expect("a known address")
    }

    fn is_reachable(&self, server: usize) -> bool {
        self.servers[server].is_running && self.frozen_until_ms[server] <= self.now_ms
    }

    fn connect(&mut self, node: usize, connection_id: ConnectionId, target: &LinkTarget) {
        let server = match target {
            LinkTarget::Server(location) => self.server_of(location),
            LinkTarget::Member(address) => self.server_at(address),
        };
        let event = match self.is_reachable(server) {
            true => {
                self.next_client += 1;
                let client = self.next_client;
                self.wires.push(Wire {
                    node,
                    connection_id,
                    server,
                    client,
                    to_server: Lane::default(),
                    to_node: Lane::default(),
                    decoder: RespDecoder::default(),
                });
                LinkEvent::Up(Box::new(self.servers[server].open(client)))
            }
            false => {
                let address = self.servers[server].address.clone();
                LinkEvent::Down(UnavailableReason::Unreachable(address, "down".to_owned()))
            }
        };
        let now = self.now();
        if let Some(node) = &mut self.nodes[node] {
            node.interruptions.connects += 1;
            node.core.handle_event(now, DriverEvent::Link(connection_id, event));
        }
    }

    /// Makes the observations that are due.
    fn observe(&mut self, index: usize) {
        let (now, now_ms) = (self.now(), self.now_ms);
        let Some(node) = &mut self.nodes[index] else { return };
        let mut due = Vec::new();
        for (at, link, location) in &mut node.watches {
            if *at <= now_ms {
                let pause = if matches!(location, ServerLocation::At(_)) { 3_000 } else { 1_000 };
                *at = now_ms + pause;
                due.push((*link, location.clone()));
            }
        }
        for (link, location) in due {
            let server = self.server_of(&location);
            let identity = self.is_reachable(server).then(|| self.servers[server].identity.clone());
            let address = self.servers[server].address.clone();
            let asked_at = now.time;
            let seen = Observation { address, asked_at, doubt: None, identity };
            if let Some(node) = &mut self.nodes[index] {
                node.core.handle_event(now, DriverEvent::Observation(link, Ok(seen)));
            }
        }
    }

    /// A connection ends: a prefix of what is on its way still arrives at the server.
    fn end_wire(&mut self, index: usize) -> Wire {
        let mut wire = self.wires.remove(index);
        let bytes = wire.to_server.last_bytes(&mut self.random);
        if self.is_reachable(wire.server) {
            self.receive(wire.server, wire.client, &bytes);
        }
        self.servers[wire.server].model.disconnect(wire.client);
        wire
    }

    /// Cuts a connection, and the node notices.
    pub(super) fn cut(&mut self, index: usize) {
        let bytes = self.wires[index].to_node.last_bytes(&mut self.random);
        self.hear(index, &bytes);
        let wire = self.end_wire(index);
        let address = self.servers[wire.server].address.clone();
        let reason = UnavailableReason::Lost(address, "cut".to_owned());
        let now = self.now();
        if let Some(node) = &mut self.nodes[wire.node] {
            let event = DriverEvent::Link(wire.connection_id, LinkEvent::Down(reason));
            node.core.handle_event(now, event);
        }
    }

    /// Ends a node without notice.
    pub(super) fn kill_node(&mut self, index: usize) {
        self.nodes[index] = None;
        while let Some(at) = self.wires.iter().position(|wire| wire.node == index) {
            self.end_wire(at);
        }
    }

    /// Ends a server without notice.
    pub(super) fn kill_server(&mut self, index: usize) {
        self.servers[index].is_running = false;
        while let Some(at) = self.wires.iter().position(|wire| wire.server == index) {
            self.cut(at);
        }
    }

    pub(super) fn restart_server(&mut self, index: usize, kept: Kept) {
        self.servers[index].restart(kept);
    }

    /// The Sentinels elect the other server, which has what was saved of the first.
    pub(super) fn fail_over(&mut self) {
        let (old, new) = (self.master, 1 - self.master);
        self.kill_server(new);
        let saved = self.servers[old].saved();
        self.servers[new].promote(saved);
        self.master = new;
    }
}
