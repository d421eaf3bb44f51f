//! The task of a sink: sends its queue until everything is acknowledged.
//!
//! Invariant: one batch is under way at a time, so that events arrive in order. A batch is removed
//! from the queue only when it is acknowledged, or when its only event is rejected.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::batch::EventBatch;
use crate::bus::{EventBus, EventSink, SinkTarget};
use crate::failure::DeliveryFailure;
use crate::limits::{BACKOFF_FIRST, BACKOFF_LONGEST, EVENT_LOG_INTERVAL, STOPPING_BACKOFF};
use crate::webhook::Webhook;

/// Delivers the events of a sink. Does not return.
pub async fn run(bus: Arc<EventBus>, index: usize) {
    let sink = bus.sink(index);
    let target = match &sink.settings.target {
        SinkTarget::Webhook(settings) => Target::Webhook(Webhook::new((**settings).clone())),
    };
    let mut delivery = Delivery {
        bus: &bus,
        index,
        sink,
        target,
        stops: bus.stops(),
        count_max: sink.settings.batch_max,
        failures: 0,
    };
    loop {
        delivery.wait_for_events().await;
        delivery.deliver().await;
    }
}

enum Target {
    Webhook(Webhook),
}

struct Delivery<'b> {
    bus: &'b EventBus,
    index: usize,
    sink: &'b EventSink,
    target: Target,
    stops: watch::Receiver<bool>,
    /// Events of the next batch. After a rejection it is halved, until the event that the receiver
    /// rejects is alone.
    count_max: usize,
    /// Failed attempts since the last batch that was acknowledged.
    failures: u32,
}

impl Delivery<'_> {
    /// Waits for an event, and then for others that go with it.
    async fn wait_for_events(&mut self) {
        let settings = &self.sink.settings;
        let mut queued = self.queued();
        while queued == 0 {
            // Looks again from time to time: losses too near to others are not in the log yet.
            let filled = self.sink.filled.notified();
            let _idle = tokio::time::timeout(EVENT_LOG_INTERVAL, filled).await;
            queued = self.queued();
        }
        let is_full = async {
            while self.queued() < settings.batch_max {
                self.sink.ready.notified().await;
            }
        };
        tokio::select! {
            () = is_full => {}
            () = tokio::time::sleep(settings.batch_delay) => {}
            () = stopping(self.stops.clone()) => {}
        }
    }

    fn queued(&self) -> usize {
        self.bus.with_queue(self.index, |queue, _| queue.len())
    }

    /// Sends the next batch until it is acknowledged or rejected.
    async fn deliver(&mut self) {
        let events = self.bus.with_queue(self.index, |queue, _| queue.first(self.count_max));
        let [first, ..] = &events[..] else { return };
        let count = events.len();
        let id = format!("{}-{count}", self.bus.id(first.number));
        let batch = EventBatch { id, events: events.into_iter().map(|event| event.json).collect() };
        loop {
            let result = match &self.target {
                Target::Webhook(webhook) => webhook.send(&batch).await,
            };
            match result {
                Ok(()) => return self.acknowledged(count),
                Err(failure) if failure.is_final => return self.rejected(count, &failure),
                Err(failure) => self.failed(&failure).await,
            }
        }
    }

    fn acknowledged(&mut self, count: usize) {
        let sink = &*self.sink.settings.name;
        let is_empty = self.bus.with_queue(self.index, |queue, make_lost| {
            queue.acknowledge(count, make_lost);
            queue.is_empty()
        });
        if is_empty {
            self.sink.emptied.notify_one();
        }
        if self.failures > 0 {
            info!(sink, failures = self.failures, "events are delivered again");
            self.failures = 0;
        }
        self.count_max = (self.count_max * 2).min(self.sink.settings.batch_max);
    }

    /// Looks for the event that the receiver rejects, and gives it up.
    fn rejected(&mut self, count: usize, failure: &DeliveryFailure) {
        let (sink, cause) = (&*self.sink.settings.name, &*failure.cause);
        if count > 1 {
            self.count_max = count / 2;
            self.bus.with_queue(self.index, |queue, _| queue.failures += 1);
            return;
        }
        let (event, is_empty, is_logged) = self.bus.with_queue(self.index, |queue, make_lost| {
            queue.failures += 1;
            let event = queue.first(1);
            queue.reject(make_lost);
            (event, queue.is_empty(), queue.losses_to_log(std::time::Instant::now()).is_some())
        });
        if let Some(event) = event.first().filter(|_| is_logged) {
            let id = self.bus.id(event.number);
            warn!(sink, cause, id, "an event is lost: the receiver rejects it");
        }
        if is_empty {
            self.sink.emptied.notify_one();
        }
    }

    /// Counts a failure and waits before the next attempt.
    async fn failed(&mut self, failure: &DeliveryFailure) {
        let sink = &*self.sink.settings.name;
        let (queued, bytes) = self.bus.with_queue(self.index, |queue, _| {
            queue.failures += 1;
            (queue.len(), queue.bytes())
        });
        let delay = backoff(self.failures).max(failure.retry_after.unwrap_or_default());
        self.failures = self.failures.saturating_add(1);
        // The delays double, so that the lines of a failure are few.
        warn!(
            sink,
            cause = &*failure.cause,
            attempts = self.failures,
            queued,
            bytes,
            ?delay,
            "events are not delivered; they wait for another attempt"
        );
        let shortened = async {
            stopping(self.stops.clone()).await;
            tokio::time::sleep(STOPPING_BACKOFF).await;
        };
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = shortened => {}
        }
    }
}

/// Returns once the node stops.
async fn stopping(mut stops: watch::Receiver<bool>) {
    // An error says that the bus is gone.
    let _gone = stops.wait_for(|stops| *stops).await;
}

/// The delay after this number of failures: it doubles, and is spread at random so that nodes do
/// not try at the same time.
fn backoff(failures: u32) -> Duration {
    let step = BACKOFF_FIRST.saturating_mul(1 << failures.min(16)).min(BACKOFF_LONGEST);
    step.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        for (failures, longest) in
            [(0, BACKOFF_FIRST), (1, BACKOFF_FIRST * 2), (99, BACKOFF_LONGEST)]
        {
            let delay = backoff(failures);
            assert!(delay >= longest / 2 && delay <= longest, "{delay:?}");
        }
    }
}
