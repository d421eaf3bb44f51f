//! What a node delivers before it stops, and what it cannot.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use events::{NodeLoad, Occurrence, SinkSettings};

use crate::receiver::{Act, Receiver};
use crate::support::{Running, kinds, sink};

#[tokio::test]
async fn a_node_that_stops_delivers_at_once_what_is_queued() {
    let receiver = Receiver::start(|number, _| match number {
        0 => Act::Answer(500),
        _ => Act::Answer(200),
    })
    .await;
    let settings = SinkSettings { batch_delay: Duration::from_secs(3600), ..sink(receiver.port) };
    let running = Running::start(&[settings]);
    running.online(1);
    running.bus.record(2, &Occurrence::NodeLeft);
    running.bus.stop(Duration::from_secs(60)).await;
    let load = NodeLoad { num_clients: 1, num_users: 1, num_subs: 0, num_channels: 0 };
    running.bus.record(3, &Occurrence::NodeHeartbeat(load));
    assert_eq!(running.stats().queued, 0, "nothing follows node_left");
    let events = receiver.until(|events| events.len() == 2).await;
    assert_eq!(kinds(&events), ["online", "node_left"]);
    assert_eq!((running.stats().delivered, running.stats().lost), (2, [0; 3]));
}

#[tokio::test]
async fn what_the_receiver_does_not_take_in_time_is_counted() {
    let receiver = Receiver::start(|_, _| Act::Hang).await;
    let running = Running::start(&[sink(receiver.port)]);
    (0..5).for_each(|number| running.online(number));
    receiver.requests(1).await;
    running.bus.stop(Duration::from_millis(50)).await;
    assert_eq!(running.stats().lost, [0, 0, 5]);
}

#[tokio::test]
async fn what_is_lost_before_and_after_the_end_is_in_the_log() {
    let log = LogText::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false);
    let _logging = tracing::subscriber::set_default(subscriber.finish());
    let receiver = Receiver::start(|_, _| Act::Answer(200)).await;
    let settings = SinkSettings { queue_bytes_max: 1024, ..sink(receiver.port) };
    let running = Running::start(&[settings]);
    (0..50).for_each(|number| running.online(number));
    running.bus.stop(Duration::from_secs(60)).await;
    assert!(log.text().contains("queued events are delivered; others were lost before"));
    assert!(!log.text().contains("all events are delivered"), "{}", log.text());
    let delivered = running.stats().delivered;
    (0..5).for_each(|number| running.online(number));
    let stats = running.stats();
    assert_eq!((stats.delivered, stats.queued, stats.lost[2]), (delivered, 0, 5));
    running.bus.finish();
    assert!(log.text().contains("they happened after the last delivery sink=\"backend\" count=5"));
}

/// What was logged.
#[derive(Clone, Default)]
struct LogText(Arc<Mutex<Vec<u8>>>);

impl LogText {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for LogText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
