//! `tidings subscribe`: prints a channel as it happens, and goes on where it was after a cut.
//!
//! Invariant: whatever was published while it was away is printed, or it says that something is missing.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use engine::channel::SYSTEM;
use serde_json::value::RawValue;
use server::telemetry::visible_json;
use server::token::{
    ConnectionTokenRequest, SignError, SubscriptionTokenRequest, TokenRequest, TokenSettings,
    sign_connection, sign_subscription,
};
use wire::protocol::{
    Command, ConnectRequest, ErrorReply, Publication, PushEvent, Reply, ReplyBody, Request,
    StreamPosition, SubscribeRequest, SubscribeResult,
};

use crate::arguments::SubscribeArguments;
use crate::link::{Goodbye, Heard, Incompatible, Link, NoAddress, NoWebSocket};
use crate::misuse::Misuse;
use crate::output::{NobodyReads, note, print_line};
use crate::publish::reachable;
use crate::{random, token};

const CONNECT: u32 = 1;
const SUBSCRIBE: u32 = 2;
/// Silence beyond the server's ping interval after which a connection counts as dead (§1.7).
const PING_GRACE: Duration = Duration::from_secs(10);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(20);

/// What survives a cut.
struct Subscriber {
    url: String,
    token: String,
    /// Subscription token; empty where the configuration can sign none.
    pass: String,
    channel: String,
    position: Option<StreamPosition>,
    was_live: bool,
    left: Option<u64>,
}

/// Why a connection ended.
enum End {
    /// As many publications as wanted were printed.
    Done,
    /// A mistake in what the command was given: coming back does not change it.
    Wrong(String),
    /// The server, or standard output, has ended what worked before.
    Ended(String),
    /// Weather.
    Cut(String),
}

pub(crate) fn subscribe(wanted: &SubscribeArguments) -> anyhow::Result<ExitCode> {
    let mut subscriber = Subscriber::of(wanted)?;
    let mut attempt: u32 = 0;
    loop {
        let began = Instant::now();
        let reason = match subscriber.follow() {
            End::Done => return Ok(ExitCode::SUCCESS),
            End::Wrong(reason) => return Err(Misuse(reason).into()),
            End::Ended(reason) => bail!(reason),
            End::Cut(reason) => reason,
        };
        if began.elapsed() > BACKOFF_MAX {
            attempt = 0;
        }
        let delay = backoff(attempt)?;
        note(&format!("{reason}; reconnecting in {:.1} s", delay.as_secs_f32()));
        std::thread::sleep(delay);
        attempt += 1;
    }
}

/// Exponential, with full jitter: servers that restart are not run over by everybody at once.
fn backoff(attempt: u32) -> anyhow::Result<Duration> {
    let most = BACKOFF_FIRST.saturating_mul(1 << attempt.min(16)).min(BACKOFF_MAX);
    let dice = u32::from_le_bytes(random()?);
    Ok(most.mul_f64(f64::from(dice) / f64::from(u32::MAX)))
}

