//! Roles and id of a connection token.
//!
//! Invariant: a session whose token has neither holds one null pointer.

/// Roles and token id. Never empty: a session without them has `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) roles: Box<[Box<str>]>,
    /// Claim `jti`; empty when the token has none.
    pub(crate) token_id: Box<str>,
}

impl Credentials {
    /// Creates credentials; `None` if both roles and token id are empty.
    pub(crate) fn new(roles: &[String], token_id: &str) -> Option<Box<Credentials>> {
        if roles.is_empty() && token_id.is_empty() {
            return None;
        }
        let roles = roles.iter().map(|role| role.as_str().into()).collect();
        Some(Box::new(Credentials { roles, token_id: token_id.into() }))
    }
}
