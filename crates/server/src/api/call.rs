//! One HTTP request to the server API: how much its answer may still hold.
//!
//! Invariant: what one request is answered, all commands of a batch together, stays below [`API_ANSWER_MAX`] bytes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::error::ApiError;
use crate::limits::API_ANSWER_MAX;

/// See the module.
pub(super) struct Call {
    /// Bytes of answers that there is room for.
    room: AtomicUsize,
    /// No command has been run for it.
    is_fresh: AtomicBool,
}

impl Call {
    pub(super) fn new() -> Call {
        Call { room: AtomicUsize::new(API_ANSWER_MAX), is_fresh: AtomicBool::new(true) }
    }

    /// Whether this is asked for the first time: by the first command.
    pub(super) fn is_first(&self) -> bool {
        self.is_fresh.swap(false, Ordering::Relaxed)
    }

    /// Whether an answer of so many bytes would fit.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), ApiError> {
        match bytes <= self.room.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(ApiError::answer_too_large()),
        }
    }

    /// Takes the room for an answer. What has taken effect is always answered, and such an answer is small.
    pub(super) fn take_room(&self, bytes: usize) -> Result<(), ApiError> {
        let take = |room: usize| room.checked_sub(bytes);
        match self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(ApiError::answer_too_large()),
        }
    }
}
