//! The Lua scripts: operations that Redis executes atomically. Loaded when a connection is opened
//! and called by digest.
//!
//! Invariant: user data is never part of a script's text.

use bytes::Bytes;

/// A script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Publish,
    Read,
    Clear,
    Enter,
    Leave,
    Present,
    Count,
    Evict,
    Lease,
    Lifecycle,
    CleanUp,
    Order,
    Survey,
    ChannelTtl,
    End,
    Probe,
    Revoke,
}

/// All scripts, in the order in which they are loaded.
pub(super) const ALL: [Script; 17] = [
    Script::Publish,
    Script::Read,
    Script::Clear,
    Script::Enter,
    Script::Leave,
    Script::Present,
    Script::Count,
    Script::Evict,
    Script::Lease,
    Script::Lifecycle,
    Script::CleanUp,
    Script::Order,
    Script::Survey,
    Script::ChannelTtl,
    Script::End,
    Script::Probe,
    Script::Revoke,
];

/// Digests returned by SCRIPT LOAD, in the order of [`ALL`].
pub(super) type Digests = [Bytes; ALL.len()];

macro_rules! with_presence {
    ($file:literal) => {
        concat!(include_str!("scripts/presence.lua"), include_str!($file))
    };
}

macro_rules! with_registry {
    ($file:literal) => {
        concat!(include_str!("scripts/registry.lua"), include_str!($file))
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
            Script::Evict => with_presence!("scripts/evict.lua"),
            Script::Lease => with_registry!("scripts/lease.lua"),
            Script::Lifecycle => with_registry!("scripts/lifecycle.lua"),
            Script::CleanUp => with_registry!("scripts/clean_up.lua"),
            Script::Order => with_registry!("scripts/order.lua"),
            Script::Survey => with_registry!("scripts/survey.lua"),
            Script::ChannelTtl => include_str!("scripts/channel_ttl.lua"),
            Script::End => include_str!("scripts/end.lua"),
            Script::Probe => include_str!("scripts/probe.lua"),
            Script::Revoke => include_str!("scripts/revoke.lua"),
        }
    }
}
