//! The name of a session within its worker.

/// Identifies a session of a worker, for the worker's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// Slot in the worker's table.
    pub slot: u32,
    /// Distinguishes the sessions that used the slot.
    pub generation: u32,
}
