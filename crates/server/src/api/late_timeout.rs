//! A timeout for a future that is usually ready when it is polled a second time, such as the body
//! of a request that has arrived with its head.
//!
//! Invariant: no timer is registered for a future that is ready at its second poll; any other is
//! bounded like that of [`tokio::time::timeout`].

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// Waits for `future` for at most `limit`.
pub(super) async fn timeout_if_late<F: Future>(
    limit: Duration,
    future: F,
) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut is_polled = false;
    let early = poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if is_polled => Poll::Ready(None),
        Poll::Pending => {
            is_polled = true;
            // hyper wakes the task as well, once it has passed on the body; both wake it once.
            context.waker().wake_by_ref();
            Poll::Pending
        }
    });
    match early.await {
        Some(output) => Ok(output),
        None => timeout(limit, future).await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_future_has_its_time_and_no_more() {
        let (limit, begin) = (Duration::from_secs(30), Instant::now());
        assert_eq!(timeout_if_late(limit, async { 1 }).await.unwrap(), 1);
        assert_eq!(timeout_if_late(limit, tokio::task::yield_now()).await, Ok(()));
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert_eq!(timeout_if_late(limit, sleep(limit / 2)).await, Ok(()));
        assert!(timeout_if_late(limit, pending::<()>()).await.is_err());
        assert_eq!(begin.elapsed(), limit / 2 + limit);
    }
}
