//! The order to stop, from the server to the tasks of consumers.
//!
//! Invariant: a trigger that is dropped stops its consumers too.

use tokio::sync::watch;

/// Orders consumers to stop.
#[derive(Debug)]
pub struct StopTrigger(watch::Sender<bool>);

/// Tells a task whether to stop.
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<bool>);

impl StopTrigger {
    /// A trigger with its signal.
    #[must_use]
    pub fn new() -> (StopTrigger, StopSignal) {
        let (sender, receiver) = watch::channel(false);
        (StopTrigger(sender), StopSignal(receiver))
    }

    /// Signals all holders of the [`StopSignal`] to stop.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl StopSignal {
    /// Returns once the order to stop has been given. Cancel-safe.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error says that the trigger is gone.
        let _gone = receiver.wait_for(|stops| *stops).await;
    }

    /// Whether the order to stop has been given.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for this time, or until the order to stop is given; returns whether it was given.
    pub async fn requested_within(&self, time: std::time::Duration) -> bool {
        tokio::time::timeout(time, self.requested()).await.is_ok()
    }
}
