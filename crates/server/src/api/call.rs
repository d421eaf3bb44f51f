//! One HTTP request to the server API: whose it is, what that caller may do, and how much its
//! answer may still hold.
//!
//! Invariant: what one request is answered, all commands of a batch together, stays below
//! [`API_ANSWER_MAX`] bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::error::ApiError;
use super::method::Method;
use crate::config::ApiKey;
use crate::limits::API_ANSWER_MAX;
use crate::telemetry::shown;

/// See the module.
pub(super) struct Call {
    pub(super) key: Arc<ApiKey>,
    /// Bytes of answers that there is room for.
    room: AtomicUsize,
    /// No command has been run for it.
    is_fresh: AtomicBool,
}

impl Call {
    pub(super) fn new(key: Arc<ApiKey>) -> Call {
        Call { key, room: AtomicUsize::new(API_ANSWER_MAX), is_fresh: AtomicBool::new(true) }
    }

    /// Whether this is asked for the first time: by the first command.
    pub(super) fn is_first(&self) -> bool {
        self.is_fresh.swap(false, Ordering::Relaxed)
    }

    /// Whether the caller may call a method. A batch is judged by its commands.
    pub(super) fn check_method(&self, method: Method) -> Result<(), ApiError> {
        if method == Method::Batch || self.key.allows_method(method.name()) {
            return Ok(());
        }
        let (name, method) = (&self.key.name, method.name());
        Err(ApiError::denied(format!("the API key {name} is not for the method {method}")))
    }

    /// Whether the caller may name a channel.
    pub(super) fn check_channel(&self, channel: &str) -> Result<(), ApiError> {
        if self.key.allows_channel(channel) {
            return Ok(());
        }
        let (name, channel) = (&self.key.name, shown(channel));
        Err(ApiError::denied(format!("the API key {name} is not for the channel {channel:?}")))
    }

    /// Whether an answer of so many bytes would fit.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), ApiError> {
        match bytes <= self.room.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(ApiError::answer_too_large()),
        }
    }

    /// Takes the room for an answer. What has taken effect is always answered, and such an answer
    /// is small.
    pub(super) fn take_room(&self, bytes: usize) -> Result<(), ApiError> {
        let take = |room: usize| room.checked_sub(bytes);
        match self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(ApiError::answer_too_large()),
        }
    }
}
