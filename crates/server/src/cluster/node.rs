//! This node: its workers, and totals, channels and clients gathered from them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use brokers::memory::Usage;
use brokers::{BrokerParts, Health};
use engine::revocation::Revocation;
use engine::rules::Rules;
use events::EventBus;
use tokio::sync::oneshot;

use crate::admission::revoked::Revoked;
use crate::backends::Backends;
use crate::clock::ServerClock;
use crate::cluster::questions::{
    ActiveChannels, ClientList, ClientPlace, NodeInfo, SubscriberList,
};
use crate::cluster::survey::{SharedSurvey, WorkerTimeout};
use crate::limits::throttle::Throttle;
use crate::limits::{
    CLIENTS_ANSWER_MAX, NAMES_PER_LOOK, PATTERN_TIMEOUT, REPLY_TIMEOUT, SUBSCRIBERS_PER_PAGE_MAX,
};
use crate::pattern::ChannelPattern;
use crate::supervision::supervisor::TaskFaults;
use crate::telemetry::{ConsumerList, HttpCounts, Totals};
use crate::worker::{ClientFilter, Input, SubscriberFilter, WorkerHandle};

/// State of this node that the API, the cluster and telemetry share.
pub(crate) struct Node {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) workers: Arc<Vec<WorkerHandle>>,
    pub(crate) clock: ServerClock,
    pub(crate) counts: Arc<HttpCounts>,
    /// `false` once the server is stopping.
    pub(crate) is_ready: AtomicBool,
    pub(crate) broker: Arc<BrokerParts>,
    pub(crate) rules: RwLock<Arc<Rules>>,
    pub(crate) surveys: Surveys,
    pub(crate) throttle: Arc<Throttle>,
    /// What the memory engine holds; zero with another engine.
    pub(crate) usage: Arc<Usage>,
    pub(crate) revoked: Arc<Revoked>,
    /// Backends of the application.
    pub(crate) backends: Arc<Backends>,
    /// Events for other systems.
    pub(crate) events: Arc<EventBus>,
    /// Tasks and threads that are not running.
    pub(crate) faults: TaskFaults,
    pub(crate) consumers: ConsumerList,
}

type Channels = HashMap<Arc<str>, usize>;

/// Recent answers of all workers. Each question visits all sessions or channels of a worker, so
/// callers share its answer.
#[derive(Default)]
pub(crate) struct Surveys {
    totals: SharedSurvey<Totals>,
    channel_counts: SharedSurvey<Channels>,
}

impl Node {
    /// Totals of all workers. The result may be slightly out of date: see [`SharedSurvey`].
    pub(crate) async fn totals(&self) -> Result<Arc<Totals>, WorkerTimeout> {
        let workers = self.workers.clone();
        let question = async move {
            let mut totals = Totals::default();
            for report in ask(&workers, Input::Report).await? {
                totals.add(report);
            }
            Ok(totals)
        };
        self.surveys.totals.answer(question).await
    }

    /// Channels with the number of their subscribers; may be slightly out of date as well.
    pub(crate) async fn channel_counts(&self) -> Result<Arc<Channels>, WorkerTimeout> {
        let workers = self.workers.clone();
        let question = async move {
            let mut channels = HashMap::new();
            for (name, subscribers) in
                ask(&workers, Input::ChannelCounts).await?.into_iter().flatten()
            {
                *channels.entry(name).or_default() += subscribers;
            }
            Ok(channels)
        };
        self.surveys.channel_counts.answer(question).await
    }

    /// Information about this node, as answered to other nodes.
    pub(crate) async fn info(&self) -> Result<NodeInfo, WorkerTimeout> {
        let totals = self.totals().await?;
        Ok(NodeInfo {
            uid: self.uid.clone(),
            name: self.name.clone(),
            version: self.rules().version.clone(),
            num_clients: totals.connections,
            num_users: totals.users(),
            num_subs: totals.subscriptions,
            num_channels: totals.channels(),
            uptime: self.uptime_seconds(),
        })
    }

    /// Channels that match the pattern. Matching runs on a blocking thread and ends after
    /// [`PATTERN_TIMEOUT`].
    pub(crate) async fn active_channels(
        &self,
        pattern: ChannelPattern,
    ) -> Result<ActiveChannels, WorkerTimeout> {
        let channel_counts = self.channel_counts().await?;
        let comparing = tokio::task::spawn_blocking(move || matching(&channel_counts, &pattern));
        comparing.await.map_err(|_| WorkerTimeout)
    }

