//! Events of the connection to NATS on their way from the client library to the node.
//!
//! Invariant: adding one never waits, since the library reports errors one after the other, and
//! takes constant space: an event of a kind that is waiting already is not added again.

use std::sync::{Mutex, PoisonError};

use async_nats::{Event, ServerError};
use tokio::sync::Notify;

/// See the module.
#[derive(Default)]
pub(super) struct ConnectionEvents {
    waiting: Mutex<WaitingEvents>,
    has_added: Notify,
}

/// At most one event of each kind.
#[derive(Default)]
struct WaitingEvents {
    is_lost: bool,
    has_dropped: bool,
    is_connected: bool,
    is_stopping: bool,
    error: Option<ServerError>,
}

/// What has happened to the connection since the last event of its kind.
#[derive(Debug, PartialEq)]
pub(super) enum ConnectionEvent {
    /// The connection was lost.
    Lost,
    /// The connection was made again.
    Connected,
    /// Messages were dropped, since this node is too slow.
    Dropped,
    /// The server is going to stop.
    Stopping,
    /// An error of the server; others may have followed.
    Error(ServerError),
}

impl ConnectionEvents {
    pub(super) fn add(&self, event: Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Connected => waiting.is_connected = true,
            Event::Disconnected | Event::Closed => waiting.is_lost = true,
            Event::SlowConsumer(_) => waiting.has_dropped = true,
            Event::LameDuckMode => waiting.is_stopping = true,
            Event::ServerError(error) => waiting.error = Some(error),
            Event::Draining | Event::ClientError(_) => return,
        }
        drop(waiting);
        self.has_added.notify_one();
    }

    /// The next event. After a loss and a new connection the loss comes first: a node that takes a
    /// lost connection for a new one notices it with its first request.
    pub(super) async fn next(&self) -> ConnectionEvent {
        loop {
            let has_added = self.has_added.notified();
            let next = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).poll_next();
            match next {
                Some(event) => return event,
                None => has_added.await,
            }
        }
    }
}

impl WaitingEvents {
    fn poll_next(&mut self) -> Option<ConnectionEvent> {
        let take = |is_waiting: &mut bool, event| std::mem::take(is_waiting).then_some(event);
        let error = || self.error.take().map(ConnectionEvent::Error);
        take(&mut self.is_lost, ConnectionEvent::Lost)
            .or_else(|| take(&mut self.is_connected, ConnectionEvent::Connected))
            .or_else(|| take(&mut self.has_dropped, ConnectionEvent::Dropped))
            .or_else(|| take(&mut self.is_stopping, ConnectionEvent::Stopping))
            .or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_kind_are_merged_and_a_loss_comes_first() {
        let events = ConnectionEvents::default();
        for _ in 0..1_000 {
            events.add(Event::SlowConsumer(7));
            events.add(Event::ServerError(ServerError::Other("no".into())));
        }
        events.add(Event::Connected);
        events.add(Event::Disconnected);
        let mut waiting = events.waiting.lock().unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| waiting.poll_next()).collect();
        let error = ConnectionEvent::Error(ServerError::Other("no".into()));
        assert_eq!(
            taken,
            [ConnectionEvent::Lost, ConnectionEvent::Connected, ConnectionEvent::Dropped, error]
        );
    }
}
