//! What error replies of Redis mean for a command and its connection.
//!
//! Invariant: an error that is not known is permanent, and the connection stays.

/// Whether the server did not execute the command for a transient reason.
pub(super) fn is_retried(error: &[u8]) -> bool {
    const PASSING: [&[u8]; 5] = [b"MOVED", b"ASK", b"TRYAGAIN", b"CLUSTERDOWN", b"NOSCRIPT"];
    PASSING.iter().any(|name| error.starts_with(name))
}

/// Whether the server has changed its role or state since the connection was opened.
pub(super) fn requires_reconnect(error: &[u8]) -> bool {
    const OTHER: [&[u8]; 4] = [b"READONLY", b"LOADING", b"MASTERDOWN", b"NOAUTH"];
    OTHER.iter().any(|name| is_error(error, name))
}

/// Whether a reply is this error. Redis 6 prefixes errors inside of scripts with the script's
/// location.
pub(super) fn is_error(error: &[u8], name: &[u8]) -> bool {
    let behind_place = |mark: &[u8]| {
        let marked = [mark, name].concat();
        error.windows(marked.len()).any(|part| part == marked)
    };
    error.starts_with(name) || behind_place(b": ") || behind_place(b": -")
}