    /// Clients of a user, or a single client.
    pub(crate) async fn clients(
        &self,
        user: Option<String>,
        client: Option<String>,
    ) -> Result<ClientList, WorkerTimeout> {
        let whom = Box::new(ClientFilter { user, client, limit: CLIENTS_ANSWER_MAX + 1 });
        let (mut present, mut size) = (ClientList::default(), 0);
        for found in ask(&self.workers, |answer| Input::Clients(whom.clone(), answer)).await? {
            let place = |one: crate::worker::WorkerClient| ClientPlace {
                client: one.client,
                user: one.user,
                node: self.name.clone(),
                connected_at: one.connected_at,
                channels: one.channels,
            };
            found.into_iter().map(place).for_each(|client| present.add(&mut size, client));
        }
        Ok(present)
    }

    /// The first `limit` subscribers of a channel behind a client id.
    pub(crate) async fn subscribers(
        &self,
        channel: String,
        after: String,
        limit: usize,
    ) -> Result<SubscriberList, WorkerTimeout> {
        let limit = limit.min(SUBSCRIBERS_PER_PAGE_MAX);
        let filter = Box::new(SubscriberFilter { channel, after, limit });
        let found = ask(&self.workers, |answer| Input::Subscribers(filter.clone(), answer)).await?;
        let mut found: Vec<_> = found.into_iter().flatten().collect();
        found.sort_unstable_by(|one, other| one.client.cmp(&other.client));
        let mut list = SubscriberList { node: self.name.clone(), ..SubscriberList::default() };
        let mut size = 0;
        for one in found {
            if list.subscribers.len() == limit || !list.add(&mut size, one.client, one.user) {
                break;
            }
        }
        list.has_more |= list.subscribers.len() == limit;
        Ok(list)
    }

    /// Applies a change of a revocation and closes the sessions that it affects.
    pub(crate) fn revoke(&self, change: &Arc<Revocation>) {
        if self.revoked.apply(change) {
            for worker in self.workers.iter() {
                worker.inbox().send(Input::Revoke(change.clone()));
            }
        }
    }

    /// The current limits and channel options.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces limits and channel options. Existing subscriptions keep theirs.
    pub(crate) fn set_rules(&self, rules: &Arc<Rules>) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules.clone();
        self.throttle.set_rates(rules.rates.clone());
        self.broker.set_rules(rules);
        for worker in self.workers.iter() {
            worker.inbox().send(Input::Rules(rules.clone()));
        }
    }

    pub(crate) fn uptime_seconds(&self) -> u64 {
        self.clock.monotonic_ms() / 1000
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    /// Why the node is not ready; `None` if it is.
    pub(crate) fn unready_reason(&self) -> Option<String> {
        if !self.is_ready() {
            return Some("stopping".to_owned());
        }
        self.faults.reason().or_else(|| match self.broker.health() {
            Health::Ready => None,
            Health::Unready { reason, .. } => Some(reason.to_string()),
        })
    }
}

fn matching(channel_counts: &Channels, pattern: &ChannelPattern) -> ActiveChannels {
    let end = Instant::now() + PATTERN_TIMEOUT;
    let (mut active, mut size) = (ActiveChannels::default(), 0);
    for (index, (name, clients)) in channel_counts.iter().enumerate() {
        if index % NAMES_PER_LOOK == 0 && Instant::now() >= end {
            active.is_cut = true;
            break;
        }
        if pattern.matches(name) {
            active.add(&mut size, name, *clients);
        }
    }
    active
}

/// Sends a question to all workers and collects their answers. A worker that has ended has no
/// clients, and gives no answer.
async fn ask<A>(
    workers: &[WorkerHandle],
    question: impl Fn(oneshot::Sender<A>) -> Input,
) -> Result<Vec<A>, WorkerTimeout> {
    let ask = |worker: &WorkerHandle| {
        let (sender, receiver) = oneshot::channel();
        worker.inbox().send(question(sender));
        receiver
    };
    let waiting: Vec<_> = workers.iter().map(ask).collect();
    let mut answers = Vec::with_capacity(waiting.len());
    for receiver in waiting {
        match tokio::time::timeout(REPLY_TIMEOUT, receiver).await {
            Ok(Ok(answer)) => answers.push(answer),
            Ok(Err(_ended)) => {}
            Err(_) => return Err(WorkerTimeout),
        }
    }
    Ok(answers)
}
