//! Admission of calls to the server API, the same for every adapter: the caller's key, its rate and
//! its scopes; and the counters of calls.
//!
//! Invariant: no call reaches the service without a key, unless keys are switched off. No key is
//! logged.

use std::sync::Arc;

use engine::rates::{Bucket, Limited};
use tracing::warn;
use wire::protocol::ErrorCode;

use super::call::ApiCall;
use super::error::ApiError;
use super::keys::ApiKeys;
use super::method::Method;
use crate::client_address::ClientAddress;
use crate::cluster::node::Node;
use crate::config::ApiKey;
use crate::telemetry::{RefusalSubject, shown};

/// Authenticates and rate-limits calls of the server API, and counts them.
pub(crate) struct ApiGate {
    node: Arc<Node>,
    check: KeyCheck,
}

/// Whether callers need a key.
pub(crate) enum KeyCheck {
    /// One of these keys.
    Required(Arc<ApiKeys>),
    /// None: for development.
    Off,
}

/// Reason for which a caller is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRefusal {
    Missing,
    Wrong,
}

impl KeyRefusal {
    fn name(self) -> &'static str {
        match self {
            KeyRefusal::Missing => "missing_key",
            KeyRefusal::Wrong => "wrong_key",
        }
    }
}

impl ApiGate {
    pub(crate) fn new(node: Arc<Node>, check: KeyCheck) -> ApiGate {
        ApiGate { node, check }
    }

    /// Authenticates a caller by the key that it sends, which is empty if it sends none.
    pub(crate) fn authenticate(&self, given: &[u8]) -> Result<Arc<ApiKey>, KeyRefusal> {
        let keys = match &self.check {
            KeyCheck::Required(keys) => keys,
            KeyCheck::Off => return Ok(Arc::new(ApiKey::unlimited("insecure", ""))),
        };
        if given.is_empty() {
            return Err(KeyRefusal::Missing);
        }
        keys.find(given).ok_or(KeyRefusal::Wrong)
    }

    /// Logs and counts a request with a missing or wrong key.
    pub(crate) fn note_refused(
        &self,
        path: &str,
        address: Option<ClientAddress>,
        refusal: KeyRefusal,
    ) {
        let reason = refusal.name();
        let Some(left_out) = self.node.counts.refusals.note(RefusalSubject::ApiKey, reason) else {
            return;
        };
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        warn!(
            reason,
            path = shown(path),
            address,
            left_out,
            "a request to the server API is refused"
        );
    }

    /// Takes a token out of the bucket of the caller's key.
    pub(crate) fn take_token(&self, key: &ApiKey) -> Result<(), Limited> {
        self.node.throttle.take(Bucket::ApiKeyRequests, key.name.as_bytes())
    }

    /// Takes the rate-limit token of a command; that of the request's first command was taken when
    /// the request was admitted.
    pub(crate) async fn take_rate_permit(&self, call: &ApiCall) -> Result<(), ApiError> {
        // Many commands of one request would otherwise run without a pause: a broker in this
        // process answers at once, and other requests share the thread.
        tokio::task::consume_budget().await;
        match call.use_permit() {
            true => Ok(()),
            false => self.take_token(&call.caller.key).map_err(ApiError::from),
        }
    }

    /// Checks that the caller may run a method now.
    pub(crate) async fn begin(&self, call: &ApiCall, method: Method) -> Result<(), ApiError> {
        self.take_rate_permit(call).await?;
        call.check_method(method)
    }

    /// Counts a method that has run, or was refused.
    pub(crate) fn end(&self, call: &ApiCall, method: Method, error: Option<&ApiError>) {
        let key = &*call.caller.key.name;
        self.node.counts.called(key, method.name(), error.map_or(0, |error| error.code));
        if let Some(error) = error
            && error.code == ErrorCode::PermissionDenied.number()
            && let Some(left_out) =
                self.node.counts.refusals.note(RefusalSubject::ApiKey, "out_of_scope")
        {
            let (method, reason) = (method.name(), &*error.message);
            warn!(key, method, reason, left_out, "a call of the server API is refused");
        }
    }
}
