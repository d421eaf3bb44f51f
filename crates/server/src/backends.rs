//! Calls of sessions to the backends of the application.
//!
//! A worker hands a call over and gets its result through its inbox. The calls run on the tokio
//! runtime of the server, so that a slow backend delays no worker.
//!
//! Invariant: every call has exactly one result, also when its task panics or the server stops. The
//! calls in progress are bounded in number and bytes.

mod translate;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::HeaderMap;
use axum::http::header::HeaderName;
use engine::call::CallRefusal;
use engine::{CallOutcome, SessionCall};
use proxy::headers::TransportHeaders;
use proxy::{Backend, BackendStats, CallerHeaders, ProxyMethod};
use tokio::runtime::Handle;
use tracing::error;
use wire::protocol::ErrorCode;

use crate::admission::call_place::CallPlace;
use crate::config::{BackendKey, Proxies};
use crate::limits::{BACKEND_CALL_BYTES_MAX, BACKEND_CALLS_MAX};
use crate::worker::inbox::{Input, WorkerInbox};
use translate::{Asked, outcome, refused};

/// The backends of the configuration.
pub struct Backends {
    by_key: HashMap<BackendKey, Arc<Backend>>,
    runtime: Handle,
    in_progress: Arc<InProgress>,
    /// Headers of HTTP requests that any backend gets.
    http_headers: Vec<HeaderName>,
}

impl Backends {
    /// Prepares the calls, which run on this runtime.
    #[must_use]
    pub fn new(proxies: &Proxies, runtime: Handle) -> Backends {
        let backends = proxies.backends.iter();
        let backends =
            backends.map(|(key, settings)| (key.clone(), Arc::new(Backend::new(settings.clone()))));
        Backends {
            by_key: backends.collect(),
            runtime,
            in_progress: Arc::default(),
            http_headers: proxies.http_headers(),
        }
    }

    /// Those headers of a handshake that backends get; `None` if there are none.
    pub(crate) fn kept_headers(&self, all: &HeaderMap) -> Option<Arc<HeaderMap>> {
        let mut kept = HeaderMap::new();
        for name in &self.http_headers {
            for value in all.get_all(name) {
                kept.append(name.clone(), value.clone());
            }
        }
        (!kept.is_empty()).then(|| Arc::new(kept))
    }

    /// Asks a backend. The result goes to the inbox.
    pub(crate) fn ask(
        &self,
        place: CallPlace,
        call: SessionCall,
        headers: Option<Arc<HeaderMap>>,
        inbox: &Arc<WorkerInbox>,
    ) {
        let Some(asked) = Asked::of(call) else { return };
        let answer =
            PendingResult { place, method: asked.method, inbox: inbox.clone(), is_due: true };
        let Some(backend) = self.by_key.get(&asked.key).cloned() else {
            error!(key = ?asked.key, "no backend is configured for this proxy; restart this node after a change of proxies");
            return;
        };
        let Some(permit) = InProgress::enter(&self.in_progress, asked.bytes) else { return };
        let transport = headers.map(TransportHeaders::Http).unwrap_or_default();
        let headers = CallerHeaders { transport, emulated: asked.emulated };
        self.runtime.spawn(async move {
            let reply = backend.call(asked.request, &headers).await;
            drop(permit);
            answer.send(outcome(asked.method, reply));
        });
    }

    /// Counts of all backends.
    pub(crate) fn stats(&self) -> Vec<BackendStats> {
        let mut stats: Vec<_> = self.by_key.values().map(|backend| backend.stats()).collect();
        stats.sort_by(|one, other| one.name.cmp(&other.name));
        stats
    }
}

/// The result that a session waits for. Dropped before it is known, it is a temporary error.
struct PendingResult {
    place: CallPlace,
    method: ProxyMethod,
    inbox: Arc<WorkerInbox>,
    is_due: bool,
}

impl PendingResult {
    fn send(mut self, outcome: CallOutcome) {
        self.is_due = false;
        self.inbox.send(Input::BackendResult(self.place, Box::new(outcome)));
    }
}

impl Drop for PendingResult {
    fn drop(&mut self) {
        if self.is_due {
            let refusal = CallRefusal::Error(ErrorCode::Internal.into());
            let outcome = Box::new(refused(self.method, refusal));
            self.inbox.send(Input::BackendResult(self.place, outcome));
        }
    }
}

/// Calls in progress.
#[derive(Debug, Default)]
struct InProgress {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

impl InProgress {
    /// Counts a call, unless there are too many.
    fn enter(in_progress: &Arc<InProgress>, bytes: usize) -> Option<CallPermit> {
        let permit = CallPermit { in_progress: in_progress.clone(), bytes };
        let calls = in_progress.calls.fetch_add(1, Ordering::Relaxed);
        let held = in_progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = calls < BACKEND_CALLS_MAX && held + bytes <= BACKEND_CALL_BYTES_MAX;
        fits.then_some(permit)
    }
}

/// One call in progress.
struct CallPermit {
    in_progress: Arc<InProgress>,
    bytes: usize,
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.in_progress.calls.fetch_sub(1, Ordering::Relaxed);
        self.in_progress.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_in_progress_are_bounded() {
        let in_progress = Arc::default();
        let most = InProgress::enter(&in_progress, BACKEND_CALL_BYTES_MAX);
        assert!(most.is_some() && InProgress::enter(&in_progress, 1).is_none());
        drop(most);
        let all: Vec<_> =
            (0..BACKEND_CALLS_MAX).map(|_| InProgress::enter(&in_progress, 0)).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(InProgress::enter(&in_progress, 0).is_none());
        drop(all);
        assert!(InProgress::enter(&in_progress, 1).is_some());
    }
}
