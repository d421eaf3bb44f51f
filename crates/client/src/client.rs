//! The handle of a client that runs on tokio.

use std::fmt;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use wire::protocol::{
    ClientInfo, HistoryRequest, HistoryResult, PresenceStats, ReplyBody, StreamPosition,
};

use crate::driver::{ClientCall, ClientDriver, DriverCommand};
use crate::error::{CallError, SubscribeError};
use crate::events::Events;
use crate::options::ClientOptions;
use crate::session::{ConnectionState, SubscriptionOptions};
use crate::url::{ServerUrl, UrlError};

/// A client that runs in a task of its own. Handles are cheap to clone; the client disconnects and
/// ends when the last one is dropped.
#[derive(Clone)]
pub struct Client {
    orders: mpsc::Sender<DriverCommand>,
    state: watch::Receiver<ConnectionState>,
}

impl Client {
    /// Starts a client, which connects to this address and stays connected. It returns at once: see
    /// [`Client::connected`] and [`Events`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use client::{Client, ClientOptions};
    ///
    /// let options = ClientOptions::default().with_token("a token of your backend");
    /// let (client, events) = Client::connect("wss://push.example", options)?;
    /// // This program only publishes.
    /// drop(events);
    /// client.publish("news", "42").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`UrlError`] when the text is no address of a WebSocket server.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn connect(url: &str, options: ClientOptions) -> Result<(Client, Events), UrlError> {
        let url: ServerUrl = url.parse()?;
        let (driver, orders, state, events) = ClientDriver::new(url, options);
        tokio::spawn(driver.run());
        Ok((Client { orders, state }, events))
    }

    /// State of the connection.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        *self.state.borrow()
    }

    /// Waits until the server has accepted the connection.
    ///
    /// # Errors
    /// [`CallError::Disconnected`] when the client disconnects for good; [`Event::Disconnected`]
    /// says why.
    ///
    /// [`Event::Disconnected`]: crate::Event::Disconnected
    pub async fn connected(&self) -> Result<(), CallError> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| *state != ConnectionState::Connecting).await;
        match settled.map(|state| *state) {
            Ok(ConnectionState::Connected) => Ok(()),
            _ => Err(CallError::Disconnected),
        }
    }

    /// Connects again after [`Client::disconnect`] or a final refusal of the server. It returns at
    /// once: see [`Client::connected`].
    pub async fn reconnect(&self) {
        let (done, is_done) = oneshot::channel();
        self.order(DriverCommand::Connect { done }).await;
        // The client may have ended.
        let _ended = is_done.await;
    }

    /// Disconnects, and returns when the connection is closed. Subscriptions and their positions
    /// stay for [`Client::reconnect`].
    pub async fn disconnect(&self) {
        let (done, is_done) = oneshot::channel();
        self.order(DriverCommand::Disconnect { done }).await;
        // The client may have ended.
        let _ended = is_done.await;
    }

    /// Subscribes to a channel, now or as soon as there is a connection; an event reports when it
    /// is subscribed. After a lost connection the subscription is made again, and missed
    /// publications are recovered where the channel has history and
    /// [`SubscriptionOptions::recoverable`] asks for it.
    ///
    /// # Errors
    /// [`SubscribeError::AlreadySubscribed`] when there is a subscription that has not ended.
    pub async fn subscribe(
        &self,
        channel: &str,
        options: SubscriptionOptions,
    ) -> Result<(), SubscribeError> {
        let (answer, answered) = oneshot::channel();
        let (channel, options) = (channel.to_owned(), Box::new(options));
        self.order(DriverCommand::Subscribe { channel, options, answer }).await;
        answered.await.unwrap_or(Err(SubscribeError::Ended))
    }

    /// Ends a subscription. Its position is kept for another one to the same channel.
    pub async fn unsubscribe(&self, channel: &str) {
        self.order(DriverCommand::Unsubscribe { channel: channel.to_owned() }).await;
    }

    /// Ends a subscription and forgets its position.
    pub async fn remove(&self, channel: &str) {
        self.order(DriverCommand::Remove { channel: channel.to_owned() }).await;
    }

    /// Position of a subscription, from which it would be recovered; `None` where the channel has
    /// no history.
    pub async fn position(&self, channel: &str) -> Option<StreamPosition> {
        let (answer, answered) = oneshot::channel();
        self.order(DriverCommand::Position { channel: channel.to_owned(), answer }).await;
        answered.await.ok().flatten()
    }

    /// Publishes into a channel. With the JSON codec the data must be JSON.
    ///
    /// # Errors
    /// [`CallError`]: refused by the server, no answer in time, or no connection.
    pub async fn publish(&self, channel: &str, data: impl Into<Bytes>) -> Result<(), CallError> {
        let (channel, data) = (channel.to_owned(), data.into());
        match self.call(ClientCall::Publish { channel, data }).await? {
            ReplyBody::Publish => Ok(()),
            _ => Err(CallError::WrongResult),
        }
    }

    /// Calls a method of the backend.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn rpc(&self, method: &str, data: impl Into<Bytes>) -> Result<Bytes, CallError> {
        let (method, data) = (method.to_owned(), data.into());
        match self.call(ClientCall::Rpc { method, data }).await? {
            ReplyBody::Rpc { data } => Ok(data),
            _ => Err(CallError::WrongResult),
        }
    }

    /// Reads retained publications; with a limit of zero, only the position of the newest one.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn history(&self, request: HistoryRequest) -> Result<HistoryResult, CallError> {
        match self.call(ClientCall::History(request)).await? {
            ReplyBody::History(result) => Ok(result),
            _ => Err(CallError::WrongResult),
        }
    }

    /// Who is in a channel, by client id.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn presence(&self, channel: &str) -> Result<Vec<(String, ClientInfo)>, CallError> {
        match self.call(ClientCall::Presence { channel: channel.to_owned() }).await? {
            ReplyBody::Presence(clients) => Ok(clients),
            _ => Err(CallError::WrongResult),
        }
    }

    /// How many are in a channel.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn presence_stats(&self, channel: &str) -> Result<PresenceStats, CallError> {
        match self.call(ClientCall::PresenceStats { channel: channel.to_owned() }).await? {
            ReplyBody::PresenceStats(stats) => Ok(stats),
            _ => Err(CallError::WrongResult),
        }
    }

    async fn call(&self, call: ClientCall) -> Result<ReplyBody, CallError> {
        let (answer, answered) = oneshot::channel();
        self.order(DriverCommand::Call { call, answer }).await;
        answered.await.unwrap_or(Err(CallError::Disconnected))
    }

    /// A client that has ended answers nothing, which its answer's receiver shows.
    async fn order(&self, order: DriverCommand) {
        let _ended = self.orders.send(order).await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("state", &self.state()).finish_non_exhaustive()
    }
}
