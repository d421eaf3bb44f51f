//! `tidings subscribe`: prints the publications of a channel, and resumes after a lost
//! connection.
//!
//! Invariant: publications during a lost connection are printed, or a line says that some are
//! missing.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use client::{
    Backoff, Client, ClientOptions, Event, Events, Failure, Publication, Reason, ServerUrl,
    SubscriptionOptions, TokenSource, TransportError,
};
use engine::channel::SYSTEM;
use serde_json::value::RawValue;
use server::telemetry::visible_json;
use server::token::{
    ConnectionTokenRequest, SignError, SubscriptionTokenRequest, TokenRequest, TokenSettings,
    sign_connection, sign_subscription,
};
use wire::websocket::handshake::ClientRefused;

use crate::arguments::SubscribeArguments;
use crate::misuse::Misuse;
use crate::output::{BrokenPipe, note, print_line};
use crate::publish::reachable;
use crate::token;

/// A person waits: the first delay is shorter than that of an application.
const BACKOFF: Backoff = Backoff { min: Duration::from_millis(200), max: Duration::from_secs(20) };

/// Where to connect, and with which tokens.
struct Target {
    url: String,
    token: String,
    subscription_token: String,
}

/// What is printed of a subscription.
struct Printer {
    channel: String,
    has_token: bool,
    is_tls: bool,
    /// Whether the subscription is live now.
    is_live: bool,
    was_live: bool,
    /// Whether the reason for reconnecting was printed.
    is_reported: bool,
    left: Option<u64>,
}

/// Why the command ends.
enum End {
    /// As many publications as wanted were printed.
    Done,
    /// A mistake in what the command was given: trying again does not change it.
    Wrong(String),
    /// The server, or standard output, has ended what worked before.
    Ended(String),
}

pub(crate) fn subscribe(wanted: &SubscribeArguments) -> anyhow::Result<ExitCode> {
    let target = Target::of(wanted)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(follow(wanted, target))? {
        End::Done => Ok(ExitCode::SUCCESS),
        End::Wrong(reason) => Err(Misuse(reason).into()),
        End::Ended(reason) => bail!(reason),
    }
}

async fn follow(wanted: &SubscribeArguments, target: Target) -> anyhow::Result<End> {
    let mut options = ClientOptions::default();
    options.session.name = "tidings".to_owned();
    options.session.version = env!("CARGO_PKG_VERSION").to_owned();
    options.session.reconnect = BACKOFF;
    let has_token = !target.token.is_empty();
    if has_token {
        options = options.with_token(target.token);
    }
    let misuse = |error: client::UrlError| Misuse(error.to_string());
    let url: ServerUrl = target.url.parse().map_err(misuse)?;
    let (client, events) = Client::connect(&target.url, options).map_err(misuse)?;
    let subscription = SubscriptionOptions {
        token: match target.subscription_token {
            token if token.is_empty() => TokenSource::None,
            token => TokenSource::Fixed(token),
        },
        recoverable: true,
        ..SubscriptionOptions::default()
    };
    client.subscribe(&wanted.channel, subscription).await?;
    let printer = Printer {
        channel: wanted.channel.clone(),
        has_token,
        is_tls: url.is_tls(),
        is_live: false,
        was_live: false,
        is_reported: false,
        left: wanted.count,
    };
    let end = printer.print_all(events).await;
    client.disconnect().await;
    end
}

impl Target {
    fn of(wanted: &SubscribeArguments) -> anyhow::Result<Target> {
        let mut url = "ws://127.0.0.1:8000/connection/websocket".to_owned();
        let (mut made, mut of_channel) = (None, None);
        if wanted.configured.config.is_some() {
            let config = token::load(&wanted.configured)?;
            let path = config.websocket.path.ok_or_else(|| {
                Misuse(
                    "the configuration serves no WebSocket (websocket.disabled is true)".to_owned(),
                )
            })?;
            let scheme = if config.http.tls.is_some() { "wss" } else { "ws" };
            url = format!(
                "{scheme}://{}:{}{path}",
                reachable(&config.http.address),
                config.http.port
            );
            let of_subscriptions =
                config.subscription_token.clone().unwrap_or_else(|| config.token.clone());
            made = signed(config.token, &wanted.user, |secret, token| {
                let request = ConnectionTokenRequest { token, channels: Vec::new() };
                sign_connection(secret, &request, token::now_unix())
            })?;
            // These require a token.
            let prefix = config.rules.channels.private_prefix.as_str();
            let is_private = !prefix.is_empty() && wanted.channel.starts_with(prefix);
            if is_private || wanted.channel.starts_with(SYSTEM) {
                let channel = wanted.channel.clone();
                of_channel = signed(of_subscriptions, &wanted.user, |secret, token| {
                    let request = SubscriptionTokenRequest { token, channel, data: None };
                    sign_subscription(secret, &request, token::now_unix())
                })?;
            }
        }
        Ok(Target {
            url: wanted.url.clone().unwrap_or(url),
            token: wanted.token.clone().or(made).unwrap_or_default(),
            subscription_token: of_channel.unwrap_or_default(),
        })
    }
}

