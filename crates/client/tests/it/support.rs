//! A server on a free port, and what its clients are notified.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::{Client, ClientOptions, Codec, Event, Events, SubscriptionOptions};
use server::Server;
use server::token::{
    ConnectionTokenRequest, SubscriptionTokenRequest, TokenRequest, sign_connection,
    sign_subscription,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::configuration::configuration;

const SECRET: &str = "a secret for tests";
const PATIENCE: Duration = Duration::from_secs(20);

const BASE: &str = r#"
[http_server]
address = "127.0.0.1"
port = 0
[http_api]
key = "key"
[client.token]
hmac_secret_key = "a secret for tests"
[shutdown]
drain_window = "0s"
timeout = "5s"
[[channel.namespaces]]
name = "open"
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_presence_for_client = true
presence = true
join_leave = true
[[channel.namespaces]]
name = "binary"
allow_subscribe_for_client = true
allow_publish_for_client = true
publication_data_format = "binary"
[[channel.namespaces]]
name = "closed"
[[channel.namespaces]]
name = "kept"
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_history_for_client = true
history_size = 1000
history_ttl = "60s"
[[channel.namespaces]]
name = "forced"
history_size = 1000
history_ttl = "60s"
force_recovery = true
"#;

/// A running server.
pub(crate) struct Fixture {
    server: Server,
    pub(crate) address: SocketAddr,
}

impl Fixture {
    pub(crate) async fn start() -> Fixture {
        Fixture::with(&[]).await
    }

    /// With settings that differ from the base.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Fixture {
        let server = Server::start(configuration(BASE, settings)).await.unwrap();
        let address = server.address().unwrap();
        Fixture { server, address }
    }

    /// A client of the user ann.
    pub(crate) fn client(&self, codec: Codec) -> (Client, Events) {
        let options = ClientOptions::default().with_token(token("ann", None)).with_codec(codec);
        Client::connect(&self.url(), options).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// A call of the server API, which must succeed.
    pub(crate) async fn api(&self, method: &str, body: &str) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "POST /api/{method} HTTP/1.1\r\nHost: x\r\nX-API-Key: key\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("\"result\""), "{answer}");
    }

    /// Stops the server in order.
    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A connection token, perhaps with an end.
pub(crate) fn token(user: &str, expires_in: Option<u32>) -> String {
    token_with(user, expires_in, &[])
}

/// A connection token with server-side subscriptions.
pub(crate) fn token_with(user: &str, expires_in: Option<u32>, channels: &[&str]) -> String {
    let token = TokenRequest { user: user.to_owned(), expires_in, ..TokenRequest::default() };
    let channels = channels.iter().map(|channel| (*channel).to_owned()).collect();
    sign_connection(SECRET, &ConnectionTokenRequest { token, channels }, now()).unwrap()
}

pub(crate) fn subscription_token(user: &str, channel: &str, expires_in: Option<u32>) -> String {
    let token = TokenRequest { user: user.to_owned(), expires_in, ..TokenRequest::default() };
    let request = SubscriptionTokenRequest { token, channel: channel.to_owned(), data: None };
    sign_subscription(SECRET, &request, now()).unwrap()
}

/// The next event for which this holds; what comes before it is passed over.
pub(crate) async fn until(events: &mut Events, wanted: impl Fn(&Event) -> bool) -> Event {
    let began = Instant::now();
    let mut passed = Vec::new();
    loop {
        let left = PATIENCE.saturating_sub(began.elapsed());
        match timeout(left, events.next()).await {
            Ok(Some(event)) if wanted(&event) => return event,
            Ok(Some(event)) => passed.push(event),
            other => panic!("{other:?} after {passed:#?}"),
        }
    }
}

/// The next publication's data.
pub(crate) async fn published(events: &mut Events) -> Vec<u8> {
    match until(events, |event| matches!(event, Event::Publication { .. })).await {
        Event::Publication { publication, .. } => publication.data.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// Subscribes and waits until that is accepted.
pub(crate) async fn subscribed(client: &Client, events: &mut Events, channel: &str) {
    let options = SubscriptionOptions {
        recoverable: true,
        join_leave: true,
        ..SubscriptionOptions::default()
    };
    client.subscribe(channel, options).await.unwrap();
    until(events, |event| matches!(event, Event::Subscribed { .. })).await;
}
