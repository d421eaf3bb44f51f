//! Bytes of answers that one server may have on their way to this node, and the requests that wait
//! for room.
//!
//! Publications come over the same connection, which Redis closes when too much waits for it there.
//! So requests whose answers may be long are sent only while those under way leave room for them.
//! Invariant: what waits is sent in the order in which it was submitted, and nothing of one
//! endpoint about one channel overtakes it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::link::OpenRequest;
use super::pages;
use crate::Endpoint;
use crate::limits::{READ_HELD_MAX, READ_WINDOW};

/// See the module.
#[derive(Default)]
pub(super) struct ReadWindow {
    under_way: usize,
    /// Long answers under way.
    long: usize,
    held: Arc<AtomicUsize>,
    waiting: VecDeque<(usize, OpenRequest)>,
    /// How many wait that nobody may overtake.
    barred: HashMap<(Endpoint, Arc<str>), usize>,
}

impl ReadWindow {
    /// What the answer to a request may have at most.
    pub(super) fn reserve(asked: &OpenRequest) -> usize {
        match pages::is_long(&asked.request) {
            true => asked.progress.as_ref().map_or(crate::limits::PAGE_FIRST, |it| it.budget()),
            false => 0,
        }
    }

    /// A command was written whose answer may have so many bytes.
    pub(super) fn begin(&mut self, bytes: usize) {
        self.under_way += bytes;
        self.long += usize::from(bytes > 0);
    }

    /// Its answer has come.
    pub(super) fn end(&mut self, bytes: usize) {
        self.under_way -= bytes;
        self.long -= usize::from(bytes > 0);
    }

    /// Counts what readers hold of answers that are not whole.
    pub(super) fn held(&self) -> Arc<AtomicUsize> {
        self.held.clone()
    }

    /// Bytes of long answers under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Gives back a request that may be sent now; any other waits.
    pub(super) fn admit(&mut self, partition: usize, asked: OpenRequest) -> Option<OpenRequest> {
        let is_next_page = asked.progress.is_some();
        let is_barred = !is_next_page && (self.is_barred(&asked) || self.must_queue(&asked));
        if !is_barred && self.has_room(&asked) {
            return Some(asked);
        }
        if is_next_page {
            // What has begun is finished first.
            self.waiting.push_front((partition, asked));
            return None;
        }
        if let Some(key) = key(&asked) {
            *self.barred.entry(key).or_default() += 1;
        }
        self.waiting.push_back((partition, asked));
        None
    }

    /// The next request that may be sent.
    pub(super) fn next(&mut self) -> Option<(usize, OpenRequest)> {
        let (_, asked) = self.waiting.front()?;
        if !self.has_room(asked) {
            return None;
        }
        let (partition, asked) = self.waiting.pop_front()?;
        self.unbar(&asked);
        Some((partition, asked))
    }

    /// Takes out those that have waited too long.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<OpenRequest> {
        self.take_out(|_, asked| asked.deadline <= now)
    }

    /// Takes out those of a partition, in their order.
    pub(super) fn take_partition(&mut self, index: usize) -> Vec<OpenRequest> {
        self.take_out(|partition, _| partition == index)
    }

    /// Takes out all.
    pub(super) fn take_all(&mut self) -> Vec<OpenRequest> {
        self.take_out(|_, _| true)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn take_out(&mut self, is_meant: impl Fn(usize, &OpenRequest) -> bool) -> Vec<OpenRequest> {
        if !self.waiting.iter().any(|(partition, asked)| is_meant(*partition, asked)) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        for (partition, asked) in std::mem::take(&mut self.waiting) {
            match is_meant(partition, &asked) {
                true => taken.push(asked),
                false => self.waiting.push_back((partition, asked)),
            }
        }
        taken.iter().for_each(|asked| self.unbar(asked));
        taken
    }

    /// A long answer waits behind those that wait already.
    fn must_queue(&self, asked: &OpenRequest) -> bool {
        !self.waiting.is_empty() && pages::is_long(&asked.request)
    }

    fn is_barred(&self, asked: &OpenRequest) -> bool {
        !self.barred.is_empty() && key(asked).is_some_and(|key| self.barred.contains_key(&key))
    }

    fn unbar(&mut self, asked: &OpenRequest) {
        let Some(key) = key(asked).filter(|_| asked.progress.is_none()) else { return };
        if let Some(count) = self.barred.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.barred.remove(&key);
            }
        }
    }

    fn has_room(&self, asked: &OpenRequest) -> bool {
        let bytes = ReadWindow::reserve(asked);
        if bytes == 0 {
            return true;
        }
        let is_next_page = asked.progress.is_some();
        let may_begin = is_next_page || self.held.load(Ordering::Relaxed) <= READ_HELD_MAX;
        // One publication may be larger than all of it.
        self.long == 0 || (may_begin && self.under_way + bytes <= READ_WINDOW)
    }
}

fn key(asked: &OpenRequest) -> Option<(Endpoint, Arc<str>)> {
    asked.request.channel().map(|channel| (asked.endpoint, channel.clone()))
}

#[cfg(test)]
mod tests {
    use engine::broker::{BrokerRequest, HistoryQuery, RequestId};

    use super::*;
    use crate::limits::PAGE_FIRST;

    fn read(endpoint: u32, channel: &str) -> OpenRequest {
        let query = HistoryQuery::default();
        let (id, channel) = (RequestId(0), channel.into());
        let request = BrokerRequest::History { id, channel, query, meta_ttl_ms: 0 };
        OpenRequest::new(Endpoint(endpoint), request, Instant::now())
    }

    fn write(endpoint: u32, channel: &str) -> OpenRequest {
        let request = BrokerRequest::RemoveHistory { id: RequestId(0), channel: channel.into() };
        OpenRequest::new(Endpoint(endpoint), request, Instant::now())
    }

    /// A window whose room is taken, to the last page.
    fn full() -> ReadWindow {
        let mut window = ReadWindow::default();
        while let Some(asked) = window.admit(0, read(9, "other")) {
            window.begin(ReadWindow::reserve(&asked));
        }
        window.take_all();
        window
    }

    #[test]
    fn what_is_under_way_is_bounded_and_the_rest_keeps_its_order() {
        let mut window = full();
        assert!(window.under_way() <= READ_WINDOW);
        assert!(window.under_way() + PAGE_FIRST > READ_WINDOW);
        assert!(window.admit(0, read(1, "a")).is_none());
        assert!(window.admit(0, write(1, "a")).is_none(), "it would overtake");
        assert!(window.admit(0, write(1, "b")).is_some(), "of another channel");
        assert!(window.admit(0, write(2, "a")).is_some(), "of another endpoint");
        assert!(window.next().is_none());
        window.end(PAGE_FIRST);
        assert!(window.next().is_some_and(|(_, it)| pages::is_long(&it.request)));
        assert!(window.next().is_some_and(|(_, it)| !pages::is_long(&it.request)));
        assert!(window.admit(0, write(1, "a")).is_some(), "nothing waits any more");
    }

    #[test]
    fn what_has_waited_too_long_bars_nobody() {
        let mut window = full();
        assert!(window.admit(3, read(1, "a")).is_none());
        assert_eq!(window.take_late(Instant::now()).len(), 1);
        assert!(window.admit(3, write(1, "a")).is_some());
        assert!(window.is_empty());
    }
}
