//! One request to the server API: the caller, the space left in the response, and the number of
//! commands.
//!
//! Invariant: the response to one request, with all its commands, stays below [`API_RESPONSE_MAX`]
//! bytes. Every command has [`API_REPLY_FREE`] bytes for itself; longer replies share the room.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::caller::ApiCaller;
use super::error::ApiError;
use super::method::Method;
use crate::config::ApiKey;
use crate::limits::{API_ITEMS_MAX, API_REPLY_FRAME, API_REPLY_FREE, API_RESPONSE_MAX};

/// Caller and response budget of one request.
pub(crate) struct ApiCall {
    pub(crate) caller: ApiCaller,
    /// Bytes by which the response may still grow beyond the free bytes of each reply.
    room: AtomicUsize,
    /// Commands that the request may still have.
    commands_left: AtomicUsize,
    /// Whether a token is taken that no command has used yet.
    is_permit_taken: AtomicBool,
}

impl ApiCall {
    /// A request whose first token is taken.
    pub(crate) fn new(key: Arc<ApiKey>) -> ApiCall {
        let reserved = API_ITEMS_MAX * (API_REPLY_FREE + API_REPLY_FRAME);
        ApiCall {
            caller: ApiCaller { key },
            room: AtomicUsize::new(API_RESPONSE_MAX - reserved),
            commands_left: AtomicUsize::new(API_ITEMS_MAX),
            is_permit_taken: AtomicBool::new(true),
        }
    }

    /// Returns whether a rate-limit token is reserved for the next command, and uses it up.
    pub(super) fn use_permit(&self) -> bool {
        self.is_permit_taken.swap(false, Ordering::Relaxed)
    }

    /// Reserves the token: that of a batch is used by its first command.
    pub(super) fn return_permit(&self) {
        self.is_permit_taken.store(true, Ordering::Relaxed);
    }

    /// Counts commands of the request before they run.
    pub(crate) fn take_commands(&self, count: usize) -> Result<(), ApiError> {
        take(&self.commands_left, count).ok_or_else(|| {
            ApiError::bad(format!("one request may have {API_ITEMS_MAX} commands at most"))
        })
    }

    /// Checks that the caller may call a method. The commands of a batch are checked one by one.
    pub(super) fn check_method(&self, method: Method) -> Result<(), ApiError> {
        match method {
            Method::Batch => Ok(()),
            method => self.caller.check_method(method.name()),
        }
    }

    /// Checks that a result of `bytes` bytes would fit.
    pub(crate) fn check_room(&self, bytes: usize) -> Result<(), ApiError> {
        let has_room = bytes <= self.room.load(Ordering::Relaxed);
        has_room.then_some(()).ok_or_else(ApiError::answer_too_large)
    }

    /// Reserves space for a reply of which `free` bytes are reserved already.
    pub(crate) fn take_room(&self, bytes: usize, free: usize) -> Result<(), ApiError> {
        take(&self.room, bytes.saturating_sub(free)).ok_or_else(ApiError::answer_too_large)
    }

    /// Returns space that was reserved and is not needed.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.room.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The error, which has `bytes` bytes in a reply, without its reason where that has no room.
    pub(crate) fn fitting<'e>(
        &self,
        error: &'e ApiError,
        bytes: usize,
        free: usize,
    ) -> Cow<'e, ApiError> {
        match self.take_room(bytes, free) {
            Ok(()) => Cow::Borrowed(error),
            Err(_) => Cow::Owned(ApiError::reason_left_out(error.code)),
        }
    }
}

/// Takes from a counter, unless it has less.
fn take(counter: &AtomicUsize, count: usize) -> Option<()> {
    let subtract = |left: usize| left.checked_sub(count);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract).ok().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::API_PUBLISHED_MAX;

    fn json(error: &ApiError) -> usize {
        serde_json::to_string(error).unwrap().len() + r#"{"error":}"#.len()
    }

    #[test]
    fn the_shortest_replies_fit_into_their_free_bytes() {
        let call = ApiCall::new(Arc::new(ApiKey::unlimited("a", "")));
        assert!(json(&ApiError::answer_too_large()) < API_REPLY_FREE);
        call.take_room(API_RESPONSE_MAX, API_RESPONSE_MAX).unwrap();
        let rest = call.room.load(Ordering::Relaxed);
        call.take_room(rest + 5, 5).unwrap();
        assert!(call.take_room(6, 5).is_err());
        let long = ApiError { code: 4_294_967_295, message: "\0".repeat(1000).into() };
        let short = call.fitting(&long, json(&long), API_PUBLISHED_MAX);
        assert!(json(&short) < API_PUBLISHED_MAX && short.code == long.code, "{short:?}");
        call.give_back(100_000);
        assert_eq!(*call.fitting(&long, json(&long), API_PUBLISHED_MAX), long);
    }

    #[test]
    fn commands_are_counted_over_the_whole_request() {
        let call = ApiCall::new(Arc::new(ApiKey::unlimited("a", "")));
        call.take_commands(API_ITEMS_MAX - 1).unwrap();
        assert!(call.take_commands(2).is_err());
        call.take_commands(1).unwrap();
        assert!(call.take_commands(1).is_err());
    }
}
