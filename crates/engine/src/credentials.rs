//! What a connection token says of its holder beside the user: roles, and the id of the token.
//!
//! Invariant: a session whose token says nothing of this holds no memory for it but a pointer.

/// See the module. Never empty: a session without any has `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) roles: Box<[Box<str>]>,
    /// Claim `jti`; empty when the token has none.
    pub(crate) token_id: Box<str>,
}

impl Credentials {
    /// Of a token; `None` when it says nothing.
    pub(crate) fn new(roles: &[String], token_id: &str) -> Option<Box<Credentials>> {
        if roles.is_empty() && token_id.is_empty() {
            return None;
        }
        let roles = roles.iter().map(|role| role.as_str().into()).collect();
        Some(Box::new(Credentials { roles, token_id: token_id.into() }))
    }
}
