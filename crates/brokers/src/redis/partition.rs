//! A part of the channels: all that share a tag, and so a slot and a server.
//!
//! Invariant: while requests are on their way back without having been carried out, younger ones wait behind them, so that
//! order is kept when the partition moves to another server or a server has forgotten the scripts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::exchange::LinkId;
use super::link::Asked;

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
}

/// What waits until a partition can go on.
pub(super) struct Moving {
    /// Back from a server; older than all that is held.
    pub(super) returned: VecDeque<Asked>,
    pub(super) held: VecDeque<Asked>,
    pub(super) retry_at: Instant,
    /// Whether its channels must be heard again.
    pub(super) must_listen: bool,
    /// Whether the server has forgotten the scripts.
    pub(super) must_load: bool,
}

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

    /// What has waited too long.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<Asked> {
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
