//! A partition: all channels that share a tag, and so a slot and a server.
//!
//! Invariant: while unexecuted requests are being returned, later requests wait behind them, so
//! order is kept when the partition moves to another server or a server has lost the scripts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::clock::MonotonicTime;
use super::driver_messages::LinkId;
use super::open_request::OpenRequest;
use super::unavailable::UnavailableReason;

/// State of one partition.
#[derive(Default)]
pub(super) struct Partition {
    /// Link that its requests are sent to.
    pub(super) link: Option<LinkId>,
    /// Link that it belongs to, as far as is known.
    pub(super) target: Option<LinkId>,
    /// Number of pending commands.
    pub(super) in_flight: usize,
    pub(super) hold: Option<Box<Hold>>,
    /// Set while the server refuses subscriptions of its channels.
    pub(super) refusal: Option<Box<SubscribeRefusal>>,
}

/// Refused subscriptions of a partition.
pub(super) struct SubscribeRefusal {
    pub(super) reason: UnavailableReason,
    /// Pub/sub names of one refused command; they are retried first.
    names: Arc<[String]>,
    retry: Retry,
}

/// State of the retry; a number is the fence that ends the step.
enum Retry {
    At(MonotonicTime),
    /// Subscribing to the refused names.
    Names(u64),
    /// The names were accepted; subscribing to all channels of the partition.
    All(u64),
}

/// Requests held until a partition can resume.
pub(super) struct Hold {
    /// Requests that a server did not execute; older than all in `held`.
    pub(super) returned: VecDeque<OpenRequest>,
    pub(super) held: VecDeque<OpenRequest>,
    /// Bytes of all that was added to `held`.
    held_bytes: usize,
    pub(super) retry_at: MonotonicTime,
    /// Whether its channels must be subscribed again.
    pub(super) must_resubscribe: bool,
    /// Whether the scripts must be loaded again.
    pub(super) must_load: bool,
}

/// Interval of retries of refused subscriptions.
const REFUSED_RETRY: Duration = Duration::from_secs(1);

/// Delay before a returned request is sent again, while a cluster settles.
const RETRY_AFTER: Duration = Duration::from_millis(50);

impl Partition {
    /// Holds requests from now on.
    pub(super) fn hold(&mut self, now: MonotonicTime) -> &mut Hold {
        self.hold.get_or_insert_with(|| {
            Box::new(Hold {
                returned: VecDeque::new(),
                held: VecDeque::new(),
                held_bytes: 0,
                retry_at: now + RETRY_AFTER,
                must_resubscribe: false,
                must_load: false,
            })
        })
    }

    /// Bytes of the requests that wait until the hold ends; 0 without one.
    pub(super) fn held_bytes(&self) -> usize {
        self.hold.as_ref().map_or(0, |hold| hold.held_bytes)
    }

    /// Ends the hold when it is time and no command is pending; returns the held requests.
    pub(super) fn release(&mut self, now: MonotonicTime) -> Option<Box<Hold>> {
        self.hold.take_if(|hold| self.in_flight == 0 && hold.retry_at <= now)
    }

    /// The server has refused a subscription to these names.
    pub(super) fn refuse(
        &mut self,
        now: MonotonicTime,
        names: Arc<[String]>,
        reason: UnavailableReason,
    ) {
        let names = self.refusal.take().map_or(names, |refusal| refusal.names);
        let retry = Retry::At(now + REFUSED_RETRY);
        self.refusal = Some(Box::new(SubscribeRefusal { reason, names, retry }));
    }

    /// Names to retry, when a retry is due.
    pub(super) fn refused_names(&self, now: MonotonicTime) -> Option<Arc<[String]>> {
        let refusal = self.refusal.as_ref()?;
        let is_due = matches!(refusal.retry, Retry::At(at) if at <= now);
        (is_due && self.hold.is_none()).then(|| refusal.names.clone())
    }

    /// A retry of the refused names was sent, with this fence.
    pub(super) fn begin_retry(&mut self, fence: u64) {
        if let Some(refusal) = &mut self.refusal {
            refusal.retry = Retry::Names(fence);
        }
    }

    /// The refused names are accepted, and all channels are subscribed again; `None` without
    /// channels.
    pub(super) fn begin_retry_of_all(&mut self, fence: Option<u64>) {
        match (&mut self.refusal, fence) {
            (Some(refusal), Some(fence)) => refusal.retry = Retry::All(fence),
            _ => self.refusal = None,
        }
    }

    /// A subscription was accepted. Returns whether that ends the retry of the refused names, so
    /// that all channels must be subscribed.
    pub(super) fn ends_retry(&mut self, fence: u64) -> bool {
        let is_whole =
            |refusal: &SubscribeRefusal| matches!(refusal.retry, Retry::All(last) if last == fence);
        self.refusal.take_if(|refusal| is_whole(refusal));
        let retry = self.refusal.as_ref().map(|refusal| &refusal.retry);
        matches!(retry, Some(Retry::Names(last)) if *last == fence)
    }

    /// Removes requests that a server did not execute, of an endpoint whose later request about the
    /// same channel it did execute: sent again, they would take effect out of order.
    pub(super) fn take_overtaken(&mut self, by: &OpenRequest) -> Vec<OpenRequest> {
        let Some(hold) = &mut self.hold else { return Vec::new() };
        let of = |request: &OpenRequest| (request.endpoint, request.request.channel().cloned());
        let (key, returned) = (of(by), std::mem::take(&mut hold.returned));
        let (overtaken, kept): (VecDeque<OpenRequest>, VecDeque<OpenRequest>) =
            returned.into_iter().partition(|earlier| key.1.is_some() && of(earlier) == key);
        hold.returned = kept;
        overtaken.into()
    }

    /// Removes held requests whose deadline has passed.
    pub(super) fn take_overdue(&mut self, now: MonotonicTime) -> Vec<OpenRequest> {
        let mut late = Vec::new();
        if let Some(hold) = &mut self.hold {
            let is_late = |pending: &mut OpenRequest| pending.deadline <= now;
            while let Some(pending) = hold.returned.pop_front_if(is_late) {
                late.push(pending);
            }
            while let Some(pending) = hold.held.pop_front_if(is_late) {
                hold.held_bytes -= pending.length();
                late.push(pending);
            }
        }
        late
    }
}

impl Hold {
    /// Holds a request until the partition resumes.
    pub(super) fn push(&mut self, pending: OpenRequest) {
        self.held_bytes += pending.length();
        self.held.push_back(pending);
    }
}

#[cfg(test)]
mod tests {
    use engine::broker::RequestId;

    use super::super::command_request::CommandRequest;
    use super::*;
    use crate::Endpoint;

    fn request(endpoint: u32, channel: &str) -> OpenRequest {
        let (id, channel) = (RequestId::new(0), channel.into());
        let request = CommandRequest::RemoveHistory { id, channel };
        OpenRequest::new(Endpoint(endpoint), request, MonotonicTime::default())
    }

    #[test]
    fn a_request_that_was_overtaken_is_not_sent_again() {
        let mut partition = Partition::default();
        assert!(partition.take_overtaken(&request(1, "a")).is_empty(), "nothing is held");
        let hold = partition.hold(MonotonicTime::default());
        hold.returned.extend([request(1, "a"), request(2, "a"), request(1, "b")]);
        hold.push(request(1, "a"));
        assert_eq!(partition.take_overtaken(&request(1, "a")).len(), 1);
        let hold = partition.hold(MonotonicTime::default());
        assert_eq!((hold.returned.len(), hold.held.len()), (2, 1));
    }
}
