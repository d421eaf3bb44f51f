//! Timers as data: what is due, and when the next one is.
//!
//! Invariant: a timer is set at most once; setting it again moves it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Timers of a session, at most one of each kind.
#[derive(Debug)]
pub(super) struct SessionTimers<K> {
    times: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Clone> SessionTimers<K> {
    pub(super) fn new() -> SessionTimers<K> {
        SessionTimers { times: BTreeMap::new(), order: BTreeSet::new() }
    }

    pub(super) fn set(&mut self, key: K, at: Instant) {
        if let Some(before) = self.times.insert(key.clone(), at) {
            self.order.remove(&(before, key.clone()));
        }
        self.order.insert((at, key));
    }

    pub(super) fn clear(&mut self, key: &K) {
        if let Some(at) = self.times.remove(key) {
            self.order.remove(&(at, key.clone()));
        }
    }

    /// Keeps the timers for which this holds.
    pub(super) fn retain(&mut self, holds: impl Fn(&K) -> bool) {
        self.times.retain(|key, _| holds(key));
        self.order.retain(|(_, key)| holds(key));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes a timer out that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.times.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "invented time begins somewhere")]
    fn a_timer_that_is_set_again_moves() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut timers = SessionTimers::new();
        timers.set("a", at(1));
        timers.set("b", at(2));
        timers.set("a", at(3));
        timers.set("c", at(0));
        timers.clear(&"c");
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.take_due(at(1)), None);
        assert_eq!(timers.take_due(at(9)), Some("b"));
        assert_eq!(timers.take_due(at(9)), Some("a"));
        assert_eq!((timers.take_due(at(9)), timers.next()), (None, None));
    }
}
