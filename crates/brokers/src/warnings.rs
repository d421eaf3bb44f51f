//! Warnings of a broker that is available, until the server takes and logs them.
//!
//! Invariant: at most [`WARNINGS_MAX`] are queued.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Queued warnings.
#[derive(Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

/// Maximum number of queued warnings; more of them add no information.
const WARNINGS_MAX: usize = 8;

impl Warnings {
    pub(crate) fn add(&self, text: String) {
        let mut waiting = self.waiting();
        if waiting.len() < WARNINGS_MAX {
            waiting.push(text);
        }
    }

    /// Warns that another node has this node's name.
    pub(crate) fn add_twin(&self, name: &str) {
        self.add(format!(
            "another node has the name {name:?} too: events and the API cannot tell the nodes apart; set node.name"
        ));
    }

    pub(crate) fn take(&self) -> Option<String> {
        self.waiting().pop()
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
