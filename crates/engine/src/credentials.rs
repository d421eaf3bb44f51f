//! Roles and id of a connection token, and what a session stores for calls of backends.
//!
//! Invariant: a session without any of these stores `None`, which is one pointer.

use std::sync::Arc;

use bytes::Bytes;

use crate::call::CallContext;

/// Roles, token id and backend metadata of a session. Never empty: a session without any of these
/// stores `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) roles: Box<[Box<str>]>,
    /// Claim `jti`; empty when the token has none.
    pub(crate) token_id: Box<str>,
    /// What calls pass on; `None` for nothing.
    pub(crate) context: Option<Arc<CallContext>>,
}

impl Credentials {
    /// Creates credentials; `None` if all of it is empty.
    pub(crate) fn new(
        roles: &[String],
        token_id: &str,
        context: Option<Arc<CallContext>>,
    ) -> Option<Box<Credentials>> {
        if roles.is_empty() && token_id.is_empty() && context.is_none() {
            return None;
        }
        let roles = roles.iter().map(|role| role.as_str().into()).collect();
        Some(Box::new(Credentials { roles, token_id: token_id.into(), context }))
    }
}

impl CallContext {
    /// Creates a context; `None` if it is empty.
    pub(crate) fn new(meta: Bytes, headers: Vec<(String, String)>) -> Option<Arc<CallContext>> {
        let is_empty = meta.is_empty() && headers.is_empty();
        (!is_empty).then(|| Arc::new(CallContext { meta, headers }))
    }

    /// Returns the context with new meta, unless that is empty.
    pub(crate) fn with_meta(
        context: Option<Arc<CallContext>>,
        meta: Bytes,
    ) -> Option<Arc<CallContext>> {
        if meta.is_empty() {
            return context;
        }
        let headers = context.map(|context| context.headers.clone()).unwrap_or_default();
        CallContext::new(meta, headers)
    }
}
