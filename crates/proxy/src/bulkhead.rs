//! The bound on concurrent calls to a backend, with a bounded queue.
//!
//! Invariant: never more than `concurrency` calls have a place, never more than `queue` wait.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Places for calls.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    places: Semaphore,
    waiting: AtomicUsize,
    queue: usize,
}

/// No place, and no place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueIsFull;

impl Bulkhead {
    pub(crate) fn new(concurrency: usize, queue: usize) -> Bulkhead {
        let places = Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS));
        Bulkhead { places, waiting: AtomicUsize::new(0), queue }
    }

    /// Waits for a place, first come first served.
    pub(crate) async fn enter(&self) -> Result<SemaphorePermit<'_>, QueueIsFull> {
        if let Ok(permit) = self.places.try_acquire() {
            return Ok(permit);
        }
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.queue {
            return Err(QueueIsFull);
        }
        let permit = self.places.acquire().await;
        drop(waiting);
        Ok(permit.expect("the semaphore is never closed"))
    }

    /// Number of calls that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// Gives the place in the queue back, also when the call is dropped.
struct Waiting<'b>(&'b AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_and_queue_are_bounded() {
        let bulkhead = Bulkhead::new(1, 1);
        let first = bulkhead.enter().await.unwrap();
        let mut second = Box::pin(bulkhead.enter());
        let poll = std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx)));
        assert!(poll.await.is_pending());
        assert_eq!(bulkhead.enter().await.err(), Some(QueueIsFull));
        assert_eq!(bulkhead.waiting(), 1);
        drop(second);
        assert_eq!(bulkhead.waiting(), 0);
        drop(first);
        assert!(bulkhead.enter().await.is_ok());
    }
}
