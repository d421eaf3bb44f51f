//! A timeout that begins anew with every request of a connection.
//!
//! Invariant: the timer is registered with the runtime once for many requests: a deadline that
//! moves to a later time leaves it as it is, and it is set again when its old time has passed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Deadline of a wait.
#[derive(Default)]
pub(super) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Ends the wait: the next [`Deadline::poll`] begins another.
    pub(super) fn clear(&mut self) {
        self.at = None;
    }

    /// Completes when `timeout` has passed since the wait began, which is now after a
    /// [`Deadline::clear`].
    pub(super) fn poll(&mut self, timeout: Duration, context: &mut Context<'_>) -> Poll<()> {
        let at = *self.at.get_or_insert_with(|| Instant::now() + timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LONG: Duration = Duration::from_secs(75);
    const SHORT: Duration = Duration::from_secs(10);

    async fn wait(deadline: &mut Deadline, timeout: Duration) -> Duration {
        let begin = Instant::now();
        poll_fn(|context| deadline.poll(timeout, context)).await;
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_time() {
        let mut deadline = Deadline::default();
        for _ in 0..3 {
            let waiting = wait(&mut deadline, LONG);
            assert!(tokio::time::timeout(LONG / 2, waiting).await.is_err());
            deadline.clear();
        }
        assert_eq!(wait(&mut deadline, LONG).await, LONG, "a later deadline");
        deadline.clear();
        let waiting = wait(&mut deadline, LONG);
        assert!(tokio::time::timeout(SHORT, waiting).await.is_err());
        deadline.clear();
        assert_eq!(wait(&mut deadline, SHORT).await, SHORT, "an earlier deadline");
    }
}