impl Subscriber {
    fn of(wanted: &SubscribeArguments) -> anyhow::Result<Subscriber> {
        let mut url = "ws://127.0.0.1:8000/connection/websocket".to_owned();
        let (mut made, mut pass) = (None, None);
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
            // Without one, nobody gets into these.
            let prefix = config.rules.channels.private_prefix.as_str();
            let is_private = !prefix.is_empty() && wanted.channel.starts_with(prefix);
            if is_private || wanted.channel.starts_with(SYSTEM) {
                let channel = wanted.channel.clone();
                pass = signed(of_subscriptions, &wanted.user, |secret, token| {
                    let request = SubscriptionTokenRequest { token, channel, data: None };
                    sign_subscription(secret, &request, token::now_unix())
                })?;
            }
        }
        Ok(Subscriber {
            url: wanted.url.clone().unwrap_or(url),
            token: wanted.token.clone().or(made).unwrap_or_default(),
            pass: pass.unwrap_or_default(),
            channel: wanted.channel.clone(),
            position: None,
            was_live: false,
            left: wanted.count,
        })
    }

    /// One connection from beginning to end.
    fn follow(&mut self) -> End {
        let mut link = match Link::connect(&self.url) {
            Ok(link) => link,
            Err(error) => return self.not_connected(&error),
        };
        let end = self.listen(&mut link).unwrap_or_else(|error| End::Cut(format!("{error:#}")));
        link.close();
        end
    }

    fn listen(&mut self, link: &mut Link) -> anyhow::Result<End> {
        let connect = ConnectRequest {
            token: self.token.clone(),
            name: "tidings".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectRequest::default()
        };
        link.send(&Command { id: CONNECT, request: Request::Connect(Box::new(connect)) })?;
        let mut patience = PING_GRACE;
        loop {
            let replies = match link.hear(patience)? {
                Heard::Replies(replies) => replies,
                Heard::Closed(Goodbye { code, reason }) => {
                    let text = format!("the server closed: {reason} ({code})");
                    let is_final = matches!(code, 1009 | 3500..=3999 | 4500..=4999);
                    return Ok(match is_final {
                        true => self.refused(text, code.into()),
                        false => End::Cut(text),
                    });
                }
            };
            for reply in replies {
                if let ReplyBody::Connect(result) = &reply.body {
                    // Without pings a silent server and a dead one look the same.
                    patience = match result.ping {
                        0 => Duration::from_secs(24 * 3600),
                        ping => Duration::from_secs(ping.into()) + PING_GRACE,
                    };
                }
                if let Some(end) = self.handle(link, reply)? {
                    return Ok(end);
                }
            }
        }
    }

    fn handle(&mut self, link: &mut Link, reply: Reply) -> anyhow::Result<Option<End>> {
        match reply.body {
            ReplyBody::Ping => link.send(&Command { id: 0, request: Request::Pong })?,
            ReplyBody::Connect(_) => {
                let request = Request::Subscribe(Box::new(self.request()));
                link.send(&Command { id: SUBSCRIBE, request })?;
            }
            ReplyBody::Subscribe(result) => return self.begin(&result),
            ReplyBody::Error(error) => return Ok(Some(self.error(&error))),
            ReplyBody::Push(push) if *push.channel == *self.channel => match push.event {
                PushEvent::Publication(publication) => return self.print(&publication),
                PushEvent::Unsubscribe { code, reason } => {
                    let text = format!("the server ended the subscription: {reason} ({code})");
                    // From 2500 on, subscribing again helps.
                    return Ok(Some(if code < 2500 { End::Ended(text) } else { End::Cut(text) }));
                }
                _ => {}
            },
            _ => {}
        }
        Ok(None)
    }

    fn request(&self) -> SubscribeRequest {
        let position = self.position.clone().unwrap_or_default();
        SubscribeRequest {
            channel: self.channel.clone(),
            token: self.pass.clone(),
            recover: self.position.is_some(),
            epoch: position.epoch,
            offset: position.offset,
            recoverable: true,
            ..SubscribeRequest::default()
        }
    }

    fn begin(&mut self, result: &SubscribeResult) -> anyhow::Result<Option<End>> {
        match (result.was_recovering, result.recovered) {
            (true, true) => note(&format!("live again; recovered {}", result.publications.len())),
            (true, false) => note("live again; what was published meanwhile is lost"),
            (false, _) if self.was_live => {
                note("live again; what was published meanwhile may be missing");
            }
            (false, _) => note(&format!("live: {}", self.channel)),
        }
        self.was_live = true;
        self.position = result
            .recoverable
            .then(|| StreamPosition { offset: result.offset, epoch: result.epoch.clone() });
        for publication in &result.publications {
            if let Some(end) = self.print(publication)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    fn print(&mut self, publication: &Arc<Publication>) -> anyhow::Result<Option<End>> {
        if publication.offset > 0
            && let Some(position) = &mut self.position
        {
            position.offset = publication.offset;
        }
        let data: &RawValue =
            serde_json::from_slice(&publication.data).context("the server sent no JSON")?;
        match print_line(&visible_json(data.get())) {
            Ok(()) => {}
            Err(error) if error.is::<NobodyReads>() => return Ok(Some(End::Done)),
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

    /// Coming back does not change what a server has against a handshake, unless there were too many or it is in trouble
    /// itself.
    fn not_connected(&self, error: &anyhow::Error) -> End {
        let text = format!("{error:#}");
        let is_final = match error.downcast_ref::<NoWebSocket>() {
            Some(NoWebSocket { status, .. }) => !matches!(status, 408 | 425 | 429 | 500..=599),
            None if error.is::<NoAddress>() => !self.was_live,
            None => error.is::<Misuse>() || error.is::<Incompatible>(),
        };
        if is_final { End::Wrong(text) } else { End::Cut(text) }
    }

    /// An error reply; a temporary one may pass.
    fn error(&self, error: &ErrorReply) -> End {
        let text = format!("the server refused: {} ({})", error.message, error.code);
        if error.temporary { End::Cut(text) } else { self.refused(text, error.code) }
    }

    /// A final answer of the server: to a client that was never live, a mistake in what it was given.
    fn refused(&self, text: String, code: u32) -> End {
        if self.was_live {
            return End::Ended(text);
        }
        End::Wrong(match code {
            3501 | 101 if self.token.is_empty() => format!(
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
