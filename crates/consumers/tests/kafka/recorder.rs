//! A handler that records what it is given, and answers as the test wants.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use consumers::kafka::{self, KafkaSettings};
use consumers::{
    Body, ConsumedMessage, ConsumerCounters, ConsumerTask, Handled, Handler, StopTrigger,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(40);

/// What was handled: partition, offset, and the payload.
pub(crate) type Seen = (u32, String, String);

pub(crate) struct Recorder {
    seen: Mutex<Vec<Seen>>,
    count: watch::Sender<usize>,
    answer: Box<dyn Fn(&str) -> Handled + Send + Sync>,
}

impl Recorder {
    /// Answers each payload by this function; only what is done is recorded.
    pub(crate) fn answering(
        answer: impl Fn(&str) -> Handled + Send + Sync + 'static,
    ) -> Arc<Recorder> {
        let count = watch::Sender::new(0);
        Arc::new(Recorder { seen: Mutex::default(), count, answer: Box::new(answer) })
    }

    pub(crate) fn new() -> Arc<Recorder> {
        Recorder::answering(|_| Handled::Done)
    }

    /// Waits until this many messages were done; returns their payloads.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<String> {
        let mut seen = self.count.subscribe();
        let waiting = seen.wait_for(|seen| *seen >= count);
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("{} of {count} messages", self.seen.lock().unwrap().len());
        }
        self.payloads()
    }

    pub(crate) fn payloads(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(.., payload)| payload.clone()).collect()
    }
}

impl Handler for Recorder {
    async fn handle(&self, message: &ConsumedMessage) -> Handled {
        // Others run meanwhile, as with a real broker.
        tokio::task::yield_now().await;
        let payload = match &message.body {
            Body::Command { payload, .. } => payload,
            Body::Publication(publication) => &publication.data,
        };
        let payload = String::from_utf8_lossy(payload).into_owned();
        let answer = (self.answer)(&payload);
        if answer == Handled::Done {
            let origin = &message.origin;
            let seen = (origin.partition.unwrap(), origin.offset.to_string(), payload);
            self.seen.lock().unwrap().push(seen);
            self.count.send_modify(|count| *count += 1);
        }
        answer
    }
}

/// A member of the group that runs as a task.
pub(crate) struct Member {
    pub(crate) counters: Arc<ConsumerCounters>,
    stop: StopTrigger,
    task: JoinHandle<()>,
}

impl Member {
    pub(crate) fn start(settings: &KafkaSettings, recorder: &Arc<Recorder>) -> Member {
        let (stop, signal) = StopTrigger::new();
        let counters = Arc::<ConsumerCounters>::default();
        let task = ConsumerTask { name: "test".into(), counters: counters.clone(), stop: signal };
        let running = kafka::run(task, settings.clone(), recorder.clone());
        Member { counters, stop, task: tokio::spawn(running) }
    }

    /// Stops in order.
    pub(crate) async fn stop(self) {
        self.stop.stop();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops").unwrap();
    }

    /// Ends without a word, as a process that is killed.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _aborted = self.task.await;
    }

    /// Waits until a count reaches this value.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&ConsumerCounters) -> bool) {
        let waiting = async {
            while !holds(&self.counters) {
                // Counters are read by scrapes and have no events.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting)
            .await
            .unwrap_or_else(|_| panic!("{what}: {:?}", self.counters.snapshot()));
    }
}
