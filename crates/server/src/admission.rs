//! Who is let in: connections per node, connections per second, connections per user.
//!
//! Invariant: what a permit counts is given back when it is dropped, whatever became of its connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module. Zero turns a limit off.
#[derive(Debug)]
pub struct Admission {
    connections_max: usize,
    connections: Arc<AtomicUsize>,
    rate: Option<Mutex<TokenBucket>>,
    per_user_max: usize,
    users: Arc<Mutex<HashMap<Box<str>, usize>>>,
}

/// Counts one connection of this node.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<AtomicUsize>);

/// Counts one connection of a user.
#[derive(Debug)]
pub struct UserPermit {
    users: Arc<Mutex<HashMap<Box<str>, usize>>>,
    user: Box<str>,
}

/// Refills continuously, and holds one second's worth.
#[derive(Debug)]
struct TokenBucket {
    per_second: u64,
    /// Thousandths of a token.
    milli_tokens: u64,
    filled_at_ms: u64,
}

impl Admission {
    /// Limits as configured (`client.connection_limit`, `client.connection_rate_limit`,
    /// `client.user_connection_limit`).
    #[must_use]
    pub fn new(connections_max: usize, per_second: u64, per_user_max: usize) -> Admission {
        let bucket = TokenBucket { per_second, milli_tokens: per_second * 1000, filled_at_ms: 0 };
        Admission {
            connections_max,
            connections: Arc::default(),
            rate: (per_second > 0).then(|| Mutex::new(bucket)),
            per_user_max,
            users: Arc::default(),
        }
    }

    /// Lets a connection in; `None` when the node is full or too many come at once (503).
    #[must_use]
    pub fn connection(&self, now_ms: u64) -> Option<ConnectionPermit> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let permit = ConnectionPermit(self.connections.clone());
        if self.connections_max > 0 && before >= self.connections_max {
            return None;
        }
        let is_in_time = self
            .rate
            .as_ref()
            .is_none_or(|rate| rate.lock().unwrap_or_else(PoisonError::into_inner).take(now_ms));
        is_in_time.then_some(permit)
    }

    /// Lets one more connection of a user in; an error when the user has too many (3504). Anonymous users are not
    /// counted.
    pub(crate) fn user(&self, user: &str) -> Result<Option<UserPermit>, TooManyConnections> {
        if self.per_user_max == 0 || user.is_empty() {
            return Ok(None);
        }
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(user.into()).or_default();
        if *count >= self.per_user_max {
            return Err(TooManyConnections);
        }
        *count += 1;
        Ok(Some(UserPermit { users: self.users.clone(), user: user.into() }))
    }
}

/// A user has as many connections as allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyConnections;

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

    #[test]
    fn a_node_takes_as_many_as_it_may_and_places_come_back() {
        let admission = Admission::new(2, 0, 0);
        let one = admission.connection(0);
        let two = admission.connection(0);
        assert!(one.is_some() && two.is_some() && admission.connection(0).is_none());
        drop(one);
        assert!(admission.connection(0).is_some());
    }

    #[test]
    fn the_rate_is_a_real_number_per_second() {
        let admission = Admission::new(0, 10, 0);
        let accepted = |from: u64, to: u64| {
            (from..to).filter(|now_ms| admission.connection(*now_ms).is_some()).count()
        };
        assert_eq!(accepted(0, 1), 1);
        // A second's worth at once, then ten a second.
        assert_eq!(accepted(1, 1000), 9 + 9);
        assert_eq!(accepted(1000, 6000), 50);
    }

    #[test]
    fn a_user_has_so_many_and_anonymous_users_are_not_counted() {
        let admission = Admission::new(0, 0, 1);
        let first = admission.user("ann").unwrap();
        assert!(first.is_some());
        assert_eq!(admission.user("ann").map(|_| ()), Err(TooManyConnections));
        assert!(admission.user("bob").is_ok() && admission.user("").unwrap().is_none());
        drop(first);
        assert!(admission.user("ann").is_ok());
    }
}
