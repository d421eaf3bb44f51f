//! The end of a temporary channel: when it is due, and how its subscribers are notified.
//!
//! Invariant: once the end is known, every subscriber is notified of it at that time, even without
//! a connection to NATS.

use std::time::Duration;

use engine::broker::BrokerEvent;
use tokio::time::Instant;

use super::feed::ChannelFeed;
use crate::limits::END_RETRY;

/// The end of one channel, if it has any.
#[derive(Default)]
pub(super) struct ChannelEnd(Option<Ending>);

struct Ending {
    /// Requested lifetime of the channel, milliseconds.
    ttl_ms: u64,
    /// The end; while NATS has not confirmed it, the time of the next request for it.
    due: Instant,
    is_confirmed: bool,
}

impl ChannelEnd {
    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Limits the lifetime of the channel; an earlier limit takes precedence.
    pub(super) async fn limit(&mut self, feed: &mut ChannelFeed, ttl_ms: u64) {
        if self.0.as_ref().is_some_and(|ending| ending.due <= Instant::now()) {
            self.handle_due(feed).await;
        }
        if self.0.is_none() {
            self.request(feed, ttl_ms).await;
        }
    }

    /// Waits until it is time for [`ChannelEnd::handle_due`].
    pub(super) async fn due(&self) {
        match &self.0 {
            Some(ending) => tokio::time::sleep_until(ending.due).await,
            None => std::future::pending().await,
        }
    }

    /// Notifies the subscribers of a confirmed end; requests an unconfirmed one again.
    pub(super) async fn handle_due(&mut self, feed: &mut ChannelFeed) {
        let Some(Ending { ttl_ms, is_confirmed, .. }) = self.0.take() else { return };
        if !is_confirmed {
            return self.request(feed, ttl_ms).await;
        }
        for (_, inbox) in &feed.subscribers {
            inbox.deliver(BrokerEvent::Expired { channel: feed.stream.channel.clone() });
        }
        feed.known = None;
        let stream = feed.stream.clone();
        feed.stream.link.tasks.spawn("end of a channel", async move {
            // On failure the messages expire by their own age.
            let _later = stream.remove_expired().await;
        });
    }

    /// Requests the end again, since a NATS that has lost messages may have lost it too.
    pub(super) async fn confirm(&mut self, feed: &mut ChannelFeed) {
        let now = Instant::now();
        let Some(ending) = self.0.as_ref().filter(|ending| ending.due > now) else { return };
        let left_ms = match ending.is_confirmed {
            true => u64::try_from((ending.due - now).as_millis()).unwrap_or(u64::MAX),
            false => ending.ttl_ms,
        };
        self.request(feed, left_ms).await;
    }

    async fn request(&mut self, feed: &mut ChannelFeed, ttl_ms: u64) {
        let limiting = Box::pin(feed.stream.clone().limit(ttl_ms));
        let result = feed.while_receiving(limiting).await;
        let is_confirmed = result.is_ok();
        let left = match result {
            Ok(top) => {
                let left_ms = top.ends_ms.saturating_sub(feed.stream.link.now_ms());
                feed.learn(&top);
                Duration::from_millis(left_ms)
            }
            // A confirmed end stays as it is.
            Err(_) if self.0.as_ref().is_some_and(|ending| ending.is_confirmed) => return,
            Err(_) => END_RETRY,
        };
        self.0 = Some(Ending { ttl_ms, due: Instant::now() + left, is_confirmed });
    }
}
