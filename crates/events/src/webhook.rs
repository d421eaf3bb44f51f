//! Batches as signed POST requests.
//!
//! Invariant: an attempt ends within its timeout. A batch is acknowledged by a status of success,
//! and by nothing else; redirects are not followed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri, body::Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use proxy::{BackendTls, failure_of, https_connector, retry_after};
use tokio::time::Instant;

use crate::batch::EventBatch;
use crate::failure::DeliveryFailure;
use crate::limits::{
    RETRY_AFTER_MAX, WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_ANSWER_TIMEOUT, WEBHOOK_HEAD_BYTES_MAX,
    WEBHOOK_IDLE_TIMEOUT, WEBHOOK_PING_INTERVAL, WEBHOOK_PING_TIMEOUT,
};
use crate::secret::WebhookSecret;

/// Settings of a webhook.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Address of the receiver.
    pub uri: Uri,
    /// Keys of the signatures: the current one, and older ones that receivers may still use.
    pub secrets: Vec<WebhookSecret>,
    /// Time for one attempt.
    pub timeout: Duration,
    /// Headers of every request.
    pub headers: HeaderMap,
    /// TLS, if it differs from the default.
    pub tls: Option<BackendTls>,
}

type WebhookClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The connection to a receiver.
pub(crate) struct Webhook {
    client: WebhookClient,
    settings: WebhookSettings,
}

const USER_AGENT: &str = concat!("tidings/", env!("CARGO_PKG_VERSION"));
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

impl Webhook {
    pub(crate) fn new(settings: WebhookSettings) -> Webhook {
        Webhook { client: client(&settings), settings }
    }

    /// Sends a batch once.
    pub(crate) async fn send(&mut self, batch: &EventBatch) -> Result<(), DeliveryFailure> {
        let timeout = self.settings.timeout;
        let deadline = Instant::now() + timeout;
        let Ok(response) = tokio::time::timeout_at(deadline, self.post(batch)).await else {
            // The path may be dead. HTTP/2 would use the same connection for the next attempt.
            self.client = client(&self.settings);
            return Err(DeliveryFailure::transient(format!("no answer within {timeout:?}")));
        };
        let response = response?;
        let failure = failure_of_status(&response);
        // The status has decided. What follows is read so that the connection can be used again; a
        // connection whose answer does not end is closed.
        let answer = Limited::new(response.into_body(), WEBHOOK_ANSWER_BYTES_MAX);
        let deadline = deadline.min(Instant::now() + WEBHOOK_ANSWER_TIMEOUT);
        let _discarded = tokio::time::timeout_at(deadline, answer.collect()).await;
        failure.map_or(Ok(()), Err)
    }

    async fn post(&self, batch: &EventBatch) -> Result<Response<Incoming>, DeliveryFailure> {
        let body = batch.body();
        let mut request = Request::post(self.settings.uri.clone())
            .body(Full::new(body.clone()))
            .map_err(|error| DeliveryFailure::transient(error.to_string()))?;
        self.write_headers(request.headers_mut(), &batch.id, &body);
        self.client.request(request).await.map_err(|error| {
            let failure = failure_of(&error);
            DeliveryFailure::transient(format!("{}: {}", failure.kind.name(), failure.detail))
        })
    }

    fn write_headers(&self, headers: &mut HeaderMap, id: &str, body: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |time| time.as_secs());
        headers.clone_from(&self.settings.headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let secrets = self.settings.secrets.iter();
        let signatures: Vec<String> = secrets.map(|secret| secret.sign(id, now, body)).collect();
        let values = [
            (WEBHOOK_ID, id.to_owned()),
            (WEBHOOK_TIMESTAMP, now.to_string()),
            (WEBHOOK_SIGNATURE, signatures.join(" ")),
        ];
        for (name, value) in values {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

fn client(settings: &WebhookSettings) -> WebhookClient {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(WEBHOOK_IDLE_TIMEOUT)
        .pool_max_idle_per_host(1)
        .http1_max_buf_size(WEBHOOK_HEAD_BYTES_MAX)
        .http2_keep_alive_interval(WEBHOOK_PING_INTERVAL)
        .http2_keep_alive_timeout(WEBHOOK_PING_TIMEOUT)
        .build(https_connector(settings.tls.clone(), settings.timeout))
}

/// The failure of an answer; `None` if it acknowledges the batch.
fn failure_of_status(response: &Response<Incoming>) -> Option<DeliveryFailure> {
    let status = response.status();
    if status.is_success() {
        return None;
    }
    let cause = match status.is_redirection() {
        true => format!("status {status}; redirects are not followed"),
        false => format!("status {status}"),
    };
    let is_final =
        [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY]
            .contains(&status);
    let retry_after = retry_after(response.headers()).map(|time| time.min(RETRY_AFTER_MAX));
    Some(DeliveryFailure { cause, is_final, retry_after })
}
