//! Runs a consumer, and starts it again after a failure, until its stop signal.
//!
//! Invariant: whatever a source does, the consumer is started again after a bounded delay, and each
//! failure is logged and counted.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::backoff::RetryBackoff;
use crate::counters::ConsumerCounters;
use crate::error::ConsumerError;
use crate::limits::{RESTART_DELAY, RESTART_DELAY_MAX};
use crate::stop::StopSignal;

/// Name, counters and stop signal of a consumer.
#[derive(Clone, Debug)]
pub struct ConsumerTask {
    /// Name of the consumer.
    pub name: Arc<str>,
    /// Counters of the consumer.
    pub counters: Arc<ConsumerCounters>,
    /// Set when the consumer must stop.
    pub stop: StopSignal,
}

/// Calls `attempt` until the stop signal. An attempt returns `Ok` only after the stop signal.
pub async fn run_until_stopped<F>(task: &ConsumerTask, attempt: impl Fn() -> F)
where
    F: Future<Output = Result<(), ConsumerError>>,
{
    let consumer = &task.name;
    let mut backoff = RetryBackoff::new(RESTART_DELAY, RESTART_DELAY_MAX);
    while !task.stop.is_requested() {
        let started = Instant::now();
        let Err(error) = attempt().await else { break };
        task.counters.count_failure();
        if started.elapsed() > RESTART_DELAY_MAX {
            backoff.reset();
        }
        let delay = backoff.next_delay();
        warn!(%consumer, %error, ?delay, "consumer: failed; restarting after a delay");
        if task.stop.requested_within(delay).await {
            break;
        }
    }
    task.counters.disconnected();
    info!(%consumer, "consumer: stopped");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::stop::StopTrigger;

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_fails_is_started_again_until_the_stop() {
        let (trigger, stop) = StopTrigger::new();
        let task = ConsumerTask { name: "orders".into(), counters: Arc::default(), stop };
        let attempts = AtomicU32::new(0);
        run_until_stopped(&task, async || {
            let missing = "Kafka topic \"events\"".to_owned();
            match attempts.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => Err(ConsumerError::Missing { missing }),
                _ => {
                    trigger.stop();
                    task.stop.requested().await;
                    Ok(())
                }
            }
        })
        .await;
        assert_eq!(attempts.load(Ordering::Relaxed), 3);
        assert_eq!(task.counters.snapshot().failures, 2);
    }
}
