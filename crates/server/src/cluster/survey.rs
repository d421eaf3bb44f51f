//! A question to all workers whose answer is reused for a short time.
//!
//! Invariant: at most one question is under way, and the next one follows after
//! [`SURVEY_REUSE_FACTOR`] times its duration, however many callers there are and whether they wait
//! or not.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::limits::{SURVEY_LIFETIME_MAX, SURVEY_REUSE_FACTOR};

/// A worker did not answer in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a worker did not answer in time")]
pub(crate) struct WorkerTimeout;

type Answer<T> = Result<Arc<T>, WorkerTimeout>;

/// The last answer of a question.
pub(crate) struct SharedSurvey<T> {
    /// Locked while a question is under way, so that other callers wait for its answer.
    last: Arc<Mutex<Option<Last<T>>>>,
}

struct Last<T> {
    good_until: Instant,
    answer: Answer<T>,
}

impl<T> Default for SharedSurvey<T> {
    fn default() -> SharedSurvey<T> {
        SharedSurvey { last: Arc::default() }
    }
}

impl<T: Send + Sync + 'static> SharedSurvey<T> {
    /// Returns the last answer, or asks again if it is too old.
    pub(crate) async fn answer(
        &self,
        question: impl Future<Output = Result<T, WorkerTimeout>> + Send + 'static,
    ) -> Answer<T> {
        let mut last = self.last.clone().lock_owned().await;
        if let Some(Last { good_until, answer }) = &*last
            && Instant::now() < *good_until
        {
            return answer.clone();
        }
        // A separate task, so that a caller that is cancelled does not discard the answer.
        let asking = tokio::spawn(async move {
            let asked_at = Instant::now();
            let answer = question.await.map(Arc::new);
            let lifetime = (asked_at.elapsed() * SURVEY_REUSE_FACTOR).min(SURVEY_LIFETIME_MAX);
            *last = Some(Last { good_until: Instant::now() + lifetime, answer: answer.clone() });
            answer
        });
        asking.await.unwrap_or(Err(WorkerTimeout))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn callers_share_one_question_for_a_while() {
        const TOOK: Duration = Duration::from_millis(50);
        let survey = SharedSurvey::default();
        let asked = Arc::new(AtomicUsize::new(0));
        let ask = || {
            let asked = asked.clone();
            survey.answer(async move {
                tokio::time::sleep(TOOK).await;
                Ok(asked.fetch_add(1, Ordering::Relaxed))
            })
        };
        // Callers that are cancelled at once.
        for _ in 0..10 {
            assert!(ask().now_or_never().is_none());
        }
        let answers = join_all((0..100).map(|_| ask())).await;
        assert!(answers.iter().all(|answer| **answer.as_ref().unwrap() == 0));
        tokio::time::sleep(TOOK * SURVEY_REUSE_FACTOR - Duration::from_millis(1)).await;
        assert_eq!(*ask().await.unwrap(), 0);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(*ask().await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_is_shared_by_all_callers() {
        let survey = SharedSurvey::<()>::default();
        let silent = || {
            survey.answer(async {
                tokio::time::sleep(Duration::from_secs(3)).await;
                Err(WorkerTimeout)
            })
        };
        let began = Instant::now();
        let answers = join_all((0..100).map(|_| silent())).await;
        assert!(answers.iter().all(Result::is_err));
        assert_eq!(began.elapsed(), Duration::from_secs(3));
    }
}
