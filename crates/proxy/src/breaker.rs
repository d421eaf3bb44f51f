//! The circuit breaker of a backend, as a state machine without clock.
//!
//! ```text
//!            too many failures or slow calls             open_ms are over
//!   closed ────────────────────────────────────► open ────────────────────► half-open
//!      ▲                                          ▲                             │
//!      │                                          └──── a probe fails ──────────┤
//!      └──────────────────────────── all probes succeed ────────────────────────┘
//! ```
//!
//! Invariant: while it is open no call passes; while it is half-open at most `probes` calls are
//! under way. A call that began before a change of state has no effect after it.

use crate::limits::WINDOW_SLOTS;

/// When a breaker opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Percentage of failed calls in the window at which it opens; above 100 for never.
    pub error_percent: u32,
    /// Milliseconds from which a call counts as slow.
    pub slow_call_ms: u64,
    /// Percentage of slow calls in the window at which it opens; above 100 for never.
    pub slow_percent: u32,
    /// Milliseconds for which a call counts.
    pub window_ms: u64,
    /// Number of calls in the window below which it does not open.
    pub calls_min: u32,
    /// Milliseconds for which it is open.
    pub open_ms: u64,
    /// Number of calls that test the backend after that.
    pub probes: u32,
}

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// No call passes.
    Open,
    /// A few calls test whether the backend works.
    HalfOpen,
}

impl BreakerState {
    /// Its name in log and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }
}

/// Permission for one call. It must be given back by [`Breaker::finish`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct BreakerPass {
    generation: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// With an answer.
    Answered {
        /// Milliseconds that it took.
        took_ms: u64,
    },
    /// With a failure of the backend.
    Failed {
        /// Milliseconds that it took.
        took_ms: u64,
    },
    /// In a way that says nothing about the backend.
    Unknown,
}

/// A circuit breaker.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    phase: Phase,
    window: Window,
    /// Number of changes of state.
    generation: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until_ms: u64 },
    HalfOpen { running: u32, succeeded: u32 },
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Breaker {
        let window = Window::new(settings.window_ms);
        Breaker { settings, phase: Phase::Closed, window, generation: 0 }
    }

    /// Its state. An open one stays open until a call asks to pass.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether a call would be refused now.
    #[must_use]
    pub fn refuses(&self, now_ms: u64) -> bool {
        match self.phase {
            Phase::Closed => false,
            Phase::Open { until_ms } => now_ms < until_ms,
            Phase::HalfOpen { running, succeeded } => running + succeeded >= self.probes(),
        }
    }

    /// Lets a call pass, or refuses it.
    pub fn admit(&mut self, now_ms: u64) -> Option<BreakerPass> {
        if self.refuses(now_ms) {
            return None;
        }
        if let Phase::Open { .. } = self.phase {
            self.change(Phase::HalfOpen { running: 0, succeeded: 0 });
        }
        if let Phase::HalfOpen { running, .. } = &mut self.phase {
            *running += 1;
        }
        Some(BreakerPass { generation: self.generation })
    }

    /// Takes the result of a call.
    #[expect(clippy::needless_pass_by_value, reason = "a pass is valid once")]
    pub fn finish(&mut self, now_ms: u64, pass: BreakerPass, end: CallEnd) {
        if pass.generation != self.generation {
            return;
        }
        match self.phase {
            Phase::Closed => {
                self.window.count(now_ms, self.call_of(end));
                if self.is_over(now_ms) {
                    self.open(now_ms);
                }
            }
            // No call of this generation has passed.
            Phase::Open { .. } => {}
            Phase::HalfOpen { running, succeeded } => match self.call_of(end) {
                None => self.phase = Phase::HalfOpen { running: running - 1, succeeded },
                Some(CountedCall { failed: 0, slow: 0, .. }) => {
                    let (running, succeeded) = (running - 1, succeeded + 1);
                    self.phase = Phase::HalfOpen { running, succeeded };
                    if succeeded >= self.probes() {
                        self.change(Phase::Closed);
                    }
                }
                Some(_) => self.open(now_ms),
            },
        }
    }

    fn probes(&self) -> u32 {
        self.settings.probes.max(1)
    }

    fn open(&mut self, now_ms: u64) {
        self.change(Phase::Open { until_ms: now_ms.saturating_add(self.settings.open_ms) });
    }

    fn change(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
        self.window = Window::new(self.settings.window_ms);
    }

    /// A slow call counts only where slow calls are limited.
    fn call_of(&self, end: CallEnd) -> Option<CountedCall> {
        let is_slow = |took_ms| {
            u32::from(self.settings.slow_percent <= 100 && took_ms >= self.settings.slow_call_ms)
        };
        match end {
            CallEnd::Unknown => None,
            CallEnd::Answered { took_ms } => {
                Some(CountedCall { calls: 1, failed: 0, slow: is_slow(took_ms) })
            }
            CallEnd::Failed { took_ms } => {
                let failed = u32::from(self.settings.error_percent <= 100);
                Some(CountedCall { calls: 1, failed, slow: is_slow(took_ms) })
            }
        }
    }

    fn is_over(&self, now_ms: u64) -> bool {
        let total = self.window.total(now_ms);
        let reaches = |count: u32, percent: u32| {
            percent <= 100
                && count > 0
                && u64::from(count) * 100 >= u64::from(total.calls) * u64::from(percent)
        };
        total.calls >= self.settings.calls_min
            && (reaches(total.failed, self.settings.error_percent)
                || reaches(total.slow, self.settings.slow_percent))
    }
}

/// Numbers of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CountedCall {
    calls: u32,
    failed: u32,
    slow: u32,
}

impl CountedCall {
    fn add(&mut self, other: CountedCall) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failed = self.failed.saturating_add(other.failed);
        self.slow = self.slow.saturating_add(other.slow);
    }
}

/// Calls of the last time, by tenths of the window.
#[derive(Debug)]
struct Window {
    slot_ms: u64,
    slots: [CountedCall; WINDOW_SLOTS],
    /// Number of the newest slot since the start of time.
    newest: u64,
}

impl Window {
    fn new(window_ms: u64) -> Window {
        let slot_ms = (window_ms / WINDOW_SLOTS as u64).max(1);
        Window { slot_ms, slots: [CountedCall::default(); WINDOW_SLOTS], newest: 0 }
    }

    fn count(&mut self, now_ms: u64, call: Option<CountedCall>) {
        let Some(call) = call else { return };
        let now = (now_ms / self.slot_ms).max(self.newest);
        // Slots between the newest and now are empty.
        for slot in (self.newest + 1..=now).rev().take(WINDOW_SLOTS) {
            self.slots[Self::index(slot)] = CountedCall::default();
        }
        self.newest = now;
        self.slots[Self::index(now)].add(call);
    }

    fn total(&self, now_ms: u64) -> CountedCall {
        let now = (now_ms / self.slot_ms).max(self.newest);
        let mut total = CountedCall::default();
        let oldest = now.saturating_sub(WINDOW_SLOTS as u64 - 1);
        for slot in oldest..=self.newest {
            total.add(self.slots[Self::index(slot)]);
        }
        total
    }

    fn index(slot: u64) -> usize {
        usize::try_from(slot % WINDOW_SLOTS as u64).expect("below the number of slots")
    }
}

#[cfg(test)]
mod tests;
