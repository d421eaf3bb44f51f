//! The scripts: what Redis does in one step. Loaded when a connection begins and called by their digests.
//!
//! Invariant: no data of users is ever part of a script's text.

use bytes::Bytes;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Publish,
    Read,
    Clear,
    Enter,
    Leave,
    Present,
    Count,
}

/// All of them, in the order in which they are loaded.
pub(super) const ALL: [Script; 7] = [
    Script::Publish,
    Script::Read,
    Script::Clear,
    Script::Enter,
    Script::Leave,
    Script::Present,
    Script::Count,
];

/// Digests as Redis says them, in the order of [`ALL`].
pub(super) type Digests = [Bytes; ALL.len()];

macro_rules! with_presence {
    ($file:literal) => {
        concat!(include_str!("scripts/presence.lua"), include_str!($file))
    };
}

impl Script {
    pub(super) fn text(self) -> &'static str {
        match self {
            Script::Publish => include_str!("scripts/publish.lua"),
            Script::Read => include_str!("scripts/read.lua"),
            Script::Clear => include_str!("scripts/clear.lua"),
            Script::Enter => with_presence!("scripts/enter.lua"),
            Script::Leave => with_presence!("scripts/leave.lua"),
            Script::Present => with_presence!("scripts/present.lua"),
            Script::Count => with_presence!("scripts/count.lua"),
        }
    }
}
