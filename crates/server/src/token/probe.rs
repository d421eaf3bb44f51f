//! Whether the key sets of a configuration can be fetched, before the first token needs them.
//!
//! Invariant: an endpoint with placeholders is tried at every address that it stands for.

use super::TokenSettings;
use super::endpoint::EndpointTemplate;
use super::expectations::Expectations;
use super::fetch::{FetchFailure, HttpFetch};
use super::key_error::KeyError;
use super::key_set::KeySet;

/// What came of fetching one key set.
pub(crate) struct Probed {
    /// Address of the key set.
    pub(crate) address: String,
    /// Usable keys in it.
    pub(crate) keys: Result<usize, FetchFailure>,
}

/// Fetches every key set that the settings name, one after the other; blocks the calling thread.
pub(crate) fn probe_key_sets(settings: &TokenSettings) -> Result<Vec<Probed>, KeyError> {
    let Some(endpoint) = settings.jwks_public_endpoint.as_ref().filter(|text| !text.is_empty())
    else {
        return Ok(Vec::new());
    };
    let addresses = EndpointTemplate::new(endpoint, &Expectations::new(settings)?)?.addresses()?;
    let fetch = HttpFetch::shared();
    let probe = |address: String| {
        let document = fetch.fetch(&address);
        let keys = document.and_then(|document| KeySet::parse(&document)).map(|set| set.len());
        Probed { address, keys }
    };
    Ok(addresses.into_iter().map(probe).collect())
}
