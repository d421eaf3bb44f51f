//! Addresses of NATS servers, the credentials in them, and the connection.
//!
//! Invariant: credentials appear in no error and no log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError};

use super::Shared;
use super::connection_events::ConnectionEvents;
use super::options::{NatsError, NatsOptions};
use super::subject::Names;
use crate::limits::{ANSWER_TIMEOUT, NATS_COMMANDS_MAX, PING_INTERVAL, RECONNECT_DELAY_MAX};

/// Checks addresses of NATS servers, separated by commas.
///
/// # Errors
/// The expected form, without the credentials in the addresses.
pub fn check_url(urls: &str) -> Result<(), String> {
    for url in urls.split(',').map(str::trim) {
        let is_read = url.parse::<async_nats::ServerAddr>().is_ok_and(|url| !url.host().is_empty());
        if !is_read {
            return Err("expected host:port, nats://host:port or tls://host:port; several are separated by commas".into());
        }
    }
    Ok(())
}

/// Connects, and from then on sends the events of the connection to `events`, except the first
/// `Connected`.
pub(super) async fn connect(
    options: &NatsOptions,
    names: &Names,
    shared: Arc<Shared>,
    events: Arc<ConnectionEvents>,
) -> Result<Client, NatsError> {
    let is_first = AtomicBool::new(true);
    let mut connecting = ConnectOptions::new()
        .name(format!("tidings {}", names.node))
        .connection_timeout(Duration::from_millis(options.dial_timeout_ms))
        .request_timeout(Some(ANSWER_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
            Duration::from_millis(20).saturating_mul(attempts).min(RECONNECT_DELAY_MAX)
        })
        .client_capacity(NATS_COMMANDS_MAX)
        .event_callback(move |event| {
            match &event {
                // Recorded at once, before a request that waits for an echo checks it.
                Event::ServerError(ServerError::Other(text)) => {
                    shared.denied_subjects.handle_error(text);
                }
                Event::Connected => shared.denied_subjects.forget(),
                _ => {}
            }
            let is_start =
                matches!(event, Event::Connected) && is_first.swap(false, Ordering::Relaxed);
            if !is_start {
                events.add(event);
            }
            std::future::ready(())
        });
    if options.tls.enabled {
        connecting = connecting.require_tls(true);
    }
    if let Some(file) = &options.tls.server_ca_pem_file {
        connecting = connecting.add_root_certificates(file.clone());
    }
    if let Some((certificate, key)) = &options.tls.client_pem_files {
        connecting = connecting.add_client_certificate(certificate.clone(), key.clone());
    }
    let urls: Vec<&str> = options.url.split(',').map(str::trim).collect();
    // The client library ignores credentials in an address.
    match urls.iter().find_map(|url| secrets(url)) {
        Some((user, Some(password))) => connecting = connecting.user_and_password(user, password),
        Some((token, None)) => connecting = connecting.token(token),
        None => {}
    }
    connecting.connect(urls).await.map_err(|error| {
        let url = without_secrets(&options.url);
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                NatsError::Credentials { url }
            }
            ConnectErrorKind::Tls => NatsError::Tls { url, reason: error.to_string() },
            _ if is_about_tls(&error) => NatsError::Tls { url, reason: error.to_string() },
            _ => NatsError::Unreachable { url, reason: error.to_string() },
        }
    })
}

/// Returns whether the cause is TLS: the client library reports a failed handshake as an I/O
/// error.
fn is_about_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    let inner = io.and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| inner.is::<rustls::Error>())
}

/// The credentials before `@` in an address: user and password, or a token.
fn secrets(url: &str) -> Option<(String, Option<String>)> {
    let (before, _) = url.rsplit_once('@')?;
    let before = before.split_once("://").map_or(before, |(_, behind)| behind);
    match before.split_once(':') {
        Some((user, password)) => Some((decoded(user), Some(decoded(password)))),
        None => Some((decoded(before), None)),
    }
}

/// Decodes percent-encoded text (RFC 3986, section 2.1).
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => {
                bytes.push(b'%');
                bytes.extend(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The addresses without credentials.
pub(super) fn without_secrets(urls: &str) -> String {
    let shown = urls.split(',').map(|url| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{}://{host}", scheme.trim()),
        (None, Some((_, host))) => host.to_owned(),
        _ => url.trim().to_owned(),
    });
    shown.collect::<Vec<_>>().join(",")
}
