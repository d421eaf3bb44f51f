//! The events that wait for one sink. Pure: time is an argument.
//!
//! Invariant: events stay in order, and their bytes within the bound. Events that do not fit are
//! counted, and a `lost` event takes their place as soon as there is room for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::encoding::EventLoss;
use crate::limits::{BATCH_BYTES_MAX, EVENT_LOG_INTERVAL, EVENT_OVERHEAD};
use crate::stats::LossReason;

/// See the module.
#[derive(Debug)]
pub(crate) struct SinkQueue {
    events: VecDeque<QueuedEvent>,
    bytes: usize,
    bytes_max: usize,
    /// Events that were lost behind the last one of the queue.
    gap: Option<Gap>,
    pub(crate) delivered: u64,
    pub(crate) failures: u64,
    lost: [u64; LossReason::ALL.len()],
    log: LossLog,
}

/// An event with the number that its id has.
#[derive(Clone, Debug)]
pub(crate) struct QueuedEvent {
    pub(crate) number: u64,
    pub(crate) json: Bytes,
    /// Unix time in milliseconds of what happened.
    pub(crate) at_ms: i64,
    /// When it was queued.
    pub(crate) since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    count: u64,
    since_ms: i64,
    until_ms: i64,
}

/// Lost events that are not in the log yet.
#[derive(Debug, Default)]
struct LossLog {
    last: Option<Instant>,
    unlogged: u64,
}

/// Makes the `lost` event of a loss that ended at this Unix time.
pub(crate) type MakeLost<'m> = &'m mut dyn FnMut(EventLoss, i64) -> QueuedEvent;

impl SinkQueue {
    pub(crate) fn new(bytes_max: usize) -> SinkQueue {
        SinkQueue {
            events: VecDeque::new(),
            bytes: 0,
            bytes_max,
            gap: None,
            delivered: 0,
            failures: 0,
            lost: [0; LossReason::ALL.len()],
            log: LossLog::default(),
        }
    }

    /// Adds an event, or counts it as lost. Nothing is queued behind a gap before its `lost` event.
    pub(crate) fn push(&mut self, event: QueuedEvent, make_lost: MakeLost<'_>) {
        let at_ms = event.at_ms;
        self.close_gap(weight(&event), make_lost);
        if self.gap.is_some() || !self.has_room(weight(&event)) {
            let gap = self.gap.get_or_insert(Gap { count: 0, since_ms: at_ms, until_ms: at_ms });
            gap.count += 1;
            gap.until_ms = at_ms;
            self.lose(LossReason::Full, 1);
            return;
        }
        self.append(event);
    }

    fn append(&mut self, event: QueuedEvent) {
        self.bytes += weight(&event);
        self.events.push_back(event);
    }

    fn has_room(&self, weight: usize) -> bool {
        self.bytes + weight <= self.bytes_max
    }

    /// Puts the `lost` event into the place of the gap, if it fits together with `further` bytes.
    fn close_gap(&mut self, further: usize, make_lost: MakeLost<'_>) {
        let Some(gap) = self.gap else { return };
        if !self.events.is_empty() && !self.has_room(EVENT_OVERHEAD + further) {
            return;
        }
        // The size of a `lost` event is bounded by its numbers and the name of the node.
        let loss = EventLoss { count: gap.count, since_ms: gap.since_ms };
        let lost = make_lost(loss, gap.until_ms);
        if self.events.is_empty() || self.has_room(weight(&lost) + further) {
            self.gap = None;
            self.append(lost);
        }
    }

    fn lose(&mut self, reason: LossReason, count: u64) {
        self.lost[reason as usize] += count;
        self.log.unlogged += count;
    }

    /// The first events, at most `count` and [`BATCH_BYTES_MAX`] bytes, and at least one if there
    /// is any.
    pub(crate) fn first(&self, count: usize) -> Vec<QueuedEvent> {
        let mut size = 0;
        let fits = |event: &&QueuedEvent| {
            let is_first = size == 0;
            size += event.json.len() + 1;
            is_first || size <= BATCH_BYTES_MAX
        };
        self.events.iter().take(count).take_while(fits).cloned().collect()
    }

    /// At most this number of first events, of any size.
    pub(crate) fn foremost(&self, count: usize) -> Vec<QueuedEvent> {
        self.events.iter().take(count).cloned().collect()
    }

    /// Removes the first events, which were acknowledged.
    pub(crate) fn acknowledge(&mut self, count: usize, make_lost: MakeLost<'_>) {
        self.remove(count, make_lost);
        self.delivered += count as u64;
    }

    /// Removes the first events, which the receiver never takes, and one behind them, which it has
    /// acknowledged.
    pub(crate) fn reject(&mut self, count: usize, make_lost: MakeLost<'_>) {
        self.lose(LossReason::Rejected, count as u64);
        self.delivered += 1;
        self.remove(count + 1, make_lost);
    }

