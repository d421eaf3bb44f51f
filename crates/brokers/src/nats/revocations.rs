//! Revocations: one message for each revoked subject, in a stream of its own.
//!
//! Invariant: of two changes of a subject the later one is kept, even if two nodes store at once,
//! and NATS has the notice to all nodes before a change is reported as stored. A node without
//! JetStream refuses to revoke, and reads no revocations at start.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::broker::BrokerError;
use engine::revocation::{Revocation, RevokeOutcome, Subject};
use serde_json::json;

use super::link::NatsLink;
use super::stored_message::{Ack, StoredMessage};
use super::subject::token;
use crate::control::{decode_revocation, encode_revocation, subject_key};
use crate::limits::{REVOCATION_CONFLICTS_MAX, REVOCATIONS_FORGOTTEN_MAX};

/// See the module.
pub(super) struct RevocationStore {
    link: Rc<NatsLink>,
}

impl RevocationStore {
    pub(super) fn new(link: Rc<NatsLink>) -> RevocationStore {
        RevocationStore { link }
    }

    /// Stores a change and notifies all nodes.
    pub(super) async fn revoke(
        &self,
        revocation: &Revocation,
    ) -> Result<RevokeOutcome, BrokerError> {
        if revocation.ends_at <= now_s() {
            return Ok(RevokeOutcome::Expired);
        }
        if !self.link.has_jetstream {
            return Err(BrokerError::NotSupported);
        }
        let payload = encode_revocation(revocation);
        let outcome = self.store(revocation, &payload).await?;
        if outcome == RevokeOutcome::Stored {
            // Also if it was stored before: the notice of that attempt may be lost.
            self.link.publish(self.link.names.control(), payload.into()).await?;
            // After a lost connection other nodes miss the notice: the caller must retry.
            self.link.echo().await?;
        }
        Ok(outcome)
    }

    /// Stores a change unless one of the same subject with the same or a later time is stored.
    async fn store(
        &self,
        revocation: &Revocation,
        payload: &[u8],
    ) -> Result<RevokeOutcome, BrokerError> {
        let names = &self.link.names;
        let (stream, subject) = (
            names.revocation_stream(),
            names.revocation(&token(&subject_key(&revocation.subject))),
        );
        for _ in 0..REVOCATION_CONFLICTS_MAX {
            let newest = self.link.newest(&stream, &subject).await?;
            let known = newest.as_ref().and_then(|stored| decode_revocation(&stored.payload));
            match known {
                Some(known) if known == *revocation => return Ok(RevokeOutcome::Stored),
                Some(known) if known.changed_at_ms >= revocation.changed_at_ms => {
                    return Ok(RevokeOutcome::Superseded(Arc::new(known)));
                }
                _ => {}
            }
            let after = newest.map_or(0, |stored| stored.sequence);
            let payload = payload.to_vec().into();
            match self.link.store(&subject, Some(after), "", payload).await? {
                Ack::Stored(_) | Ack::Duplicate(_) => return Ok(RevokeOutcome::Stored),
                Ack::Conflict => {}
            }
        }
        Err(BrokerError::Unavailable)
    }

    /// Reads the stored change of a subject.
    pub(super) async fn find(
        &self,
        subject: &Subject,
    ) -> Result<Option<Arc<Revocation>>, BrokerError> {
        if !self.link.has_jetstream {
            return Ok(None);
        }
        let names = &self.link.names;
        let subject = names.revocation(&token(&subject_key(subject)));
        let newest = self.link.newest(&names.revocation_stream(), &subject).await?;
        let found = newest.and_then(|stored| decode_revocation(&stored.payload));
        Ok(found.map(Arc::new))
    }

    /// Reads all changes that have not expired, and removes some of the expired ones.
    pub(super) async fn read(&self) -> Result<Vec<Arc<Revocation>>, BrokerError> {
        if !self.link.has_jetstream {
            return Ok(Vec::new());
        }
        let names = &self.link.names;
        let stored = self.link.range(&names.revocation_stream(), &names.revocation("*")).await?;
        let now_s = now_s();
        let (mut found, mut expired): (Vec<Arc<Revocation>>, Vec<&StoredMessage>) =
            Default::default();
        for message in &stored {
            match decode_revocation(&message.payload) {
                Some(change) if change.ends_at > now_s => found.push(Arc::new(change)),
                Some(_) => expired.push(message),
                None => {}
            }
        }
        for message in expired.into_iter().take(REVOCATIONS_FORGOTTEN_MAX) {
            let stream = names.revocation_stream();
            let number = json!({ "seq": message.sequence });
            // On failure the next read tries again.
            let _later = self.link.api(&format!("STREAM.MSG.DELETE.{stream}"), &number).await;
        }
        Ok(found)
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
