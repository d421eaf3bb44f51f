//! The hops that `X-Forwarded-For` and `Forwarded` (RFC 7239) list, the farthest first.
//!
//! Invariant: what is no address is a hop without one, never left out: a hop that vanished would
//! lend its place to the one before it.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use axum::http::header::FORWARDED;

/// Hops of `X-Forwarded-For`; `None` when there is no such header.
pub(super) fn x_forwarded_for(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let mut hops = Vec::new();
    let mut values = headers.get_all("x-forwarded-for").iter().peekable();
    values.peek()?;
    for value in values {
        match value.to_str() {
            Ok(text) => hops.extend(text.split(',').map(address)),
            Err(_) => hops.push(None),
        }
    }
    Some(hops)
}

/// Hops of `Forwarded`; `None` when there is no such header.
pub(super) fn forwarded(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let mut hops = Vec::new();
    let mut values = headers.get_all(FORWARDED).iter().peekable();
    values.peek()?;
    for value in values {
        match value.to_str() {
            Ok(text) => hops.extend(split_unquoted(text, ',').into_iter().map(forwarded_for)),
            Err(_) => hops.push(None),
        }
    }
    Some(hops)
}

/// The `for` of one element, such as `for="[2001:db8::1]:4711";proto=https`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = split_unquoted(element, ';');
    let value = pairs.into_iter().find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
    })?;
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    address(unquoted.unwrap_or(value))
}

/// An address with or without a port; an IPv6 address may stand in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    text.parse().ok().or_else(with_port).or_else(bracketed)
}

/// Splits at a separator outside quoted strings.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped, mut start) = (false, false, 0);
    let mut parts = Vec::new();
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            c if c == separator && !is_quoted => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}
