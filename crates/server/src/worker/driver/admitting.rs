//! Admission of connections on a worker, from arrival to the accepted connect command.
//!
//! Invariant: an admitted connection counts for the user of its session, whether that user comes
//! from a token, from a reverse proxy, or is anonymous.

use engine::time::Now;
use engine::{CallOutcome, SessionKey};
use wire::protocol::DisconnectCode;

use super::Driver;
use crate::admission::AdmissionRefusal;
use crate::admission::call_place::CallPlace;
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

    /// Handles the result of a call. A connection that exceeds a limit is refused before the
    /// session handles the result.
    pub(super) fn handle_call_result(&mut self, now: Now, place: CallPlace, result: CallOutcome) {
        let admission = self.parts.admission.clone();
        let key = place.key;
        let admitted = match (&result, self.standing(key)) {
            // A token refresh of an admitted connection is not counted again.
            (CallOutcome::Connection(Ok(claims)), Some(ConnectionStanding::Unauthenticated(_))) => {
                Some(admission.admit(&claims.user))
            }
            (
                CallOutcome::Connect(Ok(Some(claims))),
                Some(ConnectionStanding::Unauthenticated(_)),
            ) => Some(admission.admit(&claims.user)),
            _ => None,
        };
        match admitted {
            None => {
                self.apply(now, place, result);
                // A client that the backend does not know may be admitted as an anonymous one.
                self.note_admission(now, key);
            }
            Some(Err(refusal)) => {
                self.apply(now, place, CallOutcome::Close(refusal.into()));
            }
            Some(Ok(permit)) => {
                self.apply(now, place, result);
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

    fn apply(&mut self, now: Now, CallPlace { key, call }: CallPlace, result: CallOutcome) {
        sandbox::run_for(&mut self.engine, now, key, |engine| {
            engine.handle_call_result(now, key, call, result);
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
