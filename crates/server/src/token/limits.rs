//! Bounds on tokens and key sets, with the reason of each.

/// Longest token. As long as a client frame may be by default: a longer one cannot arrive in a
/// command. It bounds everything inside a token too: depth, channels, info and data.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Most roles of a token: whoever checks a permission looks through them one by one.
pub(super) const ROLES_MAX: usize = 32;

/// Bytes of all roles of a token together; a session keeps them for as long as it lives.
pub(super) const ROLE_BYTES_MAX: usize = 1024;

/// Smallest RSA modulus. Shorter keys can be broken.
pub(super) const RSA_BITS_MIN: u32 = 2048;

/// Largest RSA modulus. A longer one costs milliseconds per token.
pub(super) const RSA_BITS_MAX: u32 = 8192;

/// Seconds for which a fetched key set is used. A key withdrawn by its owner lives on so long.
pub(super) const KEY_SET_TTL_S: i64 = 60 * 60;

/// Least seconds between two fetches of one key set, whatever tokens ask for: forged key ids and
/// a failing endpoint cost its owner one request (with its repetition) in this time.
pub(super) const KEY_SET_PAUSE_S: i64 = 5;

/// Milliseconds for one request, from name look-up to the last byte.
pub(super) const KEY_SET_TIMEOUT_MS: u64 = 1000;

/// Requests made for one fetch. The second covers a connection that was cut meanwhile.
pub(super) const KEY_SET_ATTEMPTS: u32 = 2;

/// Longest key set document. Sets of large providers have some 20 KB.
pub(super) const KEY_SET_BYTES_MAX: u64 = 256 * 1024;

/// Most keys in a set: a token looks through them one by one.
pub(super) const KEY_SET_KEYS_MAX: usize = 64;

/// Most addresses that one endpoint with placeholders can stand for; each has a set of its own.
pub(super) const ENDPOINTS_MAX: usize = 256;

const _: () = assert!(RSA_BITS_MIN < RSA_BITS_MAX);
const _: () = assert!(KEY_SET_PAUSE_S < KEY_SET_TTL_S);
const _: () =
    assert!(KEY_SET_TIMEOUT_MS * (KEY_SET_ATTEMPTS as u64) < KEY_SET_PAUSE_S as u64 * 1000);
