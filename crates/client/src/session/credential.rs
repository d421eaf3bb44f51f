//! The token of one connection or subscription, and the request for another one.
//!
//! Invariant: at most one request is open; the answer to an older one is not taken.

use std::fmt;
use std::time::Duration;

use super::event::TokenRequestId;
use super::options::TokenSource;
use crate::limits::{TIMER_MAX, TTL_MIN};

/// The token of a connection or subscription, and the open request for a new one.
#[derive(Clone)]
pub(super) struct Credential {
    token: String,
    is_asked: bool,
    /// The server said that the token has expired: it is of no use any more.
    is_expired: bool,
    request: Option<TokenRequestId>,
}

/// Without the token.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Credential { is_asked, is_expired, request, .. } = self;
        f.debug_struct("Credential")
            .field("is_asked", is_asked)
            .field("is_expired", is_expired)
            .field("request", request)
            .finish_non_exhaustive()
    }
}

impl Credential {
    pub(super) fn new(source: TokenSource) -> Credential {
        let (token, is_asked) = match source {
            TokenSource::None => (String::new(), false),
            TokenSource::Fixed(token) => (token, false),
            TokenSource::Asked { first } => (first, true),
        };
        Credential { token, is_asked, is_expired: false, request: None }
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Whether the application can be asked for a token.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Whether the application must be asked before the token can be used.
    pub(super) fn is_missing(&self) -> bool {
        self.is_asked && self.token.is_empty()
    }

    /// Whether no valid token can be had.
    pub(super) fn is_exhausted(&self) -> bool {
        self.is_expired && !self.is_asked
    }

    /// The token is of no use any more.
    pub(super) fn expire(&mut self) {
        self.token.clear();
        self.is_expired = true;
    }

    /// The server asks to drop the token.
    pub(super) fn invalidate(&mut self) {
        if self.is_asked {
            self.token.clear();
        }
    }

    pub(super) fn ask(&mut self, request: TokenRequestId) {
        self.request = Some(request);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.request.is_some()
    }

    /// Cancels the open token request; its answer is ignored.
    pub(super) fn forget_request(&mut self) {
        self.request = None;
    }

    /// Whether this answers the open request, which is then closed.
    pub(super) fn take_request(&mut self, request: TokenRequestId) -> bool {
        let is_ours = self.request == Some(request);
        self.request = self.request.filter(|_| !is_ours);
        is_ours
    }

    pub(super) fn renew(&mut self, token: String) {
        self.token = token;
        self.is_expired = false;
    }
}

/// Time until a token of this lifetime must be renewed.
pub(super) fn lifetime(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into()).clamp(TTL_MIN, TIMER_MAX)
}
