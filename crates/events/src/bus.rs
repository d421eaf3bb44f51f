//! From what happens on a node to the queues of its sinks.
//!
//! Workers record under one short lock; the task of each sink takes batches under the same lock,
//! and sends them without it.
//!
//! Invariant: all sinks get their events in the order in which they were recorded. A node without
//! sinks takes no lock.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::encoding::{EventBody, EventLoss, EventOrigin};
use crate::occupancy::Occupancy;
use crate::occurrence::{EventKind, Occurrence};
use crate::sink_queue::{QueuedEvent, SinkQueue};
use crate::stats::SinkStats;
use crate::webhook::WebhookSettings;

/// Settings of a sink.
#[derive(Clone)]
pub struct SinkSettings {
    /// Name in logs and metrics.
    pub name: Arc<str>,
    /// Kinds of events that it gets.
    pub kinds: Vec<EventKind>,
    /// Whether it gets the events of a channel.
    pub takes_channel: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Events of one batch.
    pub batch_max: usize,
    /// Time for which an event waits for others.
    pub batch_delay: Duration,
    /// Bytes of the events that wait.
    pub queue_bytes_max: usize,
    /// Where the events go.
    pub target: SinkTarget,
}

/// Where the events of a sink go.
#[derive(Clone, Debug)]
pub enum SinkTarget {
    /// To an HTTP endpoint.
    Webhook(Box<WebhookSettings>),
}

impl fmt::Debug for SinkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkSettings")
            .field("name", &self.name)
            .field("kinds", &self.kinds)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// See the module.
pub struct EventBus {
    origin: EventOrigin,
    sinks: Vec<EventSink>,
    state: Mutex<BusState>,
    stops: watch::Sender<bool>,
}

/// A sink, without its queue.
pub(crate) struct EventSink {
    pub(crate) settings: SinkSettings,
    /// An event was queued behind none.
    pub(crate) filled: Notify,
    /// A whole batch is queued.
    pub(crate) ready: Notify,
    /// The queue is empty.
    pub(crate) emptied: Notify,
}

struct BusState {
    next_number: u64,
    occupancy: Occupancy,
    queues: Vec<SinkQueue>,
    /// The queues were given up: what is recorded from now on is lost.
    has_ended: bool,
}

impl EventBus {
    /// A bus of a node. `uid` is the id of the process.
    #[must_use]
    pub fn new(node_name: &str, uid: &str, sinks: &[SinkSettings]) -> EventBus {
        let queues = sinks.iter().map(|sink| SinkQueue::new(sink.queue_bytes_max)).collect();
        let sink = |settings: &SinkSettings| EventSink {
            settings: settings.clone(),
            filled: Notify::new(),
            ready: Notify::new(),
            emptied: Notify::new(),
        };
        EventBus {
            origin: EventOrigin { node_id: node_name.into(), process_id: uid.into() },
            sinks: sinks.iter().map(sink).collect(),
            state: Mutex::new(BusState {
                next_number: 1,
                occupancy: Occupancy::default(),
                queues,
                has_ended: false,
            }),
            stops: watch::Sender::new(false),
        }
    }

