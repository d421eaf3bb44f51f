//! One HTTP request to the server API: the caller's key and permissions, and the space left in the
//! response.
//!
//! Invariant: the response to one request, with all commands of a batch, stays below
//! [`API_ANSWER_MAX`] bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::error::ApiError;
use super::method::Method;
use crate::config::ApiKey;
use crate::limits::API_ANSWER_MAX;
use crate::telemetry::shown;

/// Caller and response budget of one HTTP request.
pub(super) struct Call {
    pub(super) key: Arc<ApiKey>,
    /// Bytes that the response may still grow by.
    room: AtomicUsize,
    /// Whether no command of this request has run yet.
    is_fresh: AtomicBool,
}

impl Call {
    pub(super) fn new(key: Arc<ApiKey>) -> Call {
        Call { key, room: AtomicUsize::new(API_ANSWER_MAX), is_fresh: AtomicBool::new(true) }
    }

    /// Returns `true` for the first caller, which is the first command, and `false` from then on.
    pub(super) fn is_first(&self) -> bool {
        self.is_fresh.swap(false, Ordering::Relaxed)
    }

    /// Checks that the caller may call a method. The commands of a batch are checked one by one.
    pub(super) fn check_method(&self, method: Method) -> Result<(), ApiError> {
        if method == Method::Batch || self.key.allows_method(method.name()) {
            return Ok(());
        }
        let (name, method) = (&self.key.name, method.name());
        Err(ApiError::denied(format!("the API key {name} is not for the method {method}")))
    }

    /// Checks that the caller's key permits a channel.
    pub(super) fn check_channel(&self, channel: &str) -> Result<(), ApiError> {
        if self.key.allows_channel(channel) {
            return Ok(());
        }
        let (name, channel) = (&self.key.name, shown(channel));
        Err(ApiError::denied(format!("the API key {name} is not for the channel {channel:?}")))
    }

    /// Checks that a result of `bytes` bytes would fit.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), ApiError> {
        match bytes <= self.room.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(ApiError::answer_too_large()),
        }
    }

    /// Reserves space for a result. Results of methods that change something are small and are
    /// always sent.
    pub(super) fn take_room(&self, bytes: usize) -> Result<(), ApiError> {
        let take = |room: usize| room.checked_sub(bytes);
        match self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(ApiError::answer_too_large()),
        }
    }
}
