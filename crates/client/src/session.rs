//! The client's side of a connection as a state machine: inputs are
//! [`handle_bytes`](ClientSession::handle_bytes) and its siblings, outputs are the `poll_*`
//! functions. Time, randomness and bytes are arguments.
//!
//! Invariant: a session performs nothing. Between two inputs the driver takes all outputs: first
//! the bytes of [`poll_transmit`](ClientSession::poll_transmit), then actions, then events; and it
//! calls [`handle_timeout`](ClientSession::handle_timeout) at the time of
//! [`poll_timeout`](ClientSession::poll_timeout).

mod backoff;
mod calls;
mod connection;
mod credential;
mod event;
mod message_stream;
mod options;
mod outbox;
mod outputs;
mod position;
mod random;
mod reason;
mod server_subscriptions;
mod subscriptions;
mod timers;

use std::time::Instant;

use bytes::Bytes;
use wire::protocol::{Codec, HistoryRequest, PublishRequest, Request, StreamPosition};

pub use backoff::Backoff;
pub use event::{
    Action, CallId, Connected, Event, Failure, Subscribed, SubscriptionOrigin, TokenRequestId,
    TokenSubject,
};
pub use options::{SessionOptions, SubscriptionOptions, TokenSource};
pub use random::RandomSource;
pub use reason::{Reason, is_reconnect};
pub use wire::protocol::codes::is_resubscribe;

use crate::error::{CallError, SubscribeError, TokenError, TransportError};
use crate::limits::OUTGOING_BYTES_MAX;
use crate::url::ServerUrl;
use connection::{ConnectionPhase, SessionCore};
use outputs::SessionOutputs;
use random::Randomness;

/// A client session without I/O: `handle_*` functions take inputs, `poll_*` functions yield
/// outputs.
#[derive(Debug)]
pub struct ClientSession {
    connection: SessionCore,
}

/// State of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// Not connected, and not trying to.
    Disconnected,
    /// Connecting, or waiting before the next attempt.
    Connecting,
    /// The server has accepted the connection.
    Connected,
}

/// State of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubscriptionState {
    /// Not subscribed, and not trying to.
    Unsubscribed,
    /// Subscribing, or waiting for the connection or the next attempt.
    Subscribing,
    /// The server has accepted the subscription.
    Subscribed,
}

impl ClientSession {
    /// A disconnected session.
    #[must_use]
    pub fn new(url: ServerUrl, options: SessionOptions, random: RandomSource) -> ClientSession {
        ClientSession { connection: SessionCore::new(url, options, Randomness::new(random)) }
    }

