//! What must hold, and how it is said when it does not.

use std::fmt;

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Oracle {
    /// All see a channel's publications in the broker's order, and as they were published.
    Order,
    /// Nothing comes twice.
    Duplicate,
    /// Nothing is missing without notice.
    Gap,
    /// A recovery is whole or refused, and not refused without need.
    Recovery,
    /// The reply to a subscription precedes its publications, and its end ends them.
    ReplyFirst,
    /// Every command is answered once.
    Answer,
    /// A session ends once, for a cause that there was.
    Close,
    /// Nothing grows beyond its bound.
    Bound,
    /// Presence equals the living.
    Presence,
    /// A client comes online once, and then goes offline once.
    Lifecycle,
    /// Nobody does more than the rates allow, and what is refused is not done.
    Rate,
    /// Lifetimes of tokens are kept.
    Expiry,
    /// When all faults are over, everybody gets everything again.
    Recovered,
    /// When all have left, nothing of them remains.
    Leftover,
    /// No input makes the engine panic.
    Panic,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) oracle: Oracle,
    pub(crate) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.oracle, self.text)
    }
}

impl Oracle {
    pub(crate) fn broken<T>(self, text: impl Into<String>) -> Result<T, Violation> {
        Err(Violation { oracle: self, text: text.into() })
    }

    /// An error with this text unless `holds`.
    pub(crate) fn check(self, holds: bool, text: impl FnOnce() -> String) -> Result<(), Violation> {
        if holds { Ok(()) } else { self.broken(text()) }
    }
}
