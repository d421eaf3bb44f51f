//! What endpoints and operators do in the simulated world.
//!
//! Invariant: every choice comes from the world's generator; what must hold later is noted here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::broker::{
    BrokerRequest, Control, HistoryQuery, JoinRead, Membership, NodeBusRequest, Order,
    PresenceRequest, PublicationsRequest, PublishOptions, RegistryRequest, RequestId, Target,
};
use engine::channel::LIFECYCLE;
use engine::lifecycle::{Change, Lifecycle};
use engine::revocation::{Revocation, RevocationState, Subject};
use wire::protocol::{ClientInfo, Publication, StreamPosition};

use super::endpoint::{Asked, Subscription};
use super::simulation::World;
use crate::Endpoint;
use crate::redis::driver_messages::Job;

/// The state of the workload; see the module.
#[derive(Default)]
pub(super) struct Workload {
    next_id: u64,
    /// Where each present client is, by channel and client.
    pub(super) present: BTreeMap<(Arc<str>, String), (usize, Endpoint)>,
    /// Where each client is that is online.
    pub(super) online: BTreeMap<String, (usize, Endpoint)>,
    /// Lifecycle events of nodes that live.
    pub(super) announced: BTreeSet<(String, String, usize)>,
    /// Joins and leaves that were announced, by channel and client.
    pub(super) memberships: Vec<(Arc<str>, String, Membership)>,
    /// Orders that were given: the channel, and the endpoints at that time.
    pub(super) orders: Vec<(String, Vec<(usize, Endpoint)>)>,
}

pub(super) const HISTORIES: [&str; 4] = ["h0", "h1", "h2", "h3"];
pub(super) const PLAIN: [&str; 3] = ["p0", "p1", "p2"];
const META_TTL_MS: u64 = 86_400_000;

impl Workload {
    /// One action of a random endpoint.
    pub(super) fn act(&mut self, world: &mut World) {
        let index = world.random.below(world.nodes.len() as u64) as usize;
        let now_ms = world.now_ms;
        let Some(node) = world.nodes[index].as_ref().filter(|it| it.frozen_until_ms <= now_ms)
        else {
            return;
        };
        let endpoints: Vec<Endpoint> = node.endpoints.0.keys().copied().collect();
        let endpoint = endpoints[world.random.below(endpoints.len() as u64) as usize];
        self.answer_questions(world, index);
        let at = (index, endpoint);
        match world.random.below(100) {
            0..=34 => self.publish(world, at),
            35..=54 => self.subscribe(world, at),
            55..=60 => self.unsubscribe(world, at),
            61..=76 => self.change_presence(world, at),
            77..=80 => self.read_history(world, at),
            81..=90 => self.change_online(world, at),
            91..=97 => self.ask_others(world, at),
            98 => {
                let endpoint = self.endpoint(world, at);
                endpoint.is_full = !endpoint.is_full;
            }
            _ => self.detach(world, at),
        }
    }

