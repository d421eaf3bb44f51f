//! Events on their way to the application.
//!
//! Invariant: the driver adds no event of the network while more than
//! [`EVENT_BYTES_MAX`](crate::limits::EVENT_BYTES_MAX) bytes wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::limits::EVENT_BYTES_MAX;
use crate::session::Event;

/// What happens to a client, in order. While too much waits here, the driver reads nothing from the
/// server; so read events in a task of their own, or drop this value when they are of no interest.
#[derive(Debug)]
pub struct Events {
    receiver: UnboundedReceiver<Event>,
    queued: Arc<Queued>,
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct EventSender {
    sender: UnboundedSender<Event>,
    queued: Arc<Queued>,
}

#[derive(Debug, Default)]
struct Queued {
    bytes: AtomicUsize,
    /// Notified when there is room again.
    room: Notify,
}

pub(crate) fn queue() -> (EventSender, Events) {
    let (sender, receiver) = unbounded_channel();
    let queued = Arc::new(Queued::default());
    (EventSender { sender, queued: queued.clone() }, Events { receiver, queued })
}

impl Events {
    /// Waits for the next event; `None` when the client has ended. May be dropped at any time.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await?;
        self.take(&event);
        Some(event)
    }

    /// The next event, if there is one.
    pub fn try_next(&mut self) -> Option<Event> {
        let event = self.receiver.try_recv().ok()?;
        self.take(&event);
        Some(event)
    }

    fn take(&self, event: &Event) {
        let weight = event.weight();
        let before = self.queued.bytes.fetch_sub(weight, Ordering::Relaxed);
        if before > EVENT_BYTES_MAX && before - weight <= EVENT_BYTES_MAX {
            self.queued.room.notify_one();
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.receiver.close();
        self.queued.room.notify_one();
    }
}

impl EventSender {
    /// Adds an event. One failed attempt of many is no news to an application that reads nothing:
    /// without room it is left out, since the attempts go on by timers.
    pub(crate) fn send(&self, event: Event) {
        if matches!(event, Event::Failed(_)) && !self.has_room() {
            return;
        }
        let weight = event.weight();
        self.queued.bytes.fetch_add(weight, Ordering::Relaxed);
        // Without a receiver nothing is kept.
        let _not_wanted = self.sender.send(event);
    }

    pub(crate) fn has_room(&self) -> bool {
        self.sender.is_closed() || self.queued.bytes.load(Ordering::Relaxed) <= EVENT_BYTES_MAX
    }

    /// Waits until there is room.
    pub(crate) async fn room(&self) {
        while !self.has_room() {
            self.queued.room.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::error::TransportError;
    use crate::session::Failure;

    #[tokio::test]
    async fn there_is_room_until_the_bound_and_again_when_events_are_read_or_not_wanted() {
        let (sender, mut events) = queue();
        let mut sent = 0;
        while sender.has_room() {
            sender.send(Event::Message(vec![0; 1 << 20].into()));
            sent += 1;
        }
        assert_eq!(sent, EVENT_BYTES_MAX >> 20);
        assert!(timeout(Duration::from_millis(1), sender.room()).await.is_err());
        assert!(matches!(events.next().await, Some(Event::Message(_))));
        sender.room().await;
        sender.send(Event::Message(vec![0; 1 << 20].into()));
        assert!(!sender.has_room());
        for _ in 0..10 {
            sender.send(Event::Failed(Failure::Transport(TransportError::Timeout)));
        }
        while let Some(event) = events.try_next() {
            assert!(matches!(event, Event::Message(_)), "{event:?}");
        }
        sender.send(Event::Failed(Failure::Transport(TransportError::Timeout)));
        assert!(matches!(events.try_next(), Some(Event::Failed(_))));
        while sender.has_room() {
            sender.send(Event::Message(vec![0; 1 << 20].into()));
        }
        drop(events);
        sender.room().await;
    }
}
