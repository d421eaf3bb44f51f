//! Long-running tasks and threads of the server. Each has a name, and its end is logged.
//!
//! Invariant: a supervised task that returns or panics makes the node unready, with the reason,
//! until it runs again.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tracing::{error, info};

use crate::limits::{TASK_RESTART_DELAY, TASK_RESTART_DELAY_MAX};

/// Starts tasks and restarts them when they end. Dropping it aborts all of them.
#[derive(Default)]
pub(crate) struct Supervisor {
    supervising: JoinSet<()>,
    faults: TaskFaults,
    running: Running,
}

/// The running task of each name.
type Running = Arc<Mutex<BTreeMap<Cow<'static, str>, AbortHandle>>>;

/// Reasons for which this node is not ready, by name of the task or thread that is not running.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskFaults {
    reasons: Arc<Mutex<BTreeMap<Cow<'static, str>, String>>>,
    /// The first reason; `None` when everything is running.
    first: watch::Sender<Option<String>>,
}

/// Aborts the task when its supervisor is dropped.
struct AbortOnDrop(AbortHandle);

impl Supervisor {
    /// Runs the future that `make` returns. Whenever it ends, starts another one after a delay that
    /// doubles up to [`TASK_RESTART_DELAY_MAX`].
    pub(crate) fn spawn<F>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        make: impl Fn() -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let name: Cow<'static, str> = name.into();
        let (faults, running) = (self.faults.clone(), self.running.clone());
        let named = name.clone();
        let start = move || {
            let task = tokio::spawn(make());
            lock(&running).insert(named.clone(), task.abort_handle());
            task
        };
        let mut task = start();
        self.supervising.spawn(async move {
            let mut delay = TASK_RESTART_DELAY;
            loop {
                let _abort = AbortOnDrop(task.abort_handle());
                let reason = reason(task.await);
                error!(task = &*name, %reason, ?delay, "a task has ended and is restarted; this is a bug, please report it");
                faults.set(name.clone(), format!("task {name} has ended ({reason}) and is being restarted"));
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(TASK_RESTART_DELAY_MAX);
                task = start();
                faults.clear(name.clone());
            }
        });
    }

    /// Fault table for tasks and threads outside this supervisor.
    pub(crate) fn faults(&self) -> TaskFaults {
        self.faults.clone()
    }
}

impl TaskFaults {
    /// First reason for which the node is not ready; `None` when everything is running.
    pub(crate) fn reason(&self) -> Option<String> {
        self.first.borrow().clone()
    }

    /// Records that a task or thread is not running.
    pub(crate) fn set(&self, name: impl Into<Cow<'static, str>>, reason: String) {
        let mut reasons = lock(&self.reasons);
        reasons.insert(name.into(), reason);
        self.first.send_replace(reasons.values().next().cloned());
    }

    /// Records that a task or thread is running.
    pub(crate) fn clear(&self, name: impl Into<Cow<'static, str>>) {
        let name = name.into();
        let mut reasons = lock(&self.reasons);
        if reasons.remove(&name).is_some() {
            info!(task = &*name, "task recovered");
        }
        self.first.send_replace(reasons.values().next().cloned());
    }
}

/// Runs `work` on a new thread until it returns; after a panic it is run again.
///
/// # Errors
/// If the thread cannot be started.
pub(crate) fn spawn_thread(name: String, work: impl Fn() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.clone());
    thread.spawn(move || {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(&work)) {
            let reason = panic_text(&*panic);
            error!(
                thread = name,
                reason, "thread panicked and is restarted; this is a bug, please report it"
            );
            // Limits log lines if every call panics.
            std::thread::sleep(TASK_RESTART_DELAY);
        }
    })?;
    Ok(())
}

/// Message of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

fn reason(ended: Result<(), JoinError>) -> String {
    match ended {
        Ok(()) => "it returned".to_owned(),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => format!("panic: {}", panic_text(&*panic)),
            Err(_) => "it was cancelled".to_owned(),
        },
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
impl TaskFaults {
    /// A receiver of changes of the first reason.
    pub(crate) fn changes(&self) -> watch::Receiver<Option<String>> {
        self.first.subscribe()
    }
}

#[cfg(test)]
impl Supervisor {
    /// Aborts the task of this name, to simulate a fault.
    pub(crate) fn end(&self, name: &str) {
        lock(&self.running)[name].abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_is_restarted_and_the_node_is_not_ready_meanwhile() {
        let mut supervisor = Supervisor::default();
        let faults = supervisor.faults();
        let (runs, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, waits) = (runs.clone(), again.clone());
        supervisor.spawn("fragile", move || {
            let (run, again) = (counted.fetch_add(1, Ordering::Relaxed), waits.clone());
            async move {
                match run {
                    0 => panic!("index out of range"),
                    1 => {}
                    _ => again.notified().await,
                }
            }
        });
        let mut reason = faults.changes();
        for wanted in ["index out of range", "it returned"] {
            let is_logged = |reason: &Option<String>| {
                reason
                    .as_ref()
                    .is_some_and(|text| text.contains("fragile") && text.contains(wanted))
            };
            reason.wait_for(is_logged).await.unwrap();
        }
        reason.wait_for(Option::is_none).await.unwrap();
        again.notify_one();
        reason.wait_for(Option::is_some).await.unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_thread_continues_after_a_panic_and_ends_when_its_work_returns() {
        let (send, inputs) = mpsc::channel::<u32>();
        let inputs = Mutex::new(inputs);
        let (answer, answers) = mpsc::channel();
        spawn_thread("worker".to_owned(), move || {
            for input in &*lock(&inputs) {
                assert_ne!(input, 13, "unlucky input");
                answer.send(input).unwrap();
            }
        })
        .unwrap();
        for input in [12, 13, 14] {
            send.send(input).unwrap();
        }
        assert_eq!(answers.recv(), Ok(12));
        assert_eq!(answers.recv(), Ok(14));
        drop(send);
        assert!(answers.recv().is_err(), "the thread has ended");
    }
}
