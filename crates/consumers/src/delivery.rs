//! Delivery of one message to the handler, until its result is final.
//!
//! Invariant: [`Delivery::settle`] returns only when the message took effect, can never take
//! effect, or the consumer stops. A consumer acknowledges nothing before.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tracing::{info, warn};

use crate::backoff::RetryBackoff;
use crate::counters::ConsumerCounters;
use crate::handler::{Handled, Handler};
use crate::limits::{REASON_MAX, RETRY_DELAY, RETRY_DELAY_MAX};
use crate::log_rate::LogRate;
use crate::message::{ConsumedMessage, MessageOrigin};
use crate::stop::StopSignal;

/// Delivers the messages of one consumer.
#[derive(Debug)]
pub struct Delivery<H> {
    handler: Arc<H>,
    counters: Arc<ConsumerCounters>,
    waits: LogRate,
    rejections: LogRate,
}

/// The final result of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The message took effect.
    Done,
    /// The message can never take effect. It must be stored as a dead letter, if there is a place
    /// for it, before it is acknowledged.
    Rejected {
        /// What is wrong with the message.
        reason: String,
    },
    /// The consumer stops; the message must not be acknowledged.
    Stopped,
}

/// The result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The result is final.
    Settled(Settled),
    /// The message has to be tried again after this time.
    Wait(Duration),
}

impl<H: Handler> Delivery<H> {
    /// Delivers to `handler`.
    pub fn new(handler: Arc<H>, counters: Arc<ConsumerCounters>) -> Delivery<H> {
        let (waits, rejections) = (LogRate::default(), LogRate::default());
        Delivery { handler, counters, waits, rejections }
    }

    /// Counters of the consumer.
    #[must_use]
    pub fn counters(&self) -> &ConsumerCounters {
        &self.counters
    }

    /// Delivers a message, again after a delay while the handler asks to wait, until `stop`.
    /// Cancel-safe.
    pub async fn settle(&self, message: &ConsumedMessage, stop: &StopSignal) -> Settled {
        let mut backoff = RetryBackoff::new(RETRY_DELAY, RETRY_DELAY_MAX);
        let mut attempts = 0_u64;
        loop {
            match self.attempt(message, &mut backoff).await {
                Attempt::Settled(settled) => {
                    if attempts > 0 && settled == Settled::Done {
                        let (consumer, at) = (&message.origin.consumer, &message.origin);
                        info!(%consumer, %at, attempts, "consumer: a message took effect after retries");
                    }
                    return settled;
                }
                Attempt::Wait(delay) => {
                    attempts += 1;
                    if stop.requested_within(delay).await {
                        return Settled::Stopped;
                    }
                }
            }
        }
    }

    /// Delivers a message once, for sources that must not hold it while it waits.
    pub async fn attempt(&self, message: &ConsumedMessage, backoff: &mut RetryBackoff) -> Attempt {
        match self.handle(message).await {
            Handled::Done => {
                self.counters.count_processed();
                Attempt::Settled(Settled::Done)
            }
            Handled::Rejected { reason } => Attempt::Settled(self.reject(&message.origin, reason)),
            Handled::Wait { reason, retry_after } => {
                self.counters.count_retry();
                let delay = retry_after.unwrap_or_else(|| backoff.next_delay());
                if let Some(left_out) = self.waits.admit() {
                    let (consumer, at) = (&message.origin.consumer, &message.origin);
                    warn!(
                        %consumer, %at, %reason, ?delay, left_out,
                        "consumer: a message cannot be handled now and is tried again"
                    );
                }
                Attempt::Wait(delay)
            }
        }
    }

    /// A panic costs one message.
    async fn handle(&self, message: &ConsumedMessage) -> Handled {
        match AssertUnwindSafe(self.handler.handle(message)).catch_unwind().await {
            Ok(handled) => handled,
            Err(_) => {
                Handled::rejected("handling it has panicked; this is a bug, please report it")
            }
        }
    }

    /// Counts and logs a message that can never be handled, such as one that cannot be decoded.
    pub fn reject(&self, origin: &MessageOrigin, reason: Cow<'static, str>) -> Settled {
        self.counters.count_rejected();
        let mut reason = reason.into_owned();
        reason.truncate(reason.floor_char_boundary(REASON_MAX));
        if let Some(left_out) = self.rejections.admit() {
            let (consumer, at) = (&origin.consumer, origin);
            warn!(
                %consumer, %at, %reason, left_out,
                "consumer: message rejected"
            );
        }
        Settled::Rejected { reason }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::message::{Body, RecordOffset};
    use crate::stop::StopTrigger;

    /// Answers with these results, the last one forever.
    struct Scripted(Mutex<Vec<Handled>>);

    impl Handler for Scripted {
        async fn handle(&self, _: &ConsumedMessage) -> Handled {
            let mut results = self.0.lock().unwrap();
            match results.len() {
                1 => results[0].clone(),
                _ => results.remove(0),
            }
        }
    }

    fn delivery(results: Vec<Handled>) -> (Delivery<Scripted>, ConsumedMessage) {
        let handler = Arc::new(Scripted(Mutex::new(results)));
        let origin = MessageOrigin {
            consumer: "orders".into(),
            source: "events".into(),
            partition: Some(0),
            offset: RecordOffset::Number(7),
        };
        let body = Body::Command { method: "publish".into(), payload: "{}".into() };
        (Delivery::new(handler, Arc::default()), ConsumedMessage { origin, body })
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_tried_until_it_takes_effect() {
        let results = vec![Handled::wait("away"), Handled::wait("away"), Handled::Done];
        let (_trigger, stop) = StopTrigger::new();
        let (delivery, message) = delivery(results);
        assert_eq!(delivery.settle(&message, &stop).await, Settled::Done);
        let counts = delivery.counters().snapshot();
        assert_eq!((counts.processed, counts.retries, counts.rejected), (1, 2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_message_is_counted_and_not_tried_again() {
        let (_trigger, stop) = StopTrigger::new();
        let (delivery, message) = delivery(vec![Handled::rejected("é".repeat(600))]);
        let Settled::Rejected { reason } = delivery.settle(&message, &stop).await else { panic!() };
        assert_eq!(reason.len(), 1_000);
        assert_eq!(delivery.counters().snapshot().rejected, 1);
    }

    #[tokio::test]
    async fn a_panic_costs_one_message() {
        struct Panicking;
        impl Handler for Panicking {
            async fn handle(&self, _: &ConsumedMessage) -> Handled {
                panic!("index out of range")
            }
        }
        let (_trigger, stop) = StopTrigger::new();
        let (_, message) = delivery(vec![Handled::Done]);
        let delivery = Delivery::new(Arc::new(Panicking), Arc::default());
        let Settled::Rejected { reason } = delivery.settle(&message, &stop).await else { panic!() };
        assert!(reason.contains("panicked"), "{reason}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_message_stops_with_its_consumer() {
        let (trigger, stop) = StopTrigger::new();
        let (delivery, message) = delivery(vec![Handled::wait("away")]);
        let settling = delivery.settle(&message, &stop);
        let stopping = async {
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            trigger.stop();
        };
        assert_eq!(tokio::join!(settling, stopping).0, Settled::Stopped);
    }
}
