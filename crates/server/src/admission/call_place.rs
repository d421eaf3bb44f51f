//! Where the result of a call goes.
//!
//! Invariant: it names one call of one session of the worker that has made it.

use engine::{SessionCallId, SessionKey};

/// The call whose result is awaited, and its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallPlace {
    /// Session that waits.
    pub key: SessionKey,
    /// Call of the session.
    pub call: SessionCallId,
}