    fn remove(&mut self, count: usize, make_lost: MakeLost<'_>) {
        for event in self.events.drain(..count.min(self.events.len())) {
            self.bytes -= weight(&event);
        }
        self.events.shrink_to(4 * self.events.len().max(64));
        self.close_gap(0, make_lost);
    }

    /// Gives up everything that waits, because the node stops. Returns its number.
    pub(crate) fn abandon(&mut self) -> u64 {
        let count = self.events.len() as u64;
        self.lose(LossReason::Stopped, count);
        (self.events, self.bytes) = (VecDeque::new(), 0);
        count
    }

    /// Number of losses since the last line of the log, if it is time for another one.
    pub(crate) fn losses_to_log(&mut self, now: Instant) -> Option<u64> {
        let log = &mut self.log;
        let is_due = log.last.is_none_or(|last| now.duration_since(last) >= EVENT_LOG_INTERVAL);
        if log.unlogged == 0 || !is_due {
            return None;
        }
        log.last = Some(now);
        Some(std::mem::take(&mut log.unlogged))
    }

    /// Whether waiting for more events has no use: a batch is full, or half of the queue.
    pub(crate) fn is_ready(&self, batch_max: usize) -> bool {
        self.len() >= batch_max || self.bytes >= BATCH_BYTES_MAX.min(self.bytes_max / 2)
    }

    /// Counts an event that comes after [`SinkQueue::abandon`].
    pub(crate) fn refuse(&mut self) {
        self.lose(LossReason::Stopped, 1);
    }

    /// Number of losses since the last line of the log, which the caller writes now.
    pub(crate) fn take_unlogged(&mut self) -> u64 {
        std::mem::take(&mut self.log.unlogged)
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn lost(&self) -> [u64; LossReason::ALL.len()] {
        self.lost
    }

    /// Time for which the first event has waited.
    pub(crate) fn delay(&self, now: Instant) -> Duration {
        self.events.front().map_or(Duration::ZERO, |event| now.duration_since(event.since))
    }
}

const _: () = assert!(EVENT_OVERHEAD >= 2 * size_of::<QueuedEvent>() + 24 + 2 * 16);

/// Bytes that an event takes.
fn weight(event: &QueuedEvent) -> usize {
    event.json.len() + EVENT_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> QueuedEvent {
        let json = Bytes::from(format!("{number:036}"));
        QueuedEvent { number, json, at_ms: number.cast_signed(), since: Instant::now() }
    }

    fn lost(loss: EventLoss, until_ms: i64) -> QueuedEvent {
        let json = format!("lost {} {} {until_ms}", loss.count, loss.since_ms);
        QueuedEvent { number: 0, json: json.into(), at_ms: until_ms, since: Instant::now() }
    }

    fn texts(queue: &SinkQueue) -> Vec<String> {
        let text = |event: &QueuedEvent| String::from_utf8_lossy(&event.json).into_owned();
        queue.events.iter().map(text).collect()
    }

    #[test]
    fn a_lost_event_stands_where_events_are_missing() {
        let mut queue = SinkQueue::new(3 * (EVENT_OVERHEAD + 36));
        for number in 1..=6 {
            queue.push(event(number), &mut lost);
        }
        assert_eq!((queue.len(), queue.lost()), (3, [3, 0, 0]));
        assert_eq!(queue.losses_to_log(Instant::now()), Some(3));
        queue.acknowledge(1, &mut lost);
        assert_eq!(texts(&queue)[2..], ["lost 3 4 6"]);
        queue.push(event(7), &mut lost);
        queue.acknowledge(3, &mut lost);
        assert_eq!(texts(&queue), ["lost 1 7 7"]);
        queue.push(event(8), &mut lost);
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.losses_to_log(Instant::now()), None, "one line a second");
        assert_eq!(queue.abandon(), 2);
        assert_eq!((queue.bytes(), queue.lost(), queue.delivered), (0, [4, 0, 2], 4));
    }

    #[test]
    fn an_event_above_the_bound_is_lost_and_reported_with_the_next_one() {
        let mut queue = SinkQueue::new(EVENT_OVERHEAD + 26);
        queue.push(event(1), &mut lost);
        assert!(queue.is_empty());
        queue.push(event(2), &mut lost);
        assert_eq!(texts(&queue), ["lost 1 1 1"]);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes() {
        let mut queue = SinkQueue::new(usize::MAX);
        for number in 0..3 {
            let json = Bytes::from(vec![b'x'; BATCH_BYTES_MAX / 2]);
            queue.push(QueuedEvent { json, ..event(number) }, &mut lost);
        }
        assert_eq!(queue.first(100).len(), 1);
        queue.acknowledge(1, &mut lost);
        assert_eq!((queue.first(1).len(), queue.first(100).len()), (1, 1));
    }
}
