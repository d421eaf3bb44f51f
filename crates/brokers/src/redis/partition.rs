//! A part of the channels: all that share a tag, and so a slot and a server.
//!
//! Invariant: while requests are on their way back without having been carried out, younger ones
//! wait behind them, so that order is kept when the partition moves to another server or a server
//! has forgotten the scripts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exchange::LinkId;
use super::link::OpenRequest;
use super::unavailable::UnavailableReason;

/// See the module.
#[derive(Default)]
pub(super) struct Partition {
    /// Where its requests go.
    pub(super) link: Option<LinkId>,
    /// Where it belongs, as far as is known.
    pub(super) target: Option<LinkId>,
    /// Commands that are not answered.
    pub(super) in_flight: usize,
    pub(super) moving: Option<Box<Moving>>,
    /// While some of its channels may not be heard, since the server does not let this node.
    pub(super) refusal: Option<Box<RequestRefusal>>,
}

/// A server does not let this node hear channels of a partition.
pub(super) struct RequestRefusal {
    pub(super) reason: UnavailableReason,
    /// What one refused command asked for.
    names: Arc<[String]>,
    retry: Retry,
}

/// How far another attempt has come, by the fence that ends its step.
enum Retry {
    At(Instant),
    /// The names that were refused are asked for.
    Names(u64),
    /// They were allowed, and all channels of the partition are asked for.
    All(u64),
}

/// What waits until a partition can go on.
pub(super) struct Moving {
    /// Back from a server; older than all that is held.
    pub(super) returned: VecDeque<OpenRequest>,
    pub(super) held: VecDeque<OpenRequest>,
    pub(super) retry_at: Instant,
    /// Whether its channels must be heard again.
    pub(super) must_listen: bool,
    /// Whether the server has forgotten the scripts.
    pub(super) must_load: bool,
}

/// Time after which a server is asked again for channels that it has refused.
const REFUSED_RETRY: Duration = Duration::from_secs(1);

/// Time that a server is given to find out what it is responsible for.
const RETRY_AFTER: Duration = Duration::from_millis(50);

impl Partition {
    /// From here on requests wait.
    pub(super) fn hold(&mut self, now: Instant) -> &mut Moving {
        self.moving.get_or_insert_with(|| {
            Box::new(Moving {
                returned: VecDeque::new(),
                held: VecDeque::new(),
                retry_at: now + RETRY_AFTER,
                must_listen: false,
                must_load: false,
            })
        })
    }

    /// What waits, when it is time to go on: nothing is on its way back any more.
    pub(super) fn release(&mut self, now: Instant) -> Option<Box<Moving>> {
        self.moving.take_if(|moving| self.in_flight == 0 && moving.retry_at <= now)
    }

    /// The server has refused a command to hear channels of these names.
    pub(super) fn refuse(&mut self, now: Instant, names: Arc<[String]>, reason: UnavailableReason) {
        let names = self.refusal.take().map_or(names, |refusal| refusal.names);
        let retry = Retry::At(now + REFUSED_RETRY);
        self.refusal = Some(Box::new(RequestRefusal { reason, names, retry }));
    }

    /// What is to be asked for once more, when it is time for that.
    pub(super) fn refused_names(&self, now: Instant) -> Option<Arc<[String]>> {
        let refusal = self.refusal.as_ref()?;
        let is_due = matches!(refusal.retry, Retry::At(at) if at <= now);
        (is_due && self.moving.is_none()).then(|| refusal.names.clone())
    }

    /// It is asked for, and this is the fence behind it.
    pub(super) fn begin_retry(&mut self, fence: u64) {
        if let Some(refusal) = &mut self.refusal {
            refusal.retry = Retry::Names(fence);
        }
    }

    /// All channels are asked for, since those that were refused are not any more; `None` when
    /// there are none.
    pub(super) fn begin_retry_of_all(&mut self, fence: Option<u64>) {
        match (&mut self.refusal, fence) {
            (Some(refusal), Some(fence)) => refusal.retry = Retry::All(fence),
            _ => self.refusal = None,
        }
    }

    /// A command to hear was carried out; says whether what was refused is allowed with it, and
    /// all channels are to be asked for.
    pub(super) fn ends_retry(&mut self, fence: u64) -> bool {
        let is_whole =
            |refusal: &RequestRefusal| matches!(refusal.retry, Retry::All(last) if last == fence);
        self.refusal.take_if(|refusal| is_whole(refusal));
        let retry = self.refusal.as_ref().map(|refusal| &refusal.retry);
        matches!(retry, Some(Retry::Names(last)) if *last == fence)
    }

    /// What has waited too long.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<OpenRequest> {
        let mut late = Vec::new();
        if let Some(moving) = &mut self.moving {
            for queue in [&mut moving.returned, &mut moving.held] {
                while queue.front().is_some_and(|asked| asked.deadline <= now) {
                    late.extend(queue.pop_front());
                }
            }
        }
        late
    }
}
