//! Verification of connection tokens and subscription tokens (JSON Web Tokens, RFC 7519).
//!
//! A [`Verifier`] is built once from [`TokenSettings`] and shared by all threads. It verifies the
//! text of a token and returns the claims for the engine, or the reason of the refusal. Time is an
//! argument. No token, claim or key is written or logged. Only a verifier with a key set endpoint
//! does I/O; [`Verifier::cost`] returns whether a token needs it.
//!
//! The files follow the steps of verification: `jws` splits and decodes a token, `keys` or `jwks`
//! check its signature, `registered` checks time, issuer and audience, `claims` reads the grants.

mod algorithm;
mod cause;
mod claims;
mod endpoint;
mod expectations;
mod fetch;
mod jwks;
mod jws;
mod key_error;
mod key_set;
mod keys;
mod limits;
mod payload;
mod pem;
mod probe;
mod public_key;
mod registered;
mod remote;
mod settings;
mod sign;
#[cfg(test)]
mod tests;
mod verifier;

pub use cause::Cause;
pub use fetch::{Fetch, FetchFailure};
pub use key_error::{KeyError, KeyFault};
pub use limits::TOKEN_BYTES_MAX;
pub(crate) use probe::probe_key_sets;
pub use settings::TokenSettings;
pub use sign::{
    ConnectionTokenRequest, HmacAlgorithm, SignError, SubscriptionTokenRequest, TokenRequest,
    sign_connection, sign_subscription,
};
pub use verifier::{Cost, Verified, Verifier};
