//! This node and the broker know the same revocations: read at the start, and again whenever changes may have been missed.
//!
//! Invariant: what this node knows and the broker has lost is given back to it; nothing that is in force is forgotten because a
//! broker came back without its data.

use std::sync::Arc;

use engine::broker::{BrokerError, BrokerReply, BrokerRequest};
use engine::revocation::Revocation;
use tracing::{info, warn};

use crate::asker::Asker;
use crate::limits::{CONFIG_RETRY_AFTER, REVOCATIONS_EXPIRE_EVERY};
use crate::members::Members;
use crate::node::Node;

/// Learns everything before the node serves; as long as that cannot be read, it is tried again.
pub(crate) async fn learn(asker: &Asker, node: &Node) {
    let mut is_told = false;
    while let Err(error) = read(asker, node).await {
        if !std::mem::replace(&mut is_told, true) {
            warn!(%error, "what is revoked cannot be read; nothing is served yet");
        }
        tokio::time::sleep(CONFIG_RETRY_AFTER).await;
    }
}

/// Keeps up with the broker. Does not end.
pub(crate) async fn run(members: Arc<Members>) {
    let node = members.node();
    let mut interval = tokio::time::interval(REVOCATIONS_EXPIRE_EVERY);
    loop {
        tokio::select! {
            _ = interval.tick() => node.revoked.expire(),
            () = node.revoked.is_stale.notified() => synchronize(&members).await,
        }
    }
}

/// Until the broker has answered and knows what this node knows.
async fn synchronize(members: &Members) {
    let (asker, node) = (&members.asker, members.node());
    let mut is_told = false;
    loop {
        let synchronized = async {
            let missing = read(asker, node).await?;
            if !missing.is_empty() {
                info!(
                    count = missing.len(),
                    "the broker has lost revocations and is told them again"
                );
            }
            for change in missing {
                keep(asker, change).await?;
            }
            Ok::<(), BrokerError>(())
        };
        match synchronized.await {
            Ok(()) => return,
            Err(error) if !std::mem::replace(&mut is_told, true) => {
                warn!(%error, "what is revoked cannot be read; it is tried again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(CONFIG_RETRY_AFTER).await;
    }
}

/// Has the broker keep a change and tell all nodes.
pub(crate) async fn keep(asker: &Asker, revocation: Arc<Revocation>) -> Result<(), BrokerError> {
    match asker.ask(|id| BrokerRequest::Revoke { id, revocation }).await? {
        BrokerReply::RevocationKept => Ok(()),
        _ => Err(BrokerError::Unavailable),
    }
}

/// Takes over what the broker keeps; gives what it does not.
async fn read(asker: &Asker, node: &Node) -> Result<Vec<Arc<Revocation>>, BrokerError> {
    match asker.ask(|id| BrokerRequest::ReadRevocations { id }).await? {
        BrokerReply::Revocations(kept) => {
            kept.iter().for_each(|change| node.revoke(change));
            Ok(node.revoked.missing(&kept))
        }
        _ => Err(BrokerError::Unavailable),
    }
}