    /// Names of the sinks, in the order of their indexes.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.sinks.iter().map(|sink| &sink.settings.name)
    }

    /// Whether a sink gets events of this kind.
    #[must_use]
    pub fn wants(&self, kind: EventKind) -> bool {
        self.sinks.iter().any(|sink| sink.settings.kinds.contains(&kind))
    }

    /// Records what happened at this Unix time in milliseconds.
    pub fn record(&self, at_ms: i64, what: &Occurrence<'_>) {
        if self.sinks.is_empty() {
            return;
        }
        let body = |kind| EventBody::new(kind, at_ms);
        let mut state = self.lock();
        match what {
            Occurrence::Online(client) => {
                self.push(
                    &mut state,
                    EventBody { client: Some(*client), ..body(EventKind::Online) },
                );
            }
            Occurrence::Offline(client, reason) => {
                let (client, reason) = (Some(*client), Some(*reason));
                self.push(&mut state, EventBody { client, reason, ..body(EventKind::Offline) });
            }
            Occurrence::Subscribed(client, channel) => {
                let (client, name) = (Some(*client), Some(&***channel));
                if state.occupancy.enter(channel) {
                    let occupied = EventBody { channel: name, ..body(EventKind::Occupied) };
                    self.push(&mut state, occupied);
                }
                let subscribed = body(EventKind::Subscribed);
                self.push(&mut state, EventBody { client, channel: name, ..subscribed });
            }
            Occurrence::Unsubscribed(client, channel) => {
                let (client, name) = (Some(*client), Some(&***channel));
                let unsubscribed = body(EventKind::Unsubscribed);
                self.push(&mut state, EventBody { client, channel: name, ..unsubscribed });
                if state.occupancy.leave(channel) {
                    let vacated = EventBody { channel: name, ..body(EventKind::Vacated) };
                    self.push(&mut state, vacated);
                }
            }
            Occurrence::NodeJoined => self.push(&mut state, body(EventKind::NodeJoined)),
            Occurrence::NodeDraining => self.push(&mut state, body(EventKind::NodeDraining)),
            Occurrence::NodeLeft => self.push(&mut state, body(EventKind::NodeLeft)),
            // Nothing follows the departure of a node.
            Occurrence::NodeHeartbeat(_) if *self.stops.borrow() => {}
            Occurrence::NodeHeartbeat(load) => {
                let heartbeat = body(EventKind::NodeHeartbeat);
                self.push(&mut state, EventBody { load: Some(*load), ..heartbeat });
            }
        }
    }

    /// Queues an event for the sinks that want it. It is encoded once.
    fn push(&self, state: &mut BusState, body: EventBody<'_>) {
        let BusState { next_number, queues, has_ended, .. } = state;
        let mut encoded = None;
        for (sink, queue) in self.sinks.iter().zip(queues) {
            let settings = &sink.settings;
            let takes_channel = |channel| (settings.takes_channel)(channel);
            if !settings.kinds.contains(&body.kind) || !body.channel.is_none_or(takes_channel) {
                continue;
            }
            if *has_ended {
                queue.refuse();
                continue;
            }
            let was_empty = queue.is_empty();
            let event = encoded.get_or_insert_with(|| self.encode(next_number, &body)).clone();
            queue
                .push(event, &mut |loss, until_ms| self.encode(next_number, &lost(loss, until_ms)));
            self.log_losses(sink, queue);
            if was_empty && !queue.is_empty() {
                sink.filled.notify_one();
            }
            if queue.is_ready(settings.batch_max) {
                sink.ready.notify_one();
            }
        }
    }

    fn encode(&self, next_number: &mut u64, body: &EventBody<'_>) -> QueuedEvent {
        let number = *next_number;
        *next_number += 1;
        let json = body.encode(&self.id(number), &self.origin);
        QueuedEvent { number, json, at_ms: body.at_ms, since: Instant::now() }
    }

    /// The `lost` event in place of rejected events; the same for every attempt to send it.
    pub(crate) fn stand_in(&self, rejected: &[QueuedEvent]) -> Bytes {
        let (first, last) = (rejected.first(), rejected.last());
        let number = first.map_or(0, |event| event.number);
        let loss = EventLoss {
            count: rejected.len() as u64,
            since_ms: first.map_or(0, |event| event.at_ms),
        };
        let body = lost(loss, last.map_or(0, |event| event.at_ms));
        body.encode(&format!("{}-lost-{}", self.id(number), loss.count), &self.origin)
    }

    /// The id of an event.
    pub(crate) fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.origin.process_id)
    }

    fn log_losses(&self, sink: &EventSink, queue: &mut SinkQueue) {
        if let Some(count) = queue.losses_to_log(Instant::now()) {
            let (sink, lost) = (&*sink.settings.name, queue.lost().iter().sum::<u64>());
            warn!(
                sink,
                count, lost, "events are lost: the queue of the sink is full, or it rejects them"
            );
        }
    }

    /// Does something with the queue of a sink.
    pub(crate) fn with_queue<R>(
        &self,
        index: usize,
        work: impl FnOnce(&mut SinkQueue, &mut dyn FnMut(EventLoss, i64) -> QueuedEvent) -> R,
    ) -> R {
        let mut state = self.lock();
        let BusState { next_number, queues, .. } = &mut *state;
        let queue = &mut queues[index];
        let result =
            work(queue, &mut |loss, until_ms| self.encode(next_number, &lost(loss, until_ms)));
        self.log_losses(&self.sinks[index], queue);
        result
    }

    pub(crate) fn sink(&self, index: usize) -> &EventSink {
        &self.sinks[index]
    }

    /// A receiver that is true once the node stops.
    pub(crate) fn stops(&self) -> watch::Receiver<bool> {
        self.stops.subscribe()
    }

    /// Waits until all sinks have acknowledged everything, at most for this time. What is left
    /// afterwards is lost, and what is recorded later as well.
    pub async fn stop(&self, patience: Duration) {
        self.stops.send_replace(true);
        let all_sent = async {
            for (index, sink) in self.sinks.iter().enumerate() {
                while !self.with_queue(index, |queue, _| queue.is_empty()) {
                    sink.emptied.notified().await;
                }
            }
        };
        let _is_late = tokio::time::timeout(patience, all_sent).await;
        let mut state = self.lock();
        state.has_ended = true;
        for (sink, queue) in self.sinks.iter().zip(&mut state.queues) {
            let (sink, count, delivered) = (&*sink.settings.name, queue.abandon(), queue.delivered);
            let _logged_here = queue.take_unlogged();
            let [full, rejected, _] = queue.lost();
            match (count, full + rejected) {
                (0, 0) => info!(sink, delivered, "all events are delivered"),
                (0, _) => warn!(
                    sink,
                    delivered,
                    full,
                    rejected,
                    "queued events are delivered; others were lost before"
                ),
                _ => warn!(
                    sink,
                    count,
                    delivered,
                    full,
                    rejected,
                    "events are lost: the receiver has not acknowledged them before the node stops"
                ),
            }
        }
    }

    /// Logs what was lost after [`EventBus::stop`]: clients that were connected still.
    pub fn finish(&self) {
        let mut state = self.lock();
        for (sink, queue) in self.sinks.iter().zip(&mut state.queues) {
            let (sink, count) = (&*sink.settings.name, queue.take_unlogged());
            if count > 0 {
                warn!(sink, count, "events are lost: they happened after the last delivery");
            }
        }
    }

    /// Counts of all sinks.
    #[must_use]
    pub fn stats(&self) -> Vec<SinkStats> {
        let (now, state) = (Instant::now(), self.lock());
        let stats = |(sink, queue): (&EventSink, &SinkQueue)| SinkStats {
            name: sink.settings.name.clone(),
            delivered: queue.delivered,
            lost: queue.lost(),
            failures: queue.failures,
            queued: queue.len(),
            queued_bytes: queue.bytes(),
            delay: queue.delay(now),
        };
        self.sinks.iter().zip(&state.queues).map(stats).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BusState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lost(loss: EventLoss, until_ms: i64) -> EventBody<'static> {
    EventBody { loss: Some(loss), ..EventBody::new(EventKind::Lost, until_ms) }
}
