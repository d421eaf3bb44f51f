//! Admission of connections: handshakes per second, unauthenticated connections, admitted
//! connections of the node and of each user.
//!
//! Invariant: a permit releases its count when it is dropped, however its connection ended. Only
//! admitted connections count towards `client.connection_limit` and `client.user_connection_limit`.

pub mod call_place;
pub mod revoked;
pub mod token_result;
pub mod unauthenticated;
pub mod verification;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::admission::unauthenticated::{Unauthenticated, Waiting};
use crate::client_address::ClientAddress;

/// Counts connections against the configured limits.
pub struct Admission {
    connections_max: usize,
    connections: Arc<AtomicUsize>,
    rate: Option<Mutex<TokenBucket>>,
    per_user_max: usize,
    users: Arc<Mutex<HashMap<Box<str>, usize>>>,
    waiting: Waiting,
}

/// Configured limits; 0 disables a limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmissionLimits {
    /// `client.connection_limit`
    pub connections_max: usize,
    /// `client.unauthenticated_connection_limit`: connections of this node that are not admitted
    /// yet.
    pub unauthenticated_max: usize,
    /// `websocket.message_size_limit` in bytes.
    pub message_size_max: usize,
    /// `client.connection_rate_limit`: accepted handshakes per second.
    pub handshakes_per_second: u64,
    /// `client.user_connection_limit`
    pub per_user_max: usize,
}

/// Permit of one admitted connection; it counts for the node and for the user.
#[derive(Debug)]
pub(crate) struct Admitted {
    _of_node: ConnectionPermit,
    _of_user: Option<UserPermit>,
}

/// Limit that a connection exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdmissionRefusal {
    /// `client.connection_limit` is reached.
    NodeFull,
    /// `client.user_connection_limit` is reached.
    UserFull,
}

#[derive(Debug)]
struct ConnectionPermit(Arc<AtomicUsize>);

#[derive(Debug)]
struct UserPermit {
    users: Arc<Mutex<HashMap<Box<str>, usize>>>,
    user: Box<str>,
}

/// Token bucket that refills continuously and holds the tokens of one second.
#[derive(Debug)]
struct TokenBucket {
    per_second: u64,
    /// Thousandths of a token.
    milli_tokens: u64,
    filled_at_ms: u64,
}

impl Admission {
    /// Starts with no connections.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Admission {
        let per_second = limits.handshakes_per_second;
        let bucket = TokenBucket { per_second, milli_tokens: per_second * 1000, filled_at_ms: 0 };
        let unauthenticated_max = match limits.unauthenticated_max {
            0 => usize::MAX,
            most => most,
        };
        Admission {
            connections_max: limits.connections_max,
            connections: Arc::default(),
            rate: (per_second > 0).then(|| Mutex::new(bucket)),
            per_user_max: limits.per_user_max,
            users: Arc::default(),
            waiting: Waiting::new(unauthenticated_max, limits.message_size_max),
        }
    }

    /// Accepts a handshake. Returns `None` if the node is full or the rate is exceeded (status
    /// 503).
    pub(crate) fn handshake(&self, now_ms: u64, address: ClientAddress) -> Option<Unauthenticated> {
        let is_full = self.connections_max > 0
            && self.connections.load(Ordering::Relaxed) >= self.connections_max;
        let rate = self.rate.as_ref();
        let is_in_time = || {
            rate.is_none_or(|rate| rate.lock().unwrap_or_else(PoisonError::into_inner).take(now_ms))
        };
        if is_full || !is_in_time() { None } else { self.waiting.take(address) }
    }

    /// Admits one more connection of a user.
    pub(crate) fn admit(&self, user: &str) -> Result<Admitted, AdmissionRefusal> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let of_node = ConnectionPermit(self.connections.clone());
        if self.connections_max > 0 && before >= self.connections_max {
            return Err(AdmissionRefusal::NodeFull);
        }
        Ok(Admitted { _of_node: of_node, _of_user: self.user(user)? })
    }

    /// Counts a connection of a user; anonymous users are not counted.
    fn user(&self, user: &str) -> Result<Option<UserPermit>, AdmissionRefusal> {
        if self.per_user_max == 0 || user.is_empty() {
            return Ok(None);
        }
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(user.into()).or_default();
        if *count >= self.per_user_max {
            return Err(AdmissionRefusal::UserFull);
        }
        *count += 1;
        Ok(Some(UserPermit { users: self.users.clone(), user: user.into() }))
    }
}

impl TokenBucket {
    fn take(&mut self, now_ms: u64) -> bool {
        let passed_ms = now_ms.saturating_sub(self.filled_at_ms);
        self.filled_at_ms = now_ms;
        let refilled = self.milli_tokens.saturating_add(passed_ms.saturating_mul(self.per_second));
        self.milli_tokens = refilled.min(self.per_second * 1000);
        let has_token = self.milli_tokens >= 1000;
        if has_token {
            self.milli_tokens -= 1000;
        }
        has_token
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for UserPermit {
    fn drop(&mut self) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(limits: AdmissionLimits) -> Admission {
        Admission::new(limits)
    }

    #[test]
    fn a_node_admits_as_many_as_it_may_and_places_come_back() {
        let admission =
            admission(AdmissionLimits { connections_max: 2, ..AdmissionLimits::default() });
        let one = admission.admit("");
        let two = admission.admit("");
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(admission.admit("").map(drop), Err(AdmissionRefusal::NodeFull));
        assert!(admission.handshake(0, ClientAddress::Unix).is_none());
        drop(one);
        let silent = admission.handshake(0, ClientAddress::Unix);
        assert!(silent.is_some());
        assert!(admission.admit("").is_ok(), "a connection that is not admitted does not count");
    }

    #[test]
    fn handshakes_are_limited_per_second() {
        let limits = AdmissionLimits { handshakes_per_second: 10, ..AdmissionLimits::default() };
        let admission = admission(limits);
        let accepted = |from: u64, to: u64| {
            let is_let_in =
                |now_ms: &u64| admission.handshake(*now_ms, ClientAddress::Unix).is_some();
            (from..to).filter(is_let_in).count()
        };
        assert_eq!(accepted(0, 1), 1);
        // The tokens of one second at once, then ten a second.
        assert_eq!(accepted(1, 1000), 9 + 9);
        assert_eq!(accepted(1000, 6000), 50);
    }

    #[test]
    fn connections_of_a_user_are_limited_and_anonymous_users_are_not_counted() {
        let admission =
            admission(AdmissionLimits { per_user_max: 1, ..AdmissionLimits::default() });
        let first = admission.admit("ann");
        assert!(first.is_ok());
        assert_eq!(admission.admit("ann").map(drop), Err(AdmissionRefusal::UserFull));
        assert!(admission.admit("bob").is_ok() && admission.admit("").is_ok());
        assert!(admission.admit("").is_ok());
        drop(first);
        assert!(admission.admit("ann").is_ok());
    }
}
