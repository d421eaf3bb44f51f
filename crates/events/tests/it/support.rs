//! A bus with one webhook, and what happens on it.

use std::sync::Arc;
use std::time::Duration;

use events::{
    EventBus, EventClient, EventKind, Occurrence, SinkSettings, SinkStats, SinkTarget,
    WebhookSecret, WebhookSettings, delivery,
};
use serde_json::Value;
use tokio::task::JoinHandle;

pub(crate) const SECRET: &str = "whsec_YSBzZWNyZXQgZm9yIHRlc3RzIG9mIGV2ZW50cw==";

/// A bus whose sinks run; ended when dropped.
pub(crate) struct Running {
    pub(crate) bus: Arc<EventBus>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A sink with all events and short times.
pub(crate) fn sink(port: u16) -> SinkSettings {
    SinkSettings {
        name: "backend".into(),
        kinds: EventKind::SELECTABLE.to_vec(),
        takes_channel: Arc::new(|_| true),
        batch_max: 10,
        batch_delay: Duration::from_millis(1),
        queue_bytes_max: 1 << 20,
        target: SinkTarget::Webhook(Box::new(WebhookSettings {
            uri: format!("http://127.0.0.1:{port}/events").parse().unwrap(),
            secrets: vec![WebhookSecret::parse(SECRET).unwrap()],
            timeout: Duration::from_millis(500),
            headers: hyper::HeaderMap::new(),
            tls: None,
        })),
    }
}

impl Running {
    pub(crate) fn start(sinks: &[SinkSettings]) -> Running {
        let bus = Arc::new(EventBus::new("node-1", "uid", sinks));
        let run = |index| tokio::spawn(delivery::run(bus.clone(), index));
        let tasks = (0..sinks.len()).map(run).collect();
        Running { bus, tasks }
    }

    /// A client connects; the number is its id and the time.
    pub(crate) fn online(&self, number: i64) {
        let client = number.to_string();
        let client = EventClient { client: &client, user: "ann" };
        self.bus.record(number, &Occurrence::Online(client));
    }

    pub(crate) fn stats(&self) -> SinkStats {
        self.bus.stats().remove(0)
    }

    /// Waits until counts fulfil a condition.
    pub(crate) async fn until(&self, is_done: impl Fn(&SinkStats) -> bool) -> SinkStats {
        loop {
            let stats = self.stats();
            if is_done(&stats) {
                return stats;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The ids of the clients of events.
pub(crate) fn clients(events: &[Value]) -> Vec<i64> {
    events.iter().filter_map(|event| event["client_id"].as_str()?.parse().ok()).collect()
}

/// The kinds of events.
pub(crate) fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}
