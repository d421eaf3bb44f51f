//! A handler that records what it gets, and runs consumers beside the test.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use consumers::{
    Body, ConsumedMessage, ConsumerCounters, ConsumerTask, Handled, Handler, StopTrigger,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// See the module.
#[derive(Default)]
pub(crate) struct Recorder {
    messages: Mutex<Vec<ConsumedMessage>>,
    news: Notify,
    /// Answers for the next messages; `Done` when they are used up.
    script: Mutex<Vec<Handled>>,
    /// Texts; a message that contains one is rejected.
    pub(crate) poison: Mutex<Vec<&'static str>>,
}

impl Handler for Recorder {
    async fn handle(&self, message: &ConsumedMessage) -> Handled {
        let text = text(message);
        if let Some(poison) = self.poison.lock().unwrap().iter().find(|it| text.contains(*it)) {
            return Handled::rejected(format!("it contains {poison}"));
        }
        let mut script = self.script.lock().unwrap();
        if !script.is_empty() {
            return script.remove(0);
        }
        self.messages.lock().unwrap().push(message.clone());
        self.news.notify_one();
        Handled::Done
    }
}

/// What a message asks for, as one line.
pub(crate) fn text(message: &ConsumedMessage) -> String {
    match &message.body {
        Body::Command { method, payload } => {
            format!("{method} {}", str::from_utf8(payload).unwrap())
        }
        Body::Publication(publication) => {
            let data = str::from_utf8(&publication.data).unwrap();
            format!("{} {data}", publication.channels.join(","))
        }
    }
}

impl Recorder {
    pub(crate) fn waiting(times: usize) -> Arc<Recorder> {
        let script = Mutex::new(vec![Handled::wait("the broker is away"); times]);
        Arc::new(Recorder { script, ..Recorder::default() })
    }

    pub(crate) fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    pub(crate) fn messages(&self) -> Vec<ConsumedMessage> {
        self.messages.lock().unwrap().clone()
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.messages().iter().map(text).collect()
    }

    /// Idempotency keys of publications.
    pub(crate) fn keys(&self) -> Vec<String> {
        let key = |message: ConsumedMessage| match message.body {
            Body::Publication(publication) => publication.idempotency_key,
            Body::Command { .. } => String::new(),
        };
        self.messages().into_iter().map(key).collect()
    }

    pub(crate) fn distinct_keys(&self) -> HashSet<String> {
        self.keys().into_iter().collect()
    }

    /// Waits until publications with this many keys have come.
    pub(crate) async fn wait_for_keys(&self, count: usize) {
        let enough = async {
            while self.distinct_keys().len() < count {
                self.news.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("publications with other keys");
    }

    /// Waits until this many messages have come.
    pub(crate) async fn wait_for(&self, count: usize) {
        let enough = async {
            while self.count() < count {
                self.news.notified().await;
            }
        };
        if tokio::time::timeout(PATIENCE, enough).await.is_err() {
            panic!("{} of {count} messages have come: {:?}", self.count(), self.texts().last());
        }
    }
}

/// Time for a condition of a test, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A consumer that runs beside the test.
pub(crate) struct Running {
    pub(crate) counters: Arc<ConsumerCounters>,
    pub(crate) stop: StopTrigger,
    pub(crate) handle: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start<F>(run: impl FnOnce(ConsumerTask) -> F) -> Running
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, signal) = StopTrigger::new();
        let counters = Arc::new(ConsumerCounters::default());
        let task = ConsumerTask { name: "shop".into(), counters: counters.clone(), stop: signal };
        Running { counters, stop, handle: tokio::spawn(run(task)) }
    }

    /// Stops in order.
    pub(crate) async fn stop(self) {
        self.stop.stop();
        self.handle.await.unwrap();
    }

    /// Ends without another word, as a killed process does.
    pub(crate) async fn kill(self) {
        self.handle.abort();
        let _aborted = self.handle.await;
    }

    /// Waits until a condition of the counters holds.
    pub(crate) async fn until(&self, holds: impl Fn(&ConsumerCounters) -> bool) {
        let wait = async {
            while !holds(&self.counters) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a condition");
    }
}

/// The log of this thread.
#[derive(Clone, Default)]
pub(crate) struct LogBuffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for LogBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogBuffer {
    /// Collects the log of this thread while the guard lives.
    pub(crate) fn collect() -> (LogBuffer, tracing::subscriber::DefaultGuard) {
        let buffer = LogBuffer::default();
        let writer = buffer.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (buffer, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// Resident bytes of this process.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
