//! This node as a whole: its workers and what they say of themselves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use brokers::Broker;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::limits::ANSWER_TIMEOUT;
use crate::survey::Survey;
use crate::telemetry::{HttpCounts, Totals};
use crate::worker::{Input, Worker};

/// See the module.
pub(crate) struct Node {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) workers: Arc<Vec<Worker>>,
    pub(crate) clock: Clock,
    pub(crate) counts: Arc<HttpCounts>,
    /// Whether new connections are welcome.
    pub(crate) is_ready: AtomicBool,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) surveys: Surveys,
}

type Channels = HashMap<Arc<str>, usize>;

/// What workers were asked last. A question goes through all that a worker has, so callers share its answer.
#[derive(Default)]
pub(crate) struct Surveys {
    totals: Survey<Totals>,
    census: Survey<Channels>,
}

/// A worker did not answer in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a worker did not answer in time")]
pub(crate) struct Silent;

impl Node {
    /// Totals of all workers, as they were a moment ago: see [`Survey`].
    pub(crate) async fn totals(&self) -> Result<Arc<Totals>, Silent> {
        let workers = self.workers.clone();
        let question = async move {
            let mut totals = Totals::default();
            for report in ask(&workers, Input::Report).await? {
                totals.add(report);
            }
            Ok(totals)
        };
        self.surveys.totals.answer(question).await
    }

    /// Channels with a subscriber, and how many; as old.
    pub(crate) async fn census(&self) -> Result<Arc<Channels>, Silent> {
        let workers = self.workers.clone();
        let question = async move {
            let mut channels = HashMap::new();
            for (name, seats) in ask(&workers, Input::Census).await?.into_iter().flatten() {
                *channels.entry(name).or_default() += seats;
            }
            Ok(channels)
        };
        self.surveys.census.answer(question).await
    }

    pub(crate) fn uptime_seconds(&self) -> u64 {
        self.clock.now().monotonic_ms / 1000
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }
}

/// Asks all workers at once.
async fn ask<A>(
    workers: &[Worker],
    question: fn(oneshot::Sender<A>) -> Input,
) -> Result<Vec<A>, Silent> {
    let ask = |worker: &Worker| {
        let (sender, receiver) = oneshot::channel();
        worker.inbox().send(question(sender));
        receiver
    };
    let waiting: Vec<_> = workers.iter().map(ask).collect();
    let mut answers = Vec::with_capacity(waiting.len());
    for receiver in waiting {
        match tokio::time::timeout(ANSWER_TIMEOUT, receiver).await {
            Ok(Ok(answer)) => answers.push(answer),
            _ => return Err(Silent),
        }
    }
    Ok(answers)
}
