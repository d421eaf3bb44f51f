//! Tokens: who may connect, and who may subscribe, verified by a signature.
//!
//! A [`Verifier`] is built once from [`TokenSettings`] and shared by all threads. It takes the text
//! of a token and gives the engine's claims or the reason of the refusal; nothing in between.
//! It reads no clock: the time is an argument. It never writes, logs or shows a token, a claim or
//! a key. Only a verifier with a key set endpoint does I/O, and [`Verifier::cost`] tells so.
//!
//! The files follow the way of a token: `jws` takes it apart, `keys` or `jwks` check the
//! signature, `registered` checks time, issuer and audience, `claims` reads what is granted.

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
