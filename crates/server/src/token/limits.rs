//! Limits of tokens and key sets, with the reason for each.

/// Maximum length of a token in bytes: the default maximum of a client message. It also limits the
/// content of a token: depth, channels, info and data.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Maximum number of roles of a token. A check of a permission compares all of them.
pub(super) const ROLES_MAX: usize = 32;

/// Maximum total length of the roles of a token in bytes. A session keeps them in memory.
pub(super) const ROLE_BYTES_MAX: usize = 1024;

/// Minimum length of an RSA modulus in bits. Shorter keys can be broken.
pub(super) const RSA_BITS_MIN: u32 = 2048;

/// Maximum length of an RSA modulus in bits. A longer one costs milliseconds per token.
pub(super) const RSA_BITS_MAX: u32 = 8192;

/// Seconds for which a fetched key set is used. A withdrawn key is accepted for at most this time.
pub(super) const KEY_SET_TTL_S: i64 = 60 * 60;

/// Minimum number of seconds between two fetches of one key set. With forged key ids or a failing
/// endpoint, its operator receives one fetch (with its retry) per this time.
pub(super) const KEY_SET_PAUSE_S: i64 = 5;

/// Timeout of one request in milliseconds, from name resolution to the last byte.
pub(super) const KEY_SET_TIMEOUT_MS: u64 = 1000;

/// Requests per fetch. The second one retries after a connection that was closed meanwhile.
pub(super) const KEY_SET_ATTEMPTS: u32 = 2;

/// Maximum length of a key set document in bytes. Those of large providers have about 20 KB.
pub(super) const KEY_SET_BYTES_MAX: u64 = 256 * 1024;

/// Maximum number of keys in a set. A look-up compares the ids of all of them.
pub(super) const KEY_SET_KEYS_MAX: usize = 64;

/// Maximum number of URLs of one endpoint with placeholders. Each has its own cached key set.
pub(super) const ENDPOINTS_MAX: usize = 256;

const _: () = assert!(RSA_BITS_MIN < RSA_BITS_MAX);
const _: () = assert!(KEY_SET_PAUSE_S < KEY_SET_TTL_S);
const _: () =
    assert!(KEY_SET_TIMEOUT_MS * (KEY_SET_ATTEMPTS as u64) < KEY_SET_PAUSE_S as u64 * 1000);
