//! Flow control of long replies from one server.
//!
//! Publications share the connection, which Redis closes when too much output waits for it. So
//! requests with long replies are sent only while the pending ones leave room. Invariant: waiting
//! requests are sent in the order of submission, and no request of an endpoint about a channel
//! overtakes its earlier one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::clock::MonotonicTime;
use super::open_request::OpenRequest;
use super::pages;
use crate::Endpoint;
use crate::limits::{READ_HELD_MAX, READ_WINDOW};

/// Bytes reserved by pending replies, and the requests that wait for room.
#[derive(Default)]
pub(super) struct ReadWindow {
    under_way: usize,
    /// Pending long replies.
    long: usize,
    held: Arc<AtomicUsize>,
    waiting: VecDeque<(usize, OpenRequest)>,
    /// Number of waiting requests by endpoint and channel; later requests of these must wait as
    /// well.
    blocked: HashMap<(Endpoint, Arc<str>), usize>,
}

impl ReadWindow {
    /// Maximum bytes of a request's reply.
    pub(super) fn reserve(pending: &OpenRequest) -> usize {
        match pages::is_long(&pending.request) {
            true => pending.progress.as_ref().map_or(crate::limits::PAGE_FIRST, |it| it.budget()),
            false => 0,
        }
    }

    /// A command was written whose reply may have this many bytes.
    pub(super) fn begin(&mut self, bytes: usize) {
        self.under_way += bytes;
        self.long += usize::from(bytes > 0);
    }

    /// The reply to such a command has arrived.
    pub(super) fn end(&mut self, bytes: usize) {
        self.under_way -= bytes;
        self.long -= usize::from(bytes > 0);
    }

    /// Counter of the bytes that readers of incomplete replies hold.
    pub(super) fn held(&self) -> Arc<AtomicUsize> {
        self.held.clone()
    }

    /// Bytes reserved by pending replies.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Returns a request that may be sent now; keeps any other.
    pub(super) fn admit(&mut self, partition: usize, pending: OpenRequest) -> Option<OpenRequest> {
        let is_next_page = pending.progress.is_some();
        let is_blocked = !is_next_page && (self.is_blocked(&pending) || self.must_queue(&pending));
        if !is_blocked && self.has_room(&pending) {
            return Some(pending);
        }
        if is_next_page {
            // A read in progress is finished first.
            self.waiting.push_front((partition, pending));
            return None;
        }
        if let Some(key) = key(&pending) {
            *self.blocked.entry(key).or_default() += 1;
        }
        self.waiting.push_back((partition, pending));
        None
    }

    /// The next waiting request, if there is room for it.
    pub(super) fn next(&mut self) -> Option<(usize, OpenRequest)> {
        let (_, pending) = self.waiting.front()?;
        if !self.has_room(pending) {
            return None;
        }
        let (partition, pending) = self.waiting.pop_front()?;
        self.unblock(&pending);
        Some((partition, pending))
    }

    /// Removes requests whose deadline has passed.
    pub(super) fn take_overdue(&mut self, now: MonotonicTime) -> Vec<OpenRequest> {
        self.take_out(|_, pending| pending.deadline <= now)
    }

    /// Removes the requests of a partition, in order.
    pub(super) fn take_partition(&mut self, index: usize) -> Vec<OpenRequest> {
        self.take_out(|partition, _| partition == index)
    }

    /// Removes all requests.
    pub(super) fn take_all(&mut self) -> Vec<OpenRequest> {
        self.take_out(|_, _| true)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn take_out(&mut self, is_meant: impl Fn(usize, &OpenRequest) -> bool) -> Vec<OpenRequest> {
        if !self.waiting.iter().any(|(partition, pending)| is_meant(*partition, pending)) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        for (partition, pending) in std::mem::take(&mut self.waiting) {
            match is_meant(partition, &pending) {
                true => taken.push(pending),
                false => self.waiting.push_back((partition, pending)),
            }
        }
        taken.iter().for_each(|pending| self.unblock(pending));
        taken
    }

    /// A request with a long reply waits behind those that wait already.
    fn must_queue(&self, pending: &OpenRequest) -> bool {
        !self.waiting.is_empty() && pages::is_long(&pending.request)
    }

    fn is_blocked(&self, pending: &OpenRequest) -> bool {
        !self.blocked.is_empty() && key(pending).is_some_and(|key| self.blocked.contains_key(&key))
    }

    fn unblock(&mut self, pending: &OpenRequest) {
        let Some(key) = key(pending).filter(|_| pending.progress.is_none()) else { return };
        if let Some(count) = self.blocked.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.blocked.remove(&key);
            }
        }
    }

    fn has_room(&self, pending: &OpenRequest) -> bool {
        let bytes = ReadWindow::reserve(pending);
        if bytes == 0 {
            return true;
        }
        let is_next_page = pending.progress.is_some();
        let may_begin = is_next_page || self.held.load(Ordering::Relaxed) <= READ_HELD_MAX;
        // A single publication may exceed the window.
        self.long == 0 || (may_begin && self.under_way + bytes <= READ_WINDOW)
    }
}

fn key(pending: &OpenRequest) -> Option<(Endpoint, Arc<str>)> {
    pending.request.channel().map(|channel| (pending.endpoint, channel.clone()))
}

#[cfg(test)]
mod tests {
    use engine::broker::{HistoryQuery, RequestId};

    use super::super::command_request::CommandRequest;
    use super::*;
    use crate::limits::PAGE_FIRST;

    fn read(endpoint: u32, channel: &str) -> OpenRequest {
        let query = HistoryQuery::default();
        let (id, channel) = (RequestId::new(0), channel.into());
        let request = CommandRequest::History { id, channel, query, meta_ttl_ms: 0 };
        OpenRequest::new(Endpoint(endpoint), request, MonotonicTime::default())
    }

    fn write(endpoint: u32, channel: &str) -> OpenRequest {
        let (id, channel) = (RequestId::new(0), channel.into());
        let request = CommandRequest::RemoveHistory { id, channel };
        OpenRequest::new(Endpoint(endpoint), request, MonotonicTime::default())
    }

    /// A window without room for another page.
    fn full() -> ReadWindow {
        let mut window = ReadWindow::default();
        while let Some(pending) = window.admit(0, read(9, "other")) {
            window.begin(ReadWindow::reserve(&pending));
        }
        window.take_all();
        window
    }

    #[test]
    fn pending_bytes_are_bounded_and_waiting_requests_keep_their_order() {
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
    fn an_overdue_request_does_not_delay_later_ones() {
        let mut window = full();
        assert!(window.admit(3, read(1, "a")).is_none());
        assert_eq!(window.take_overdue(MonotonicTime::default()).len(), 1);
        assert!(window.admit(3, write(1, "a")).is_some());
        assert!(window.is_empty());
    }
}
