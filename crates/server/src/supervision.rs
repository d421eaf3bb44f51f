//! The life of the process: start-up, restarts of tasks that end, and panics.
//!
//! Invariant: every fault is logged, and is visible at `/ready` while it lasts.

pub(crate) mod catch_panic;
pub(crate) mod start;
pub(crate) mod supervisor;
