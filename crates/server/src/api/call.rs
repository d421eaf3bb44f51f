//! One HTTP request to the server API: the caller, and the space left in the response.
//!
//! Invariant: the response to one request, with all commands of a batch, stays below
//! [`API_ANSWER_MAX`] bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::error::answer_too_large;
use super::method::Method;
use crate::config::ApiKey;
use crate::limits::API_ANSWER_MAX;
use crate::service::caller::ApiCaller;
use crate::service::error::ApiError;

/// ApiCaller and response budget of one HTTP request.
pub(super) struct Call {
    pub(super) caller: ApiCaller,
    /// Bytes that the response may still grow by.
    room: AtomicUsize,
    /// Whether no command of this request has run yet.
    is_fresh: AtomicBool,
}

impl Call {
    pub(super) fn new(key: Arc<ApiKey>) -> Call {
        Call {
            caller: ApiCaller { key },
            room: AtomicUsize::new(API_ANSWER_MAX),
            is_fresh: AtomicBool::new(true),
        }
    }

    /// Returns `true` for the first command of the request, and `false` from then on.
    pub(super) fn take_first(&self) -> bool {
        self.is_fresh.swap(false, Ordering::Relaxed)
    }

    /// Checks that the caller may call a method. The commands of a batch are checked one by one.
    pub(super) fn check_method(&self, method: Method) -> Result<(), ApiError> {
        match method {
            Method::Batch => Ok(()),
            method => self.caller.check_method(method.name()),
        }
    }

    /// Checks that a result of `bytes` bytes would fit.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), ApiError> {
        match bytes <= self.room.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(answer_too_large()),
        }
    }

    /// Reserves space for a result. Results of methods that change something are small and are
    /// always sent.
    pub(super) fn take_room(&self, bytes: usize) -> Result<(), ApiError> {
        let take = |room: usize| room.checked_sub(bytes);
        match self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(answer_too_large()),
        }
    }
}
