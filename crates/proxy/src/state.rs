//! What all calls to one backend share: breaker, pause, kept answers, counts. Pure; time is an
//! argument.
//!
//! Invariant: a change of the breaker's state is reported once.

use std::time::Duration;

use crate::answers::KeptAnswers;
use crate::breaker::{Breaker, BreakerPass, BreakerSettings, BreakerState, CallEnd};
use crate::limits::RETRY_AFTER_MAX;
use crate::log_throttle::LogThrottle;
use crate::stats::CallCounts;

#[derive(Debug)]
pub(crate) struct BackendState {
    breaker: Breaker,
    pub(crate) answers: KeptAnswers,
    pub(crate) counts: CallCounts,
    pub(crate) log: LogThrottle,
    /// The backend wants no calls before this time.
    paused_until_ms: u64,
    opened: u64,
    in_flight: u64,
}

/// Why a call may not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Open,
    Paused,
}

/// A change of the breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateChange {
    pub(crate) from: BreakerState,
    pub(crate) to: BreakerState,
}

impl BackendState {
    pub(crate) fn new(settings: BreakerSettings) -> BackendState {
        BackendState {
            breaker: Breaker::new(settings),
            answers: KeptAnswers::default(),
            counts: CallCounts::default(),
            log: LogThrottle::default(),
            paused_until_ms: 0,
            opened: 0,
            in_flight: 0,
        }
    }

    /// Whether a call would be refused now.
    pub(crate) fn check(&self, now_ms: u64) -> Result<(), Refused> {
        if self.breaker.refuses(now_ms) {
            return Err(Refused::Open);
        }
        if now_ms < self.paused_until_ms { Err(Refused::Paused) } else { Ok(()) }
    }

    /// Begins an attempt.
    pub(crate) fn begin(
        &mut self,
        now_ms: u64,
    ) -> Result<(BreakerPass, Option<StateChange>), Refused> {
        self.check(now_ms)?;
        let from = self.breaker.state();
        let pass = self.breaker.admit(now_ms).ok_or(Refused::Open)?;
        self.in_flight += 1;
        Ok((pass, self.change_since(from)))
    }

    /// Ends an attempt.
    pub(crate) fn end(
        &mut self,
        now_ms: u64,
        pass: BreakerPass,
        end: CallEnd,
    ) -> Option<StateChange> {
        self.in_flight -= 1;
        let from = self.breaker.state();
        self.breaker.finish(now_ms, pass, end);
        self.change_since(from)
    }

    /// Calls nothing for a time that the backend named.
    pub(crate) fn pause(&mut self, now_ms: u64, retry_after: Duration) {
        let pause = retry_after.min(RETRY_AFTER_MAX).as_millis();
        let until_ms = now_ms.saturating_add(u64::try_from(pause).unwrap_or(u64::MAX));
        self.paused_until_ms = self.paused_until_ms.max(until_ms);
    }

    pub(crate) fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }

    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    fn change_since(&mut self, from: BreakerState) -> Option<StateChange> {
        let to = self.breaker.state();
        self.opened += u64::from(from != to && to == BreakerState::Open);
        (from != to).then_some(StateChange { from, to })
    }
}
