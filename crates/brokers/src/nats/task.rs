//! Supervision of the tasks of the broker's thread.
//!
//! Invariant: a task that panics, and a permanent task that ends, is reported to the node, which
//! becomes unready; permanent tasks are started again.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::limits::{TASK_FAILURES_MAX, TASK_RESTART};

/// Spawns tasks and reports those that fail.
#[derive(Clone)]
pub(super) struct Tasks {
    failures: mpsc::Sender<TaskFailure>,
}

/// A kind of task of which one runs at a time: a request while it runs makes it run once more.
#[derive(Clone, Default)]
pub(super) struct SingleTask(Rc<Cell<SingleTaskState>>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SingleTaskState {
    #[default]
    Idle,
    Running,
    /// It runs, and was requested again since it began.
    Requested,
}

/// A task that has failed.
#[derive(Debug)]
pub(super) struct TaskFailure {
    pub(super) task: &'static str,
    /// The text of the panic.
    pub(super) message: String,
}

impl Tasks {
    pub(super) fn new() -> (Tasks, mpsc::Receiver<TaskFailure>) {
        let (failures, failed) = mpsc::channel(TASK_FAILURES_MAX);
        (Tasks { failures }, failed)
    }

    /// Runs a task that may end.
    pub(super) fn spawn(&self, task: &'static str, future: impl Future<Output = ()> + 'static) {
        let tasks = self.clone();
        tokio::task::spawn_local(async move {
            if let Err(message) = caught(future).await {
                tasks.report(task, message);
            }
        });
    }

    /// Runs a task of this kind, or lets the one that runs run once more.
    pub(super) fn spawn_single<F: Future<Output = ()> + 'static>(
        &self,
        task: &'static str,
        single: &SingleTask,
        start: impl Fn() -> F + 'static,
    ) {
        let single = single.clone();
        if single.0.replace(SingleTaskState::Requested) != SingleTaskState::Idle {
            return;
        }
        let tasks = self.clone();
        tokio::task::spawn_local(async move {
            while single.0.get() == SingleTaskState::Requested {
                single.0.set(SingleTaskState::Running);
                if let Err(message) = caught(async { start().await }).await {
                    tasks.report(task, message);
                }
            }
            single.0.set(SingleTaskState::Idle);
        });
    }

    /// Runs a permanent task, which is started again when it ends.
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
        // A full queue holds enough failures to make the node unready.
        let _full = self.failures.try_send(TaskFailure { task, message });
    }
}

/// The text of a panic in a part that a test lets fail.
pub(super) const BROKEN: &str = "broken on purpose";

/// The output of a future, or the text of its panic.
pub(super) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| panic_text(&*panic))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into())
}
