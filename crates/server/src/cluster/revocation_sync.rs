//! Synchronizes the revocations of this node and the broker: at the start, periodically, and
//! whenever changes may have been missed.
//!
//! Invariant: revocations that the broker has lost are stored again, so that a restart of the
//! broker without its data lifts no revocation.

use std::sync::Arc;

use engine::broker::{BrokerError, RegistryRequest};
use engine::revocation::{Revocation, RevokeOutcome, Subject};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::cluster::node::Node;
use crate::cluster::service_endpoint::ServiceEndpoint;
use crate::limits::{
    CONFIG_RETRY_AFTER, REVOCATIONS_EXPIRE_EVERY, REVOCATIONS_READ_EVERY, REVOCATIONS_READ_SHARE,
};

/// Reads all revocations before the node serves clients; retries until they can be read.
pub(crate) async fn read_at_start(service: &ServiceEndpoint, node: &Node) {
    let mut is_logged = false;
    while let Err(error) = read(service, node).await {
        if !std::mem::replace(&mut is_logged, true) {
            warn!(%error, "revocations cannot be read from the broker; clients are not served until they can");
        }
        tokio::time::sleep(CONFIG_RETRY_AFTER).await;
    }
}

/// Synchronizes periodically and after missed changes. Does not return.
pub(crate) async fn run(service: &ServiceEndpoint, node: &Node) {
    let mut expiring = tokio::time::interval(REVOCATIONS_EXPIRE_EVERY);
    let mut next_read = Instant::now() + REVOCATIONS_READ_EVERY;
    loop {
        tokio::select! {
            _ = expiring.tick() => {
                node.revoked.expire();
                continue;
            }
            // A broker may lose changes without an event, such as when an operator deletes a key or
            // a stream.
            () = tokio::time::sleep_until(next_read) => {}
            () = node.revoked.is_stale.notified() => {}
        }
        let began = Instant::now();
        synchronize(service, node).await;
        let pause = REVOCATIONS_READ_EVERY.max(began.elapsed() * REVOCATIONS_READ_SHARE);
        next_read = Instant::now() + pause;
    }
}

/// Retries until the broker has answered and stores all revocations of this node.
async fn synchronize(service: &ServiceEndpoint, node: &Node) {
    let mut is_logged = false;
    loop {
        let synchronized = async {
            let missing = read(service, node).await?;
            if !missing.is_empty() {
                info!(
                    count = missing.len(),
                    "the broker has lost revocations; they are stored again"
                );
            }
            for change in missing {
                if let RevokeOutcome::Superseded(later) = store(service, change).await? {
                    node.revoke(&later);
                }
            }
            Ok::<(), BrokerError>(())
        };
        match synchronized.await {
            Ok(()) => return,
            Err(error) if !std::mem::replace(&mut is_logged, true) => {
                warn!(%error, "revocations cannot be synchronized with the broker; retrying");
            }
            Err(_) => {}
        }
        tokio::time::sleep(CONFIG_RETRY_AFTER).await;
    }
}

/// Stores a change in the broker, which notifies all nodes.
pub(crate) async fn store(
    service: &ServiceEndpoint,
    revocation: Arc<Revocation>,
) -> Result<RevokeOutcome, BrokerError> {
    service.ask(|id| RegistryRequest::Revoke { id, revocation }).await
}

/// Latest change of a subject that the broker or this node has, even if it has expired.
pub(crate) async fn find(
    service: &ServiceEndpoint,
    node: &Node,
    subject: &Subject,
) -> Result<Option<Arc<Revocation>>, BrokerError> {
    let subject_asked = subject.clone();
    let ask = |id| RegistryRequest::Find { id, subject: subject_asked };
    let stored = service.ask(ask).await?;
    if let Some(stored) = &stored {
        node.revoke(stored);
    }
    let known = node.revoked.get(subject);
    Ok(stored.into_iter().chain(known).max_by_key(|change| change.changed_at_ms))
}

/// Applies the revocations of the broker. Returns those that the broker is missing.
async fn read(service: &ServiceEndpoint, node: &Node) -> Result<Vec<Arc<Revocation>>, BrokerError> {
    let stored = service.ask(|id| RegistryRequest::Read { id }).await?;
    stored.iter().for_each(|change| node.revoke(change));
    Ok(node.revoked.missing(&stored))
}
