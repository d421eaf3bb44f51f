//! The channel tasks that have neither subscribers nor requests. They wait, since the state of
//! their stream saves the next publisher a read.
//!
//! Invariant: at most [`IDLE_TASKS_MAX`] tasks wait; when another one begins to, the one that has
//! waited longest ends.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::limits::{CHANNEL_TASK_IDLE, IDLE_TASKS_MAX};

/// See the module.
#[derive(Default)]
pub(super) struct IdleTasks {
    count: Cell<usize>,
    /// Wakes the task that has waited longest: waiters are woken in their order.
    must_end: Notify,
    /// Channels whose tasks have ended.
    ended: RefCell<Vec<Arc<str>>>,
}

/// A task that waits.
pub(super) struct IdleTurn<'a>(&'a IdleTasks);

impl IdleTasks {
    /// A task begins to wait.
    pub(super) fn begin(&self) -> IdleTurn<'_> {
        self.count.set(self.count.get() + 1);
        if self.count.get() > IDLE_TASKS_MAX {
            self.must_end.notify_one();
        }
        IdleTurn(self)
    }

    pub(super) fn handle_ended(&self, channel: Arc<str>) {
        self.ended.borrow_mut().push(channel);
    }

    /// A channel whose task has ended.
    pub(super) fn poll_ended(&self) -> Option<Arc<str>> {
        self.ended.borrow_mut().pop()
    }
}

impl IdleTurn<'_> {
    /// Waits until the task must end.
    pub(super) async fn is_over(&self) {
        // Early enough for others, or after the idle time.
        let _early = tokio::time::timeout(CHANNEL_TASK_IDLE, self.0.must_end.notified()).await;
    }
}

impl Drop for IdleTurn<'_> {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
    }
}
