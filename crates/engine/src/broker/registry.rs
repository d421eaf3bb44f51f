//! Requests about what all nodes store together: revocations of users and tokens.
//!
//! Invariant: of two changes of one subject the later one is stored.

use std::sync::Arc;

use super::reply::{BrokerReply, RequestId};
use super::{BrokerError, BrokerRequest};
use crate::revocation::{Revocation, RevokeOutcome, Subject};

/// A request about revocations.
#[derive(Clone, Debug)]
pub enum RegistryRequest {
    /// Stores a change of what is revoked and notifies all nodes by
    /// [`super::BrokerEvent::Revocation`].
    /// The change is not stored when the stored change of its subject is as late or later.
    /// Idempotent: the stored change itself is answered with [`RevokeOutcome::Stored`] again.
    Revoke {
        /// Repeated in the reply.
        id: RequestId<RevokeOutcome>,
        /// Change to store.
        revocation: Arc<Revocation>,
    },
    /// Reads the stored change of a subject, even if it has expired.
    Find {
        /// Repeated in the reply.
        id: RequestId<Option<Arc<Revocation>>>,
        /// Subject to look up.
        subject: Subject,
    },
    /// Reads all stored changes that have not expired.
    Read {
        /// Repeated in the reply.
        id: RequestId<Vec<Arc<Revocation>>>,
    },
}

impl RegistryRequest {
    pub(super) fn refuse(&self, error: BrokerError) -> BrokerReply {
        match self {
            RegistryRequest::Revoke { id, .. } => id.answer(Err(error)),
            RegistryRequest::Find { id, .. } => id.answer(Err(error)),
            RegistryRequest::Read { id } => id.answer(Err(error)),
        }
    }
}

impl From<RegistryRequest> for BrokerRequest {
    fn from(request: RegistryRequest) -> BrokerRequest {
        BrokerRequest::Registry(request)
    }
}
