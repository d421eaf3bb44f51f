//! The effect of a revocation on the sessions of a worker.
//!
//! Invariant: a revocation of a user visits that user's sessions only; others visit all sessions.

use wire::protocol::DisconnectCode;

use super::Worker;
use crate::revocation::{Revocation, Subject};
use crate::session::Session;
use crate::session_key::SessionKey;
use crate::time::Now;

impl Worker {
    /// Closes the sessions of a revocation's subject (3500), including those that a reverse proxy
    /// has authenticated.
    pub fn revoke(&mut self, now: Now, revocation: &Revocation) {
        let is_meant =
            |session: &Session| session.holder().is_some_and(|holder| revocation.is_about(holder));
        let meant = |session: &Session| is_meant(session).then_some(session.key);
        let keys: Vec<SessionKey> = match &revocation.subject {
            Subject::User(user) | Subject::IssuedTo(user) => {
                let slots = self.users.slots(user);
                let of_user = slots.filter_map(|slot| self.sessions.get(slot as usize));
                let all = self.sessions.iter().map(|(_, session)| session);
                let proxy_authenticated = all.filter(|session| session.is_proxy_authenticated());
                of_user.chain(proxy_authenticated).filter_map(|session| meant(session)).collect()
            }
            Subject::Token(_) | Subject::IssuedToAll => {
                self.sessions.iter().filter_map(|(_, session)| meant(session)).collect()
            }
        };
        for key in keys {
            self.close(now, key, DisconnectCode::InvalidToken);
        }
    }
}
