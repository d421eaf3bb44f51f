//! What is revoked: one message for each subject in a stream of its own, made when something is revoked for the first time.
//!
//! Invariant: of two changes of a subject the later one is kept, also when two nodes store at once. A node that uses no JetStream
//! refuses to revoke, and is told of no revocation when it starts.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::broker::{BrokerError, BrokerReply};
use engine::revocation::Revocation;
use serde_json::json;

use super::jetstream::{Ack, ApiError, NO_STREAM, Stored};
use super::link::Link;
use super::streams::ensure_stream;
use super::subject::token;
use crate::control::{decode_revocation, encode_revocation, subject_key};
use crate::limits::{REVOCATION_CONFLICTS_MAX, REVOCATIONS_FORGOTTEN_MAX};

/// See the module.
pub(super) struct Revocations {
    link: Rc<Link>,
    replicas: u32,
}

impl Revocations {
    pub(super) fn new(link: Rc<Link>, replicas: u32) -> Revocations {
        Revocations { link, replicas }
    }

    /// Keeps a change and tells all nodes.
    pub(super) async fn revoke(&self, revocation: &Revocation) -> Result<BrokerReply, BrokerError> {
        if revocation.ends_at <= now_s() {
            return Ok(BrokerReply::RevocationKept);
        }
        if !self.link.keeps {
            return Err(BrokerError::NotSupported);
        }
        self.ensure().await?;
        let payload = encode_revocation(revocation);
        if self.store(revocation, &payload).await? {
            self.link.publish(self.link.names.control(), payload.into()).await?;
        }
        Ok(BrokerReply::RevocationKept)
    }

    /// Stores a change unless a later one is stored; says whether it did.
    async fn store(&self, revocation: &Revocation, payload: &[u8]) -> Result<bool, BrokerError> {
        let names = &self.link.names;
        let (stream, subject) = (
            names.revocation_stream(),
            names.revocation(&token(&subject_key(&revocation.subject))),
        );
        for _ in 0..REVOCATION_CONFLICTS_MAX {
            let newest = self.link.newest(&stream, &subject).await?;
            let known = newest.as_ref().and_then(|stored| decode_revocation(&stored.payload));
            if known.is_some_and(|known| known.changed_at_ms >= revocation.changed_at_ms) {
                return Ok(false);
            }
            let after = newest.map_or(0, |stored| stored.sequence);
            let payload = payload.to_vec().into();
            match self.link.store(&subject, Some(after), "", payload).await? {
                Ack::Stored(_) | Ack::Duplicate(_) => return Ok(true),
                Ack::Conflict => {}
            }
        }
        Err(BrokerError::Unavailable)
    }

    /// Every change that is kept and not over.
    pub(super) async fn read(&self) -> Result<BrokerReply, BrokerError> {
        let stored = if self.exists().await? {
            let names = &self.link.names;
            self.link.range(&names.revocation_stream(), &names.revocation("*")).await?
        } else {
            Vec::new()
        };
        let now_s = now_s();
        let (mut found, mut over): (Vec<Arc<Revocation>>, Vec<&Stored>) = Default::default();
        for message in &stored {
            match decode_revocation(&message.payload) {
                Some(change) if change.ends_at > now_s => found.push(Arc::new(change)),
                Some(_) => over.push(message),
                None => {}
            }
        }
        for message in over.into_iter().take(REVOCATIONS_FORGOTTEN_MAX) {
            let stream = self.link.names.revocation_stream();
            let number = json!({ "seq": message.sequence });
            // Whoever reads next tries again.
            let _later = self.link.api(&format!("STREAM.MSG.DELETE.{stream}"), &number).await;
        }
        Ok(BrokerReply::Revocations(found))
    }

    /// Whether anything was ever revoked.
    async fn exists(&self) -> Result<bool, BrokerError> {
        // It may have no rights to JetStream, nor a server that has it.
        if !self.link.keeps {
            return Ok(false);
        }
        let stream = self.link.names.revocation_stream();
        match self.link.api(&format!("STREAM.INFO.{stream}"), &json!({})).await {
            Ok(_) => Ok(true),
            Err(ApiError::Refused { code: NO_STREAM, .. }) => Ok(false),
            Err(_) => Err(BrokerError::Unavailable),
        }
    }

    async fn ensure(&self) -> Result<(), BrokerError> {
        let names = &self.link.names;
        let wanted = json!({
            "name": names.revocation_stream(),
            "subjects": [names.revocation("*")],
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": self.replicas.max(1),
            "max_msgs_per_subject": 1,
        });
        ensure_stream(&self.link, wanted, &mut None).await.map_err(|error| {
            self.link.shared.complaints.add(format!("nothing can be revoked: {error}"));
            BrokerError::Unavailable
        })
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
