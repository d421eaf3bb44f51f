//! Clients that come and go, as JSON for backends.
//!
//! Invariant: every broker says it in this form.

use bytes::Bytes;
use engine::lifecycle::Lifecycle;
use serde_json::json;
use wire::protocol::Publication;

/// What is published in [`engine::channel::LIFECYCLE`].
pub(crate) fn publication(node: &str, lifecycle: &Lifecycle) -> Publication {
    let data = Bytes::from(event(node, lifecycle));
    Publication { data, time: lifecycle.at_ms, ..Publication::default() }
}

/// The event as JSON.
pub(crate) fn event(node: &str, lifecycle: &Lifecycle) -> String {
    let Lifecycle { info, change, at_ms } = lifecycle;
    let (event, reason) = change.words();
    json!({
        "event": event,
        "client_id": info.client,
        "user_id": info.user,
        "node_id": node,
        "timestamp": at_ms,
        "reason": reason,
    })
    .to_string()
}
