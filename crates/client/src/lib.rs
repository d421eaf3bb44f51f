//! A client of the Centrifuge protocol, version 2: for Tidings and for every server that speaks it.
//!
//! Two layers. [`ClientSession`] is the protocol without sockets, clocks and tasks: a state machine
//! that an application with an event loop of its own can drive. [`Client`] drives a session on
//! tokio, with TLS: it connects, reconnects with back-off, subscribes again, recovers what was
//! missed and renews tokens.
//!
//! ```no_run
//! use client::{Client, ClientOptions, Event, SubscriptionOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (client, mut events) = Client::connect("wss://push.example", ClientOptions::default())?;
//! let recoverable = SubscriptionOptions { recoverable: true, ..Default::default() };
//! client.subscribe("news", recoverable).await?;
//! client.publish("news", r#"{"text":"hello"}"#).await?;
//! while let Some(event) = events.next().await {
//!     if let Event::Publication { channel, publication } = event {
//!         println!("{channel}: {}", String::from_utf8_lossy(&publication.data));
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The behaviour is that of the official SDKs
//! (<https://centrifugal.dev/docs/transports/client_api>). Delta compression, tags filters, map
//! subscriptions and transports other than WebSocket are not supported.
//!
//! The [`guide`] has an example for each task. Reading order of the sources: [`session`] (what
//! happens), [`url`], [`error`], then `client` and `driver` (how it gets to the network).

#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a handle has a queue towards the task that it starts"
)]
mod client;
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the driver has the clock, and keys of tables that no peer chooses"
)]
mod driver;
pub mod error;
mod events;
pub mod guide;
pub mod limits;
mod options;
pub mod session;
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the socket of the driver, and the delays between attempts to connect"
)]
mod socket;
pub mod url;
#[expect(clippy::disallowed_methods, reason = "the socket of the driver, which has the clock")]
mod writer;

pub use client::Client;
pub use error::{CallError, SubscribeError, TokenError, TransportError};
pub use events::Events;
pub use options::ClientOptions;
pub use session::{
    Backoff, ClientSession, ConnectionState, Event, Failure, Reason, SessionOptions,
    SubscriptionOptions, SubscriptionState, TokenSource, TokenSubject,
};
pub use url::{Authority, ServerUrl, UrlError};
/// The protocol's values that appear in this crate's functions.
pub use wire::protocol::{
    ClientInfo, Codec, ErrorReply, HistoryRequest, HistoryResult, PresenceStats, Publication,
    StreamPosition,
};

/// The programs of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
