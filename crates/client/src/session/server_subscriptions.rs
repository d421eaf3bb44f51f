//! The subscriptions that the server has made for this connection, by its token or through the
//! server API.
//!
//! Invariant: the list is the server's. What it does not name after a connect has ended; the bytes
//! of what it names are bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wire::protocol::{Publication, StreamPosition, SubscribeRequest, SubscribeResult};

use super::event::{Event, Subscribed, SubscriptionOrigin};
use super::outputs::SessionOutputs;
use super::position::Tracker;
use super::reason::Reason;
use super::subscriptions::subscribed;
use crate::limits::{EPOCH_SIZE_MAX, SERVER_SUBSCRIPTION_BYTES_MAX};

/// Server-side subscriptions of this connection, by channel.
#[derive(Debug, Default)]
pub(super) struct ServerSubscriptions {
    channels: BTreeMap<Arc<str>, Tracker>,
    bytes: usize,
}

/// The server names more subscriptions than this client keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl ServerSubscriptions {
    pub(super) fn position(&self, channel: &str) -> Option<&StreamPosition> {
        self.channels.get(channel)?.position()
    }

    pub(super) fn duplicates(&self) -> u64 {
        self.channels.values().map(Tracker::duplicates).sum()
    }

    pub(super) fn contains(&self, channel: &str) -> bool {
        self.channels.contains_key(channel)
    }

    /// The positions that the connect command names, so that the server recovers what was missed.
    pub(super) fn requests(&self) -> Vec<(String, SubscribeRequest)> {
        let known = self.channels.iter();
        let positioned =
            known.filter_map(|(channel, tracker)| Some((channel, tracker.position()?)));
        let request = |(channel, position): (&Arc<str>, &StreamPosition)| {
            let request = SubscribeRequest {
                recover: true,
                epoch: position.epoch.clone(),
                offset: position.offset,
                ..SubscribeRequest::default()
            };
            (channel.to_string(), request)
        };
        positioned.map(request).collect()
    }

    /// The server accepted the connection and named its subscriptions.
    pub(super) fn handle_connected(
        &mut self,
        results: &[(String, SubscribeResult)],
        out: &mut SessionOutputs,
    ) -> Result<(), TooMany> {
        let named: BTreeSet<&str> = results.iter().map(|(channel, _)| &**channel).collect();
        let mut gone: Vec<Arc<str>> = self.channels.keys().cloned().collect();
        gone.retain(|channel| !named.contains(&**channel));
        for channel in gone {
            self.end(&channel, Reason::UNSUBSCRIBE_CALLED, out);
        }
        for (name, result) in results {
            let (channel, tracker) = self.entry(name)?;
            let missed = tracker.begin(result);
            let subscribed = Box::new(subscribed(SubscriptionOrigin::Server, result, missed.len()));
            out.events.push_back(Event::Subscribed { channel: channel.clone(), subscribed });
            for publication in missed {
                out.events.push_back(Event::Publication { channel: channel.clone(), publication });
            }
        }
        Ok(())
    }

    /// The server began a subscription.
    pub(super) fn handle_subscribed(
        &mut self,
        name: &str,
        subscribed: Subscribed,
        out: &mut SessionOutputs,
    ) -> Result<(), TooMany> {
        let (channel, tracker) = self.entry(name)?;
        tracker.begin_at(subscribed.recoverable.then(|| subscribed.position.clone()));
        let subscribed = Box::new(subscribed);
        out.events.push_back(Event::Subscribed { channel, subscribed });
        Ok(())
    }

    /// The server ended a subscription.
    pub(super) fn end(&mut self, channel: &Arc<str>, reason: Reason, out: &mut SessionOutputs) {
        if self.channels.remove(channel).is_some() {
            self.bytes -= weight(channel);
            out.events.push_back(Event::Unsubscribed { channel: channel.clone(), reason });
        }
    }

    /// `false` when the channel has no subscription here.
    pub(super) fn handle_publication(
        &mut self,
        channel: &Arc<str>,
        publication: &Arc<Publication>,
        out: &mut SessionOutputs,
    ) -> bool {
        let Some(tracker) = self.channels.get_mut(channel) else { return false };
        if tracker.accept(publication) {
            let (channel, publication) = (channel.clone(), publication.clone());
            out.events.push_back(Event::Publication { channel, publication });
        }
        true
    }

    /// The connection has ended.
    pub(super) fn suspend(&self, out: &mut SessionOutputs) {
        for channel in self.channels.keys() {
            let (channel, reason) = (channel.clone(), Reason::TRANSPORT_CLOSED);
            out.events.push_back(Event::Subscribing { channel, reason });
        }
    }

    /// The server asks to drop positions.
    pub(super) fn invalidate(&mut self) {
        self.channels.values_mut().for_each(Tracker::invalidate);
    }

    fn entry(&mut self, name: &str) -> Result<(Arc<str>, &mut Tracker), TooMany> {
        let channel: Arc<str> = name.into();
        if !self.channels.contains_key(&channel) {
            let bytes = self.bytes + weight(name);
            if bytes > SERVER_SUBSCRIPTION_BYTES_MAX {
                return Err(TooMany);
            }
            self.bytes = bytes;
        }
        let tracker = self.channels.entry(channel.clone()).or_default();
        Ok((channel, tracker))
    }
}

fn weight(channel: &str) -> usize {
    channel.len() + size_of::<(Arc<str>, Tracker)>() + EPOCH_SIZE_MAX
}
