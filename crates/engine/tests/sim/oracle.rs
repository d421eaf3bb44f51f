//! The oracles: guarantees to check, and how a violation is reported.

use std::fmt;

/// A guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Oracle {
    /// All subscribers receive a channel's publications in the broker's order, unchanged.
    Order,
    /// No publication is received twice.
    Duplicate,
    /// No publication is missing without notice.
    Gap,
    /// A recovery is complete or refused, and refused only if it must be.
    Recovery,
    /// The reply to a subscribe precedes the publications, and none follow its end.
    ReplyFirst,
    /// Every command is answered once.
    Answer,
    /// A session closes once, for an existing cause.
    Close,
    /// Nothing exceeds its limit.
    Bound,
    /// Presence equals the connected clients.
    Presence,
    /// A client has one online event, then one offline event.
    Lifecycle,
    /// Reported events of clients and subscriptions come in pairs, in order.
    Reported,
    /// No client exceeds the rates, and refused commands have no effect.
    Rate,
    /// Expiry of tokens is enforced.
    Expiry,
    /// After all faults are repaired, every client receives everything again.
    Recovered,
    /// After all clients have left, no state remains.
    Leftover,
    /// No input makes the engine panic.
    Panic,
}

/// A violated guarantee.
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

    /// Returns a violation with this text unless `holds`.
    pub(crate) fn check(self, holds: bool, text: impl FnOnce() -> String) -> Result<(), Violation> {
        if holds { Ok(()) } else { self.broken(text()) }
    }
}