impl Printer {
    async fn print_all(mut self, mut events: Events) -> anyhow::Result<End> {
        while let Some(event) = events.next().await {
            if let Some(end) = self.handle(event)? {
                return Ok(end);
            }
        }
        Ok(End::Ended("the client has ended".to_owned()))
    }

    fn handle(&mut self, event: Event) -> anyhow::Result<Option<End>> {
        match event {
            Event::Publication { publication, .. } => return self.print(&publication),
            Event::Subscribed { subscribed, .. } => {
                match (subscribed.was_recovering, subscribed.recovered) {
                    (true, true) => note(&format!("live again; recovered {}", subscribed.missed)),
                    (true, false) => {
                        note("live again; what was published meanwhile is lost");
                    }
                    (false, _) if self.was_live => {
                        note("live again; what was published meanwhile may be missing");
                    }
                    (false, _) => note(&format!("live: {}", self.channel)),
                }
                (self.is_live, self.was_live) = (true, true);
            }
            Event::Subscribing { .. } => self.is_live = false,
            Event::Unsubscribed { reason, .. } if self.is_live => {
                return Ok(Some(End::Ended(format!(
                    "the server ended the subscription: {reason}"
                ))));
            }
            Event::Unsubscribed { reason, .. } => {
                let text = format!("the server refused: {reason}");
                return Ok(Some(self.refused(text, reason.code)));
            }
            Event::Disconnected(reason) => {
                return Ok(Some(self.refused(reported(&reason), reason.code)));
            }
            Event::Connecting(reason) => {
                let is_reported = std::mem::take(&mut self.is_reported);
                if !is_reported && reason != Reason::CONNECT_CALLED {
                    self.report(&reported(&reason));
                }
            }
            Event::Connected(_) => self.is_reported = false,
            Event::Failed(failure) => return Ok(self.failed(failure)),
            _ => {}
        }
        Ok(None)
    }

    fn report(&self, reason: &str) {
        note(&format!("{reason}; reconnecting"));
    }

    fn print(&mut self, publication: &Publication) -> anyhow::Result<Option<End>> {
        let data: &RawValue =
            serde_json::from_slice(&publication.data).context("the server sent no JSON")?;
        match print_line(&visible_json(data.get())) {
            Ok(()) => {}
            Err(error) if error.is::<BrokenPipe>() => return Ok(Some(End::Done)),
            Err(error) => return Ok(Some(End::Ended(format!("{error:#}")))),
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Ok(Some(End::Done));
            }
        }
        Ok(None)
    }

    /// Handles a failure after which the client tries again. A refused handshake is permanent,
    /// unless there were too many or the server cannot serve at the moment.
    fn failed(&mut self, failure: Failure) -> Option<End> {
        let error = match failure {
            Failure::Transport(error) => error,
            other => {
                self.report(&other.to_string());
                return None;
            }
        };
        let text = match error {
            TransportError::Handshake(ClientRefused::NotHttp) if !self.is_tls => {
                format!("{error}; if the server speaks TLS, the address begins with wss://")
            }
            _ => error.to_string(),
        };
        let is_final = match error {
            TransportError::Refused { status, .. } => {
                !matches!(status, 408 | 425 | 429 | 500..=599)
            }
            TransportError::NoAddress { .. } => !self.was_live,
            TransportError::Tls(_) | TransportError::Handshake(_) => true,
            _ => false,
        };
        if is_final {
            return Some(End::Wrong(text));
        }
        self.is_reported = true;
        self.report(&text);
        None
    }

    /// A final answer of the server: to a client that was never live, a mistake in what it was
    /// given.
    fn refused(&self, text: String, code: u32) -> End {
        if self.was_live {
            return End::Ended(text);
        }
        End::Wrong(match code {
            3501 | 101 if !self.has_token => format!(
                "{text}: it admits nobody without a token; give --token, or -c FILE to have one made with its secret"
            ),
            3500 | 109 => format!(
                "{text}: the token must be signed with the secret of the server's client.token, and not have expired"
            ),
            102 => format!("{text}: the server has no such namespace or channel"),
            103 => format!("{text}: its namespace does not allow this user to subscribe"),
            _ => text,
        })
    }
}

/// Why the connection was lost or refused.
fn reported(reason: &Reason) -> String {
    match reason.code {
        0..100 => format!("the connection was lost: {}", reason.text),
        100..3000 => format!("the server refused: {reason}"),
        _ => format!("the server closed: {reason}"),
    }
}

/// A token that the server with these settings accepts, when they can sign one.
fn signed(
    settings: TokenSettings,
    user: &str,
    sign: impl FnOnce(&str, TokenRequest) -> Result<String, SignError>,
) -> anyhow::Result<Option<String>> {
    let Some(secret) = settings.hmac_secret_key.filter(|_| settings.jwks_public_endpoint.is_none())
    else {
        return Ok(None);
    };
    let token = TokenRequest {
        user: user.to_owned(),
        issuer: settings.issuer,
        audience: settings.audience,
        user_id_claim: settings.user_id_claim,
        ..TokenRequest::default()
    };
    Ok(Some(sign(&secret, token)?))
}
