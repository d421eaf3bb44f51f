//! The connection to NATS, and requests to the API of JetStream.
//!
//! Invariant: credentials appear in no error and no log.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Client, ConnectErrorKind, ConnectOptions};
use serde_json::{Value, json};

use super::settings::{DeliverPolicy, NatsConsumerSettings, NatsLogin};
use crate::error::ConsumerError;
use crate::limits::{JETSTREAM_ACK_WAIT, JETSTREAM_REQUEST_TIMEOUT};

const SOURCE: &str = "NATS";

pub(super) async fn connect(
    settings: &NatsConsumerSettings,
    consumer: &str,
) -> Result<Client, ConsumerError> {
    let mut options = ConnectOptions::new()
        .name(format!("tidings consumer {consumer}"))
        .connection_timeout(Duration::from_secs(5))
        .request_timeout(Some(JETSTREAM_REQUEST_TIMEOUT));
    match &settings.login {
        NatsLogin::Anonymous => {}
        NatsLogin::User(user, password) => {
            options = options.user_and_password(user.clone(), password.clone());
        }
        NatsLogin::Token(token) => options = options.token(token.clone()),
    }
    if settings.tls.is_required {
        options = options.require_tls(true);
    }
    if let Some(roots) = &settings.tls.roots {
        options = options.add_root_certificates(roots.clone());
    }
    if let Some((certificate, key)) = &settings.tls.client {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    let urls: Vec<&str> = settings.url.split(',').map(str::trim).collect();
    options.connect(urls).await.map_err(|error| {
        let (source_name, reason) = (SOURCE.to_owned(), error.to_string());
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                ConsumerError::Unauthorized { source_name, reason }
            }
            _ => ConsumerError::Unavailable { source_name, reason },
        }
    })
}

/// Creates the durable consumer, or makes sure that it exists.
pub(super) async fn prepare(
    client: &Client,
    settings: &NatsConsumerSettings,
) -> Result<(), ConsumerError> {
    let NatsConsumerSettings { stream, durable, .. } = settings;
    if settings.uses_existing {
        request(client, &format!("CONSUMER.INFO.{stream}.{durable}"), &json!({}), settings).await?;
        return Ok(());
    }
    let mut config = json!({
        "name": durable,
        "durable_name": durable,
        "deliver_policy": match settings.deliver {
            DeliverPolicy::New => "new",
            DeliverPolicy::All => "all",
        },
        "ack_policy": "explicit",
        "ack_wait": u64::try_from(JETSTREAM_ACK_WAIT.as_nanos()).unwrap_or(u64::MAX),
        "max_ack_pending": settings.max_ack_pending,
        "replay_policy": "instant",
    });
    match settings.subjects.as_slice() {
        [] => {}
        // Servers before 2.10 know only one.
        [subject] => config["filter_subject"] = json!(subject),
        subjects => config["filter_subjects"] = json!(subjects),
    }
    let body = json!({ "stream_name": stream, "config": config });
    request(client, &format!("CONSUMER.CREATE.{stream}.{durable}"), &body, settings).await?;
    Ok(())
}

async fn request(
    client: &Client,
    verb: &str,
    body: &Value,
    settings: &NatsConsumerSettings,
) -> Result<Value, ConsumerError> {
    let unavailable = |reason: String| {
        let source_name = "JetStream of NATS".to_owned();
        ConsumerError::Unavailable { source_name, reason }
    };
    let payload = body.to_string().into();
    let reply = client.request(format!("$JS.API.{verb}"), payload).await;
    let reply = reply.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => {
            unavailable("it does not answer; is it switched off (-js)?".to_owned())
        }
        _ => unavailable(format!("{error}; does the user have rights to $JS.API.> and _INBOX.>?")),
    })?;
    let reply: Value =
        serde_json::from_slice(&reply.payload).map_err(|error| unavailable(error.to_string()))?;
    let Some(error) = reply.get("error") else { return Ok(reply) };
    let text = error["description"].as_str().unwrap_or_default().to_owned();
    let NatsConsumerSettings { stream, durable, .. } = settings;
    Err(match error["err_code"].as_u64() {
        Some(10059) => ConsumerError::Missing { missing: format!("JetStream stream {stream:?}") },
        Some(10014) => {
            let missing = format!("durable consumer {durable:?} of the stream {stream:?}");
            ConsumerError::Missing { missing }
        }
        code => {
            let code = code.unwrap_or(0);
            let of = format!("consumer {durable:?} of the stream {stream:?}");
            ConsumerError::Settings {
                reason: format!("JetStream refuses the {of}: {text} ({code})"),
            }
        }
    })
}