    fn endpoint<'w>(
        &self,
        world: &'w mut World,
        (node, endpoint): (usize, Endpoint),
    ) -> &'w mut super::endpoint::SimEndpoint {
        let node = world.nodes[node].as_mut().expect("it lives");
        node.endpoints.0.get_mut(&endpoint).expect("it is attached")
    }

    /// Submits a request, and notes it if it has a reply.
    fn submit(
        &mut self,
        world: &mut World,
        at: (usize, Endpoint),
        asked: Option<Asked>,
        request: BrokerRequest,
    ) {
        if let Some(asked) = asked {
            self.endpoint(world, at).open.insert(self.next_id, asked);
        }
        let now = world.now();
        let node = world.nodes[at.0].as_mut().expect("it lives");
        node.submit(now, Job::Request { endpoint: at.1, request });
    }

    fn id<T>(&mut self) -> RequestId<T> {
        self.next_id += 1;
        RequestId::new(self.next_id)
    }

    fn pick(world: &mut World, of: &[&str]) -> Arc<str> {
        of[world.random.below(of.len() as u64) as usize].into()
    }

    fn publish(&mut self, world: &mut World, at: (usize, Endpoint)) {
        // Several in one turn share a command.
        let mut channel = Workload::pick(world, &[&HISTORIES[..], &PLAIN].concat());
        for _ in 0..=world.random.below(4) {
            self.publish_to(world, at, channel.clone());
            if world.random.below(3) == 0 {
                channel = Workload::pick(world, &[&HISTORIES[..], &PLAIN].concat());
            }
        }
    }

    pub(super) fn publish_to(
        &mut self,
        world: &mut World,
        at: (usize, Endpoint),
        channel: Arc<str>,
    ) {
        let id = self.id();
        let node = world.nodes[at.0].as_ref().expect("it lives");
        let data = format!("{}/{}/{channel}#{}", node.name, at.1.0, self.next_id).into_bytes();
        let mut options = PublishOptions::default();
        if channel.starts_with('h') {
            options.history_size = 20;
            options.history_ttl_ms = 600_000;
            options.history_meta_ttl_ms = META_TTL_MS;
        }
        if world.random.below(3) == 0 {
            options.idempotency_key = self.next_id.to_string();
        }
        let publication = Publication { data: data.clone().into(), ..Publication::default() };
        let asked = Asked::Publish(channel.clone(), data);
        let request = PublicationsRequest::Publish { id, channel, publication, options };
        self.submit(world, at, Some(asked), request.into());
    }

    fn subscribe(&mut self, world: &mut World, at: (usize, Endpoint)) {
        let channel = match world.random.below(8) {
            0 => LIFECYCLE.into(),
            1 | 2 => Workload::pick(world, &PLAIN),
            _ => Workload::pick(world, &HISTORIES),
        };
        let meta_ttl_ms = META_TTL_MS;
        let held = self.endpoint(world, at).subscribed.get(&channel);
        let held = held.and_then(|it| it.position.clone());
        let read = match (channel.starts_with('h'), world.random.below(4)) {
            (false, _) => JoinRead::Nothing,
            (true, 0) => JoinRead::Newest { meta_ttl_ms },
            (true, 1) => {
                let since = held.unwrap_or(StreamPosition { offset: 1, epoch: String::new() });
                JoinRead::Since { since, limit: 100, bytes_max: None, meta_ttl_ms }
            }
            (true, _) => JoinRead::Position { meta_ttl_ms },
        };
        self.subscribe_to(world, at, channel, read);
    }

    pub(super) fn subscribe_to(
        &mut self,
        world: &mut World,
        at: (usize, Endpoint),
        channel: Arc<str>,
        read: JoinRead,
    ) {
        let id = self.id();
        let first_id = self.next_id;
        let begin = || Subscription::new(first_id);
        let subscribed = &mut self.endpoint(world, at).subscribed;
        subscribed.entry(channel.clone()).or_insert_with(begin);
        let asked = Asked::Subscribe(channel.clone());
        let request = PublicationsRequest::Subscribe { id, channel, read };
        self.submit(world, at, Some(asked), request.into());
    }

    fn unsubscribe(&mut self, world: &mut World, at: (usize, Endpoint)) {
        let endpoint = self.endpoint(world, at);
        let channels: Vec<Arc<str>> = endpoint.subscribed.keys().cloned().collect();
        if channels.is_empty() {
            return;
        }
        let channel = channels[world.random.below(channels.len() as u64) as usize].clone();
        let request = PublicationsRequest::Unsubscribe { channel: channel.clone() };
        self.submit(world, at, None, request.into());
        // What was delivered before it takes effect is still due.
        let now = world.now();
        let now_ms = world.now_ms;
        let node = world.nodes[at.0].as_mut().expect("it lives");
        node.turn(now, now_ms, &mut world.truth);
        self.endpoint(world, at).subscribed.remove(&channel);
    }

    pub(super) fn change_presence(&mut self, world: &mut World, at: (usize, Endpoint)) {
        let channel = Workload::pick(world, &HISTORIES);
        let mine: Vec<String> = self
            .present
            .iter()
            .filter(|((of, _), place)| *of == channel && **place == at)
            .map(|((_, client), _)| client.clone())
            .collect();
        if !mine.is_empty() && world.random.below(5) < 2 {
            let client = mine[world.random.below(mine.len() as u64) as usize].clone();
            self.present.remove(&(channel.clone(), client.clone()));
            let (of, left) = (channel.clone(), info(&client));
            let request = PresenceRequest::Remove { channel, client: left };
            self.submit(world, at, None, request.into());
            if announces(&client) {
                self.announce(world, at, (of, client), Membership::Leave);
            }
            return;
        }
        match world.random.below(4) {
            0 => self.read_presence(world, at, channel),
            1 => {
                let id = self.id();
                let request = PresenceRequest::Stats { id, channel };
                self.submit(world, at, Some(Asked::Other), request.into());
            }
            _ => {
                self.next_id += 1;
                let client = format!("c{}", self.next_id);
                self.present.insert((channel.clone(), client.clone()), at);
                let (of, announces) = (channel.clone(), announces(&client));
                let request = PresenceRequest::Add { channel, info: info(&client), announces };
                self.submit(world, at, None, request.into());
                if announces {
                    self.announce(world, at, (of, client), Membership::Join);
                }
            }
        }
    }

    /// Announces that a client has joined or left.
    pub(super) fn announce(
        &mut self,
        world: &mut World,
        at: (usize, Endpoint),
        (channel, client): (Arc<str>, String),
        change: Membership,
    ) {
        let info = info(&client);
        self.memberships.push((channel.clone(), client, change));
        let request = PublicationsRequest::Announce { channel, info, change };
        self.submit(world, at, None, request.into());
    }

    pub(super) fn read_presence(
        &mut self,
        world: &mut World,
        at: (usize, Endpoint),
        channel: Arc<str>,
    ) {
        let id = self.id();
        let asked = Asked::Presence(channel.clone());
        self.submit(world, at, Some(asked), PresenceRequest::Clients { id, channel }.into());
    }

    fn read_history(&mut self, world: &mut World, at: (usize, Endpoint)) {
        let channel = Workload::pick(world, &HISTORIES);
        if world.random.below(6) == 0 {
            let id = self.id();
            let request = PublicationsRequest::RemoveHistory { id, channel };
            return self.submit(world, at, Some(Asked::Other), request.into());
        }
        let id = self.id();
        let reverse = world.random.below(2) == 0;
        let query = HistoryQuery { limit: Some(9), reverse, ..HistoryQuery::default() };
        let asked = Asked::History(channel.clone());
        let meta_ttl_ms = META_TTL_MS;
        let request = PublicationsRequest::History { id, channel, query, meta_ttl_ms };
        self.submit(world, at, Some(asked), request.into());
    }

    fn change_online(&mut self, world: &mut World, at: (usize, Endpoint)) {
        let mine: Vec<String> = self
            .online
            .iter()
            .filter(|(_, place)| **place == at)
            .map(|(client, _)| client.clone())
            .collect();
        let at_ms = world.now().unix_ms;
        let (client, change) = match world.random.below(3) {
            0 if !mine.is_empty() => {
                let client = mine[world.random.below(mine.len() as u64) as usize].clone();
                self.online.remove(&client);
                (client, Change::Offline { reason: "left".into() })
            }
            _ => {
                self.next_id += 1;
                let client = format!("o{}", self.next_id);
                self.online.insert(client.clone(), at);
                (client, Change::Online)
            }
        };
        self.announced.insert((client.clone(), change.words().0.to_owned(), at.0));
        let lifecycle = Lifecycle { info: info(&client), change, at_ms };
        self.submit(world, at, None, NodeBusRequest::Lifecycle(lifecycle).into());
    }

    fn ask_others(&mut self, world: &mut World, at: (usize, Endpoint)) {
        match world.random.below(5) {
            0 => self.survey(world, at),
            1 => {
                let request = RegistryRequest::Read { id: self.id() };
                self.submit(world, at, Some(Asked::Other), request.into());
            }
            2 => {
                let request = RegistryRequest::Find { id: self.id(), subject: subject(at) };
                self.submit(world, at, Some(Asked::Other), request.into());
            }
            3 => {
                self.revoke(world, at);
            }
            _ => {
                self.order(world, at);
            }
        }
    }

    pub(super) fn survey(&mut self, world: &mut World, at: (usize, Endpoint)) {
        let request = NodeBusRequest::Survey { id: self.id(), question: "who".into() };
        self.submit(world, at, Some(Asked::Survey), request.into());
    }

    /// Revokes something; returns the change.
    pub(super) fn revoke(&mut self, world: &mut World, at: (usize, Endpoint)) -> Arc<Revocation> {
        let changed_at_ms = world.now().unix_ms;
        let (ends_at, state) = (changed_at_ms / 1000 + 20, RevocationState::Lifted);
        let subject = subject(at);
        let revocation = Arc::new(Revocation { subject, state, ends_at, changed_at_ms });
        let (id, asked) = (self.id(), Asked::Revoke(revocation.clone()));
        let request = RegistryRequest::Revoke { id, revocation: revocation.clone() };
        self.submit(world, at, Some(asked), request.into());
        revocation
    }

    /// Gives an order to all nodes; returns its channel, which no other order has.
    pub(super) fn order(&mut self, world: &mut World, at: (usize, Endpoint)) -> String {
        self.next_id += 1;
        let channel = format!("order-{}", self.next_id);
        self.orders.push((channel.clone(), world.places()));
        let target = Target { user: "ann".to_owned(), ..Target::default() };
        let order = Order::Unsubscribe { channel: channel.clone() };
        let request = NodeBusRequest::Control(Arc::new(Control { target, order }));
        self.submit(world, at, None, request.into());
        channel
    }

    /// One endpoint of a node answers the questions of the others.
    pub(super) fn answer_questions(&mut self, world: &mut World, index: usize) {
        let Some(node) = world.nodes[index].as_mut() else { return };
        let Some((endpoint, first)) = node.endpoints.0.first_key_value() else { return };
        let (endpoint, tickets) = (*endpoint, first.questions.clone());
        node.endpoints.0.values_mut().for_each(|endpoint| endpoint.questions.clear());
        let name = node.name.clone();
        for ticket in tickets {
            let request = NodeBusRequest::Answer { ticket, answer: name.clone().into() };
            self.submit(world, (index, endpoint), None, request.into());
        }
    }

    fn detach(&mut self, world: &mut World, at: (usize, Endpoint)) {
        let now = world.now();
        let node = world.nodes[at.0].as_mut().expect("it lives");
        node.submit(now, Job::Detach { endpoint: at.1 });
        node.endpoints.0.remove(&at.1);
        node.attach();
        let gone = self.present.extract_if(.., |_, place| *place == at).map(|(key, _)| key);
        let leaves = gone.filter(|(_, client)| announces(client));
        let leaves = leaves.map(|(channel, client)| (channel, client, Membership::Leave));
        self.memberships.extend(leaves);
        let gone: Vec<String> =
            self.online.extract_if(.., |_, place| *place == at).map(|(client, _)| client).collect();
        self.announced.extend(gone.into_iter().map(|client| (client, "offline".to_owned(), at.0)));
    }

    /// A node has died: nothing that it had not told is due any more.
    pub(super) fn forget_node(&mut self, index: usize) {
        self.present.retain(|_, (node, _)| *node != index);
        self.online.retain(|_, (node, _)| *node != index);
        self.announced.retain(|(.., node)| *node != index);
    }
}

/// Whether the joins and leaves of a client are announced.
pub(super) fn announces(client: &str) -> bool {
    client.ends_with(['0', '2', '4', '6', '8'])
}

fn subject((node, endpoint): (usize, Endpoint)) -> Subject {
    Subject::User(format!("u{node}-{}", endpoint.0).into())
}

pub(super) fn info(client: &str) -> Arc<ClientInfo> {
    let (client, user) = (client.to_owned(), format!("user-of-{client}"));
    Arc::new(ClientInfo { client, user, ..ClientInfo::default() })
}
