//! Admission of connections on a worker, from arrival to the accepted connect command.
//!
//! Invariant: an admitted connection counts for the user of its session, whether that user comes
//! from a token, from a reverse proxy, or is anonymous.

use engine::SessionKey;
use engine::time::Now;
use engine::worker::Verdict;
use wire::protocol::DisconnectCode;

use super::Driver;
use crate::admission::AdmissionRefusal;
use crate::worker::connection::ConnectionStanding;
use crate::worker::sandbox;

impl Driver {
    /// Registers a connection that has arrived, or closes it if it was evicted on the way.
    pub(super) fn assign(&mut self, now: Now, key: SessionKey) {
        let inbox = self.inbox.clone();
        if let Some(ConnectionStanding::Unauthenticated(waiting)) = self.standing(key)
            && !waiting.assign(&inbox, key)
        {
            self.make_room(now, key);
        }
    }

    /// Closes a connection that is not authenticated, to free its slot. The client may reconnect.
    pub(super) fn make_room(&mut self, now: Now, key: SessionKey) {
        if let Some(ConnectionStanding::Unauthenticated(_)) = self.standing(key) {
            self.close_session(now, key, DisconnectCode::ForceReconnect);
            self.handle_effects();
            // The slot is already in use again, so the socket does not wait for the peer's close
            // frame.
            self.remove(key, DisconnectCode::ForceReconnect.number());
        }
    }

    /// Accounts a message of `count` bytes, which the session may hold while a token is verified.
    /// Admitted connections are not accounted.
    pub(super) fn hold_message(&mut self, key: SessionKey, count: usize) {
        if let Some(ConnectionStanding::Unauthenticated(waiting)) = self.standing(key) {
            waiting.hold_message(count);
        }
    }

    /// Accounts the bytes that the decoder stores for an unfinished message. Control frames leave
    /// none, and cost nothing.
    pub(super) fn hold_unfinished(&mut self, key: SessionKey, count: usize) {
        if let Some(ConnectionStanding::Unauthenticated(waiting)) = self.standing(key) {
            waiting.hold_unfinished(count);
        }
    }

    /// Handles a verdict on a token. A connection that exceeds a limit is refused before the
    /// session handles the verdict.
    pub(super) fn handle_verdict(&mut self, now: Now, key: SessionKey, verdict: Verdict) {
        let admission = self.parts.admission.clone();
        let admitted = match (&verdict, self.standing(key)) {
            // A token refresh of an admitted connection is not counted again.
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
                // The session may refuse for another reason.
                if self.is_admitted(key)
                    && let Some(standing) = self.standing(key)
                {
                    *standing = ConnectionStanding::Admitted { _permit: permit };
                }
            }
        }
    }

    /// Counts a session that a message has admitted without a token. A connection that exceeds a
    /// limit is closed before the reply is written.
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
            // Another node may have room, or this one later.
            AdmissionRefusal::NodeFull => DisconnectCode::ForceReconnect,
            AdmissionRefusal::UserFull => DisconnectCode::ConnectionLimit,
        }
    }
}
