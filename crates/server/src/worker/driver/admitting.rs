//! From a connection that waits to be authenticated to one that is admitted.
//!
//! Invariant: whoever is admitted counts under the user that the session has, however that was
//! established: by a token, by a reverse proxy, or as anonymous.

use engine::SessionKey;
use engine::time::Now;
use engine::worker::Verdict;
use wire::protocol::DisconnectCode;

use super::Driver;
use crate::admission::AdmissionRefusal;
use crate::worker::connection::ConnectionStanding;
use crate::worker::sandbox;

impl Driver {
    /// A connection has arrived, unless it has had to make room on the way.
    pub(super) fn assign(&mut self, now: Now, key: SessionKey) {
        let inbox = self.inbox.clone();
        if let Some(ConnectionStanding::Unauthenticated(waiting)) = self.standing(key)
            && !waiting.assign(&inbox, key)
        {
            self.make_room(now, key);
        }
    }

    /// Another connection needs this one's slot; it may come back.
    pub(super) fn make_room(&mut self, now: Now, key: SessionKey) {
        if let Some(ConnectionStanding::Unauthenticated(_)) = self.standing(key) {
            self.close_session(now, key, DisconnectCode::ForceReconnect);
            self.handle_effects();
            // Its slot is taken already, so its socket does not wait for the peer's close frame.
            self.remove(key, DisconnectCode::ForceReconnect.number());
        }
    }

    /// So many bytes were received, and the connection may keep them for a message that is not
    /// whole or for a token that is being verified. Once it is admitted its user answers for what
    /// it holds.
    pub(super) fn hold_unauthenticated(&mut self, key: SessionKey, count: usize) {
        if let Some(ConnectionStanding::Unauthenticated(waiting)) = self.standing(key) {
            waiting.hold_bytes(count);
        }
    }

    /// A token was verified. Who is one too many is refused before the session is told.
    pub(super) fn handle_verdict(&mut self, now: Now, key: SessionKey, verdict: Verdict) {
        let admission = self.parts.admission.clone();
        let admitted = match (&verdict, self.standing(key)) {
            // A refresh of an admitted connection is not one more connection.
            (Verdict::Connection(Ok(claims)), Some(ConnectionStanding::Unauthenticated(_))) => {
                Some(admission.admit(&claims.user))
            }
            _ => None,
        };
        match admitted {
            None => self.handle_verdict_of(now, key, verdict),
            Some(Err(refusal)) => {
                self.handle_verdict_of(now, key, Verdict::Close(refusal.into()));
            }
            Some(Ok(permit)) => {
                self.handle_verdict_of(now, key, verdict);
                // The session may have a reason of its own to refuse.
                if self.is_admitted(key)
                    && let Some(standing) = self.standing(key)
                {
                    *standing = ConnectionStanding::Admitted { _permit: permit };
                }
            }
        }
    }

    /// A message may have admitted its session without a token. Who is one too many is closed
    /// before the reply is written.
    pub(super) fn note_admission(&mut self, now: Now, key: SessionKey) {
        if !matches!(self.standing(key), Some(ConnectionStanding::Unauthenticated(_))) {
            return;
        }
        let identity = self.engine.identity(key).filter(|identity| !identity.client.is_empty());
        let Some(identity) = identity else { return };
        match self.parts.admission.admit(identity.user) {
            Ok(permit) => {
                if let Some(standing) = self.standing(key) {
                    *standing = ConnectionStanding::Admitted { _permit: permit };
                }
            }
            Err(refusal) => {
                if let Some(outbox) = self.engine.outbox(key) {
                    outbox.drop_unbegun();
                }
                self.close_session(now, key, refusal.into());
            }
        }
    }

    fn handle_verdict_of(&mut self, now: Now, key: SessionKey, verdict: Verdict) {
        sandbox::run_for(&mut self.engine, now, key, |engine| {
            engine.handle_verdict(now, key, verdict);
        });
    }

    fn standing(&mut self, key: SessionKey) -> Option<&mut ConnectionStanding> {
        self.connection(key).map(|connection| &mut connection.standing)
    }

    fn is_admitted(&self, key: SessionKey) -> bool {
        self.engine.identity(key).is_some_and(|identity| !identity.client.is_empty())
    }
}

impl From<AdmissionRefusal> for DisconnectCode {
    fn from(refusal: AdmissionRefusal) -> DisconnectCode {
        match refusal {
            // Another node, or this one later, may have room.
            AdmissionRefusal::NodeFull => DisconnectCode::ForceReconnect,
            AdmissionRefusal::UserFull => DisconnectCode::ConnectionLimit,
        }
    }
}
