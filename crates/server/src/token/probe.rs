//! Checks whether the key sets of a configuration can be fetched, for `tidings doctor`.
//!
//! Invariant: all URLs of an endpoint with placeholders are fetched.

use super::TokenSettings;
use super::endpoint::EndpointTemplate;
use super::expectations::Expectations;
use super::fetch::{FetchFailure, HttpFetch};
use super::key_error::KeyError;
use super::key_set::KeySet;

/// The result of fetching one key set.
pub(crate) struct KeySetProbe {
    /// URL of the key set.
    pub(crate) address: String,
    /// Number of supported keys, or why it could not be fetched.
    pub(crate) keys: Result<usize, FetchFailure>,
}

/// Fetches all key sets of the options, one after another. Blocks the calling thread.
pub(crate) fn probe_key_sets(settings: &TokenSettings) -> Result<Vec<KeySetProbe>, KeyError> {
    let Some(endpoint) = settings.jwks_public_endpoint.as_ref().filter(|text| !text.is_empty())
    else {
        return Ok(Vec::new());
    };
    let addresses = EndpointTemplate::new(endpoint, &Expectations::new(settings)?)?.addresses()?;
    let fetch = HttpFetch::shared();
    let probe = |address: String| {
        let document = fetch.fetch(&address);
        let keys = document.and_then(|document| KeySet::parse(&document)).map(|set| set.len());
        KeySetProbe { address, keys }
    };
    Ok(addresses.into_iter().map(probe).collect())
}
