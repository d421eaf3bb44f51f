//! The end of a temporary channel: when it is due, and how its subscribers are notified.
//!
//! Invariant: once the end is known, every subscriber is notified of it at that time, even without
//! a connection to NATS.

use std::time::{Duration, Instant};

use engine::broker::BrokerError;

use crate::limits::END_RETRY;
use crate::nats::node_state::NodeView;
use crate::nats::record::StreamTop;

/// The end of one channel, if it has any.
#[derive(Debug, Default)]
pub(super) struct ChannelEnd(Option<Ending>);

#[derive(Debug)]
struct Ending {
    /// Requested lifetime of the channel, milliseconds.
    ttl_ms: u64,
    /// The end; while NATS has not confirmed it, the time of the next request for it.
    due: Instant,
    is_confirmed: bool,
}

/// What is due for a channel with an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DueEnd {
    /// The channel ends.
    Expired,
    /// NATS must be asked again for an end after this time, milliseconds.
    Request { ttl_ms: u64 },
}

impl ChannelEnd {
    pub(super) fn is_set(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.0.as_ref().map(|ending| ending.due)
    }

    /// What is due now, if anything; the end is unset.
    pub(super) fn poll_due(&mut self, now: Instant) -> Option<DueEnd> {
        let Ending { ttl_ms, is_confirmed, .. } = self.0.take_if(|ending| ending.due <= now)?;
        Some(if is_confirmed { DueEnd::Expired } else { DueEnd::Request { ttl_ms } })
    }

    /// The lifetime that must be requested again, since a NATS that has lost messages may have lost
    /// the end too.
    pub(super) fn lifetime_to_confirm(&self, now: Instant) -> Option<u64> {
        let ending = self.0.as_ref().filter(|ending| ending.due > now)?;
        Some(match ending.is_confirmed {
            true => u64::try_from((ending.due - now).as_millis()).unwrap_or(u64::MAX),
            false => ending.ttl_ms,
        })
    }

    /// Handles the answer to a request for an end after `ttl_ms`.
    pub(super) fn handle_limited(
        &mut self,
        view: &NodeView<'_>,
        ttl_ms: u64,
        result: &Result<StreamTop, BrokerError>,
    ) {
        let left = match result {
            Ok(top) => Duration::from_millis(top.channel_ends_ms.saturating_sub(view.now_ms)),
            // A confirmed end stays as it is.
            Err(_) if self.0.as_ref().is_some_and(|ending| ending.is_confirmed) => return,
            Err(_) => END_RETRY,
        };
        self.0 = Some(Ending { ttl_ms, due: view.now + left, is_confirmed: result.is_ok() });
    }
}
