//! Tasks of the broker's thread, supervised.
//!
//! Invariant: a task that panics, and one that ends although it must not, is reported to the node,
//! which is not ready then; what must go on is started again.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::limits::TASK_RESTART;

/// Spawns tasks and reports those that fail.
#[derive(Clone)]
pub(super) struct Tasks {
    failures: mpsc::UnboundedSender<TaskFailure>,
}

/// A task that has failed.
#[derive(Debug)]
pub(super) struct TaskFailure {
    pub(super) task: &'static str,
    /// What the panic said.
    pub(super) message: String,
}

impl Tasks {
    pub(super) fn new() -> (Tasks, mpsc::UnboundedReceiver<TaskFailure>) {
        let (failures, failed) = mpsc::unbounded_channel();
        (Tasks { failures }, failed)
    }

    /// Runs a task that ends.
    pub(super) fn spawn(&self, task: &'static str, future: impl Future<Output = ()> + 'static) {
        let tasks = self.clone();
        tokio::task::spawn_local(async move {
            if let Err(message) = caught(future).await {
                tasks.report(task, message);
            }
        });
    }

    /// Runs a task that must not end: it is started again.
    pub(super) fn keep<F: Future<Output = ()> + 'static>(
        &self,
        task: &'static str,
        start: impl Fn() -> F + 'static,
    ) {
        let tasks = self.clone();
        tokio::task::spawn_local(async move {
            loop {
                let message = match caught(start()).await {
                    Ok(()) => "it has ended".to_owned(),
                    Err(message) => message,
                };
                tasks.report(task, message);
                tokio::time::sleep(TASK_RESTART).await;
            }
        });
    }

    pub(super) fn report(&self, task: &'static str, message: String) {
        // The node has ended otherwise, and its tasks with it.
        let _ended = self.failures.send(TaskFailure { task, message });
    }
}

/// What comes of a future; what its panic said otherwise.
pub(super) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into())
}
