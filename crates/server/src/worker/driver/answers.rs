//! Reports of a worker about its clients, channels and counters.
//!
//! Invariant: a report does not change the worker's state.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::Driver;
use crate::worker::{
    ChannelCounts, ClientFilter, SubscriberFilter, WorkerClient, WorkerReport, WorkerSubscriber,
};

impl Driver {
    pub(super) fn report(&self) -> WorkerReport {
        WorkerReport {
            counters: *self.engine.counters(),
            bytes: self.traffic,
            closes: self.closes.clone(),
            sessions: self.engine.session_count(),
            subscriptions: self.engine.subscription_count(),
            users: self.engine.users().names().map(hash).collect(),
            channels: self.engine.hub().channel_counts().map(|(name, _)| hash(name)).collect(),
        }
    }

    pub(super) fn clients(&self, filter: &ClientFilter) -> Vec<WorkerClient> {
        let clients = self.engine.clients(filter.user.as_deref());
        clients
            .filter(|client| filter.client.as_ref().is_none_or(|one| *one == client.info.client))
            .take(filter.limit)
            .map(|client| WorkerClient {
                client: client.info.client.clone(),
                user: client.info.user.clone(),
                connected_at: client.admitted_at_ms,
                channels: client.channels().map(str::to_owned).collect(),
            })
            .collect()
    }

    pub(super) fn subscribers(&self, filter: &SubscriberFilter) -> Vec<WorkerSubscriber> {
        let SubscriberFilter { channel, after, limit } = filter;
        let subscribers = self.engine.subscribers(channel, after, *limit).into_iter();
        subscribers
            .map(|info| WorkerSubscriber { client: info.client.clone(), user: info.user.clone() })
            .collect()
    }

    pub(super) fn channel_counts(&self) -> ChannelCounts {
        self.engine
            .hub()
            .channel_counts()
            .map(|(name, subscribers)| (name.clone(), subscribers))
            .collect()
    }
}

/// Hash with the same keys on all workers.
fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
