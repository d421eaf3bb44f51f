//! The task of a sink: sends its queue until everything is acknowledged.
//!
//! Invariant: one batch is under way at a time, so that events arrive in order. A batch is removed
//! from the queue only when it is acknowledged, or when its only event is rejected and one behind
//! it is acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::batch::EventBatch;
use crate::bus::{EventBus, EventSink, SinkTarget};
use crate::failure::DeliveryFailure;
use crate::limits::{
    BACKOFF_FIRST, BACKOFF_LONGEST, EVENT_LOG_INTERVAL, PROBES_MAX, STOPPING_BACKOFF,
};
use crate::sink_queue::{QueuedEvent, SinkQueue};
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

impl Target {
    /// Sends a batch once.
    async fn send(&mut self, batch: &EventBatch) -> Result<(), DeliveryFailure> {
        match self {
            Target::Webhook(webhook) => webhook.send(batch).await,
        }
    }
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
            let is_ready = |queue: &mut SinkQueue| queue.is_ready(settings.batch_max);
            while !self.bus.with_queue(self.index, |queue, _| is_ready(queue)) {
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

    /// Sends the next batch until it is acknowledged, or divided or given up after a rejection.
    async fn deliver(&mut self) {
        let events = self.bus.with_queue(self.index, |queue, _| queue.first(self.count_max));
        let [first, ..] = &events[..] else { return };
        let count = events.len();
        let batch = self.batch(first, &events);
        loop {
            let failure = match self.target.send(&batch).await {
                Ok(()) => return self.acknowledged(count),
                Err(failure) => failure,
            };
            if failure.is_final && count > 1 {
                self.count_max = count / 2;
                return self.bus.with_queue(self.index, |queue, _| queue.failures += 1);
            }
            if failure.is_final && self.passes(&failure).await {
                return;
            }
            self.failed(&failure).await;
        }
    }

    /// A batch whose id no other one has. Sinks may have the same receiver.
    fn batch(&self, first: &QueuedEvent, events: &[QueuedEvent]) -> EventBatch {
        let sink = &*self.sink.settings.name;
        let id = format!("{sink}-{}-{}", self.bus.id(first.number), events.len());
        EventBatch { id, events: events.iter().map(|event| event.json.clone()).collect() }
    }

    fn acknowledged(&mut self, count: usize) {
        self.bus.with_queue(self.index, |queue, make_lost| queue.acknowledge(count, make_lost));
        self.succeeded();
    }

    fn succeeded(&mut self) {
        let sink = &*self.sink.settings.name;
        if self.queued() == 0 {
            self.sink.emptied.notify_one();
        }
        if self.failures > 0 {
            info!(sink, failures = self.failures, "events are delivered again");
            self.failures = 0;
        }
        self.count_max = (self.count_max * 2).min(self.sink.settings.batch_max);
    }

    /// Whether the receiver accepts an event behind the first one, which it rejects. Only then the
    /// first one is given up: a receiver that rejects everything is broken (a wrong secret, a wrong
    /// port), and gets everything when it is mended.
    async fn passes(&mut self, failure: &DeliveryFailure) -> bool {
        let probes = (1 << self.failures.min(16)).min(PROBES_MAX);
        let events = self.bus.with_queue(self.index, |queue, _| queue.foremost(1 + probes));
        for count in 1..events.len() {
            let (rejected, next) = (&events[..count], &events[count]);
            let lost = self.bus.stand_in(rejected);
            let sink = &*self.sink.settings.name;
            let id = format!("{sink}-{}-lost-{count}", self.bus.id(rejected[0].number));
            let with_lost = EventBatch { id, events: vec![lost, next.json.clone()] };
            // A receiver may reject the `lost` event as well, which is then left out.
            let alone = self.batch(next, std::slice::from_ref(next));
            for batch in [with_lost, alone] {
                match self.target.send(&batch).await {
                    Ok(()) => {
                        self.rejected(rejected, failure);
                        return true;
                    }
                    Err(failure) if failure.is_final => {}
                    Err(_) => return false,
                }
            }
        }
        false
    }

    /// Gives up the first events.
    fn rejected(&mut self, rejected: &[QueuedEvent], failure: &DeliveryFailure) {
        let (sink, cause) = (&*self.sink.settings.name, &*failure.cause);
        let is_logged = self.bus.with_queue(self.index, |queue, make_lost| {
            queue.failures += 1;
            queue.reject(rejected.len(), make_lost);
            queue.losses_to_log(Instant::now()).is_some()
        });
        if is_logged {
            let (id, count) = (self.bus.id(rejected[0].number), rejected.len());
            warn!(
                sink,
                cause, id, count, "events are lost: the receiver rejects them and accepts others"
            );
        }
        self.succeeded();
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
