//! The end of a temporary channel: when it is, and what is done then.
//!
//! Invariant: every subscriber of the channel while its end is known is told of it, whatever
//! becomes of NATS meanwhile.

use std::time::Duration;

use engine::broker::BrokerEvent;
use tokio::time::Instant;

use super::ChannelTask;
use crate::limits::END_RETRY;

/// Of a temporary channel.
pub(super) struct Ending {
    /// How long it lasts.
    ttl_ms: u64,
    /// When it ends; while NATS has not said that, when it is asked again.
    due: Instant,
    is_known: bool,
}

impl ChannelTask {
    /// The channel has an end: the first that was said holds.
    pub(super) async fn limit(&mut self, ttl_ms: u64) {
        if self.ending.as_ref().is_some_and(|ending| ending.due <= Instant::now()) {
            self.handle_due().await;
        }
        if self.ending.is_none() {
            self.ask_for_end(ttl_ms).await;
        }
    }

    async fn ask_for_end(&mut self, ttl_ms: u64) {
        let result = self.while_receiving(Box::pin(self.place.clone().limit(ttl_ms))).await;
        let is_known = result.is_ok();
        let left = match result {
            Ok(top) => {
                let left_ms = top.ends_ms.saturating_sub(self.place.link.now_ms());
                if self.known.as_ref().is_none_or(|known| known.sequence < top.sequence) {
                    self.known = Some(top);
                }
                Duration::from_millis(left_ms)
            }
            // What was known holds.
            Err(_) if self.ending.as_ref().is_some_and(|ending| ending.is_known) => return,
            Err(_) => END_RETRY,
        };
        self.ending = Some(Ending { ttl_ms, due: Instant::now() + left, is_known });
    }

    /// The channel is over, and its subscribers are notified; or it is time to ask once more when
    /// that will be.
    pub(super) async fn handle_due(&mut self) {
        let Some(Ending { ttl_ms, is_known, .. }) = self.ending.take() else { return };
        if !is_known {
            return self.ask_for_end(ttl_ms).await;
        }
        for (_, inbox) in &self.subscribers {
            inbox.deliver(BrokerEvent::Expired { channel: self.place.channel.clone() });
        }
        self.known = None;
        let place = self.place.clone();
        self.place.link.tasks.spawn("end of a channel", async move {
            // Otherwise it ends by its own time.
            let _later = place.remove_expired().await;
        });
    }

    /// A NATS that has lost it does not know when the channel ends.
    pub(super) async fn confirm_end(&mut self) {
        let now = Instant::now();
        let Some(ending) = self.ending.as_ref().filter(|ending| ending.due > now) else { return };
        let left_ms = match ending.is_known {
            true => u64::try_from((ending.due - now).as_millis()).unwrap_or(u64::MAX),
            false => ending.ttl_ms,
        };
        self.ask_for_end(left_ms).await;
    }
}

/// Waits until it is time for [`ChannelTask::handle_due`].
pub(super) async fn due(ending: Option<&Ending>) {
    match ending {
        Some(ending) => tokio::time::sleep_until(ending.due).await,
        None => std::future::pending().await,
    }
}
