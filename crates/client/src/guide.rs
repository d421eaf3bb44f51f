//! How to use the client, task by task. Every example compiles.
//!
//! # Connect
//!
//! A [`Client`] runs in a task of its own. It connects at once, reconnects by itself, and
//! disconnects when its last handle is dropped. It reports [`Events`], which an
//! application reads in a loop: while events wait unread, the client reads nothing from the server.
//!
//! ```no_run
//! use client::{Client, ClientOptions, Event};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = ClientOptions::default().with_token("a connection token of your backend");
//! let (client, mut events) = Client::connect("wss://push.example", options)?;
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Connected(connected) => println!("connected as {}", connected.client),
//!         Event::Failed(failure) => eprintln!("{failure}; trying again"),
//!         Event::Disconnected(reason) => eprintln!("disconnected for good: {reason}"),
//!         _ => {}
//!     }
//! }
//! # drop(client);
//! # Ok(())
//! # }
//! ```
//!
//! # Subscribe
//!
//! A subscription is a wish that stays: it is made as soon as there is a connection, and again on
//! every later one, until [`Client::unsubscribe`] or a final refusal of the server
//! ([`Event::Unsubscribed`]).
//!
//! ```no_run
//! use client::{Client, Event, Events, SubscriptionOptions};
//! # use client::SubscribeError;
//!
//! # async fn example(client: Client, mut events: Events) -> Result<(), SubscribeError> {
//! client.subscribe("chat:lobby", SubscriptionOptions::default()).await?;
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Publication { channel, publication } => {
//!             println!("{channel}: {}", String::from_utf8_lossy(&publication.data));
//!         }
//!         Event::Unsubscribed { channel, reason } => eprintln!("{channel}: {reason}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Recover what was missed
//!
//! With [`SubscriptionOptions::recoverable`], in a channel that has history, the server sends after
//! a lost connection what was published in the meantime. [`Subscribed::recovered`] tells whether it
//! had all of it; if not, the application loads its state anew.
//!
//! ```no_run
//! use client::{Client, Event, Events, SubscriptionOptions};
//! # use client::SubscribeError;
//!
//! # async fn load_everything() {}
//! # async fn example(client: Client, mut events: Events) -> Result<(), SubscribeError> {
//! let recoverable = SubscriptionOptions { recoverable: true, ..Default::default() };
//! client.subscribe("scores", recoverable).await?;
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Subscribed { subscribed, .. } if subscribed.was_recovering => {
//!             if !subscribed.recovered {
//!                 load_everything().await;
//!             }
//!         }
//!         // Missed and live publications come alike, in order, each once.
//!         Event::Publication { publication, .. } => println!("{}", publication.offset),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A position can outlive the program: keep [`Client::position`], and begin there the next time.
//!
//! ```no_run
//! use client::{Client, StreamPosition, SubscriptionOptions};
//!
//! # use client::SubscribeError;
//! # async fn example(client: Client, kept: StreamPosition) -> Result<(), SubscribeError> {
//! let since = Some(kept);
//! let options = SubscriptionOptions { recoverable: true, since, ..Default::default() };
//! client.subscribe("scores", options).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Publish
//!
//! A call ends with a result, an error of the server, or [`CallError::Timeout`]. It waits for the
//! connection when there is none at the moment. A timeout or a lost connection leaves open whether
//! the server has done it.
//!
//! ```no_run
//! use client::{CallError, Client};
//!
//! # async fn example(client: Client) {
//! match client.publish("chat:lobby", r#"{"text":"hello"}"#).await {
//!     Ok(()) => {}
//!     Err(CallError::Refused(error)) => eprintln!("{} ({})", error.message, error.code),
//!     Err(error) => eprintln!("{error}"),
//! }
//! # }
//! ```
//!
//! With [`Codec::Protobuf`] a payload is any bytes; with [`Codec::Json`] it must be JSON.
//!
//! # Presence
//!
//! ```no_run
//! # async fn example(client: client::Client) -> Result<(), client::CallError> {
//! for (id, info) in client.presence("chat:lobby").await? {
//!     println!("{} on connection {id}", info.user);
//! }
//! let stats = client.presence_stats("chat:lobby").await?;
//! println!("{} users", stats.num_users);
//! # Ok(())
//! # }
//! ```
//!
//! # History
//!
//! ```no_run
//! use client::HistoryRequest;
//!
//! # async fn example(client: client::Client) -> Result<(), client::CallError> {
//! let channel = "scores".to_owned();
//! let request = HistoryRequest { channel, limit: 10, reverse: true, ..Default::default() };
//! for publication in client.history(request).await?.publications {
//!     println!("{}: {}", publication.offset, String::from_utf8_lossy(&publication.data));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Renew tokens
//!
//! A token source is asked for the first token and again before each one expires. It asks the
//! application's backend; [`TokenError::Unauthorized`] ends the connection or subscription, and
//! [`TokenError::Unavailable`] is tried again.
//!
//! ```no_run
//! use client::{
//!     Client, ClientOptions, SubscriptionOptions, TokenError, TokenSource, TokenSubject,
//! };
//!
//! # async fn ask_backend(_path: &str) -> Result<String, TokenError> { Ok(String::new()) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let options = ClientOptions::default().with_token_source(|subject| async move {
//!     match subject {
//!         TokenSubject::Connection => ask_backend("/token").await,
//!         TokenSubject::Subscription(channel) => ask_backend(&format!("/token/{channel}")).await,
//!     }
//! });
//! let (client, _events) = Client::connect("wss://push.example", options)?;
//! // A channel that needs a token of its own.
//! let token = TokenSource::Asked { first: String::new() };
//! client.subscribe("team:7", SubscriptionOptions { token, ..Default::default() }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Reconnect
//!
//! Lost connections are opened again by themselves, after delays that grow. Only a final refusal or
//! [`Client::disconnect`] ends that; [`Client::reconnect`] begins anew, with all subscriptions and
//! their positions.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use client::{Backoff, Client, ClientOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut options = ClientOptions::default();
//! options.session.reconnect =
//!     Backoff { min: Duration::from_millis(200), max: Duration::from_secs(60) };
//! let (client, _events) = Client::connect("wss://push.example", options)?;
//! client.connected().await?;
//! client.disconnect().await;
//! client.reconnect().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Use your own event loop
//!
//! [`ClientSession`] is the same client without tokio, sockets and clocks: see its module,
//! [`session`](crate::session).
//!
//! [`Client`]: crate::Client
//! [`Client::unsubscribe`]: crate::Client::unsubscribe
//! [`Client::position`]: crate::Client::position
//! [`Client::disconnect`]: crate::Client::disconnect
//! [`Client::reconnect`]: crate::Client::reconnect
//! [`ClientSession`]: crate::ClientSession
//! [`CallError::Timeout`]: crate::CallError::Timeout
//! [`Codec::Json`]: crate::Codec::Json
//! [`Codec::Protobuf`]: crate::Codec::Protobuf
//! [`Event::Unsubscribed`]: crate::Event::Unsubscribed
//! [`Events`]: crate::Events
//! [`Subscribed::recovered`]: crate::session::Subscribed::recovered
//! [`SubscriptionOptions::recoverable`]: crate::SubscriptionOptions::recoverable
//! [`TokenError::Unauthorized`]: crate::TokenError::Unauthorized
//! [`TokenError::Unavailable`]: crate::TokenError::Unavailable