    /// State of the connection.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        match self.connection.phase() {
            ConnectionPhase::Disconnected => ConnectionState::Disconnected,
            ConnectionPhase::Connected => ConnectionState::Connected,
            _ => ConnectionState::Connecting,
        }
    }

    /// State of a subscription that the application has made; `None` when there is none.
    #[must_use]
    pub fn subscription_state(&self, channel: &str) -> Option<SubscriptionState> {
        self.connection.subscriptions.state(channel)
    }

    /// Position of a subscription, from which it would be recovered.
    #[must_use]
    pub fn position(&self, channel: &str) -> Option<&StreamPosition> {
        let own = self.connection.subscriptions.position(channel);
        own.or_else(|| self.connection.server_subscriptions.position(channel))
    }

    /// Publications that the server sent a second time, and that were not delivered.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.connection.subscriptions.duplicates()
            + self.connection.server_subscriptions.duplicates()
    }

    /// Publications that the server sent for channels without a live subscription, and that were
    /// not delivered: on their way while the application unsubscribed, or a fault of the server.
    #[must_use]
    pub fn strays(&self) -> u64 {
        self.connection.strays
    }

    /// Whether another call may be made.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.connection.calls.has_room()
    }

    /// Whether bytes of the server are to be read. It is `false` while more than
    /// [`OUTGOING_BYTES_MAX`] bytes wait for [`ClientSession::poll_transmit`]: what is read may be
    /// answered, and a server that reads nothing must not make the answers pile up.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        self.connection.out.outbox.len() <= OUTGOING_BYTES_MAX
    }

    // What the application wants.

    /// Connects, and stays connected until [`ClientSession::disconnect`] or a final refusal of the
    /// server.
    pub fn connect(&mut self, now: Instant) {
        self.connection.connect(now);
    }

    /// Disconnects. Subscriptions stay, and are made again by [`ClientSession::connect`].
    pub fn disconnect(&mut self) {
        self.connection.disconnect();
    }

    /// Subscribes to a channel, now or as soon as the connection allows it.
    ///
    /// # Errors
    /// [`SubscribeError::AlreadySubscribed`] when there is a subscription that has not ended.
    pub fn subscribe(
        &mut self,
        now: Instant,
        channel: &str,
        options: SubscriptionOptions,
    ) -> Result<(), SubscribeError> {
        let SessionCore { subscriptions, out, .. } = &mut self.connection;
        subscriptions.subscribe(now, channel, options, out)
    }

    /// Ends a subscription. Its position is kept for another one to the same channel.
    pub fn unsubscribe(&mut self, now: Instant, channel: &str) {
        let SessionCore { subscriptions, out, .. } = &mut self.connection;
        subscriptions.unsubscribe(now, channel, out);
    }

    /// Ends a subscription and forgets its position.
    pub fn remove(&mut self, now: Instant, channel: &str) {
        let SessionCore { subscriptions, out, .. } = &mut self.connection;
        subscriptions.remove(now, channel, out);
    }

    /// Publishes into a channel.
    ///
    /// # Errors
    /// As [`ClientSession::rpc`].
    pub fn publish(
        &mut self,
        now: Instant,
        channel: &str,
        data: Bytes,
    ) -> Result<CallId, CallError> {
        self.check(&data)?;
        let channel = channel.to_owned();
        self.connection.call(now, Request::Publish(PublishRequest { channel, data, kind: 0 }))
    }

    /// Calls a method of the backend.
    ///
    /// # Errors
    /// [`CallError::QueueFull`], [`CallError::Disconnected`], or [`CallError::NotJson`] for data
    /// that the codec cannot carry.
    pub fn rpc(&mut self, now: Instant, method: &str, data: Bytes) -> Result<CallId, CallError> {
        if !data.is_empty() {
            self.check(&data)?;
        }
        self.connection.call(now, Request::Rpc { method: method.to_owned(), data })
    }

    /// Reads retained publications, or only the position of the channel's newest one.
    ///
    /// # Errors
    /// As [`ClientSession::rpc`].
    pub fn history(&mut self, now: Instant, request: HistoryRequest) -> Result<CallId, CallError> {
        self.connection.call(now, Request::History(request))
    }

    /// Asks who is in a channel.
    ///
    /// # Errors
    /// As [`ClientSession::rpc`].
    pub fn presence(&mut self, now: Instant, channel: &str) -> Result<CallId, CallError> {
        self.connection.call(now, Request::Presence { channel: channel.to_owned() })
    }

    /// Asks how many are in a channel.
    ///
    /// # Errors
    /// As [`ClientSession::rpc`].
    pub fn presence_stats(&mut self, now: Instant, channel: &str) -> Result<CallId, CallError> {
        self.connection.call(now, Request::PresenceStats { channel: channel.to_owned() })
    }

    // Inputs of the driver.

    /// The byte stream that [`Action::Open`] asked for is open.
    pub fn handle_opened(&mut self, now: Instant) {
        self.connection.handle_opened(now);
    }

    /// Bytes have come. They are read where they lie.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &mut [u8]) {
        self.connection.handle_bytes(now, bytes);
    }

    /// The byte stream could not be opened, or has ended. The driver has closed it.
    pub fn handle_closed(&mut self, now: Instant, error: TransportError) {
        self.connection.handle_closed(now, error);
    }

    /// The answer to [`Action::GetToken`]. An empty token means that there is no authorization.
    pub fn handle_token(
        &mut self,
        now: Instant,
        request: TokenRequestId,
        token: Result<String, TokenError>,
    ) {
        self.connection.handle_token(now, request, token);
    }

    /// The time of [`ClientSession::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now);
    }

    // Outputs.

    /// Bytes for the byte stream that is open, or that is about to be closed.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let SessionOutputs { outbox, random, .. } = &mut self.connection.out;
        outbox.take(random)
    }

    /// Something for the driver to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.connection.out.actions.pop_front()
    }

    /// Something for the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.connection.out.events.pop_front()
    }

    /// When [`ClientSession::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.connection.out.timers.next()
    }

    fn check(&self, data: &[u8]) -> Result<(), CallError> {
        match self.connection.options().codec {
            Codec::Json if !wire::protocol::is_json(data) => Err(CallError::NotJson),
            Codec::Json | Codec::Protobuf => Ok(()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "invented time begins somewhere")]
mod tests;
