//! The header in which trusted proxies name the client: a list of addresses such as
//! `X-Forwarded-For`, or `Forwarded` (RFC 7239).
//!
//! Invariants: the list is parsed from its right end, where the nearest proxy appends, so that text
//! of a client cannot change how an entry to the right of it is parsed. An entry that is not an
//! address is a hop without an address. If it were left out, the hop before it would take its
//! place.

use std::net::IpAddr;

use axum::http::header::FORWARDED;
use axum::http::{HeaderMap, HeaderName};
use thiserror::Error;

/// Name of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedHeader(HeaderName);

/// A name that cannot be that of a header.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{name:?} is not a valid header name: expected one such as X-Forwarded-For, X-Real-IP or Forwarded"
)]
pub struct HeaderNameError {
    name: String,
}

impl ForwardedHeader {
    /// The header of this name.
    ///
    /// # Errors
    /// The name cannot be that of a header.
    pub fn new(name: &str) -> Result<ForwardedHeader, HeaderNameError> {
        let parsed = name.parse().map_err(|_| HeaderNameError { name: name.to_owned() })?;
        Ok(ForwardedHeader(parsed))
    }

    /// Hops in the header, the nearest first. Several header lines form one list.
    pub(super) fn hops(&self, headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
        let quotes = match self.0 == FORWARDED {
            true => Quotes::Enclose,
            false => Quotes::AreBytes,
        };
        let lines = headers.get_all(&self.0).iter().rev();
        let elements = lines.flat_map(move |line| split_from_right(line.as_bytes(), b',', quotes));
        elements.map(move |element| match quotes {
            Quotes::Enclose => forwarded_for(element),
            Quotes::AreBytes => address(element),
        })
    }
}

impl Default for ForwardedHeader {
    fn default() -> ForwardedHeader {
        ForwardedHeader(HeaderName::from_static("x-forwarded-for"))
    }
}

/// How separators between quotation marks are treated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// Separators in quoted strings are ignored.
    Enclose,
    /// Quotation marks have no meaning.
    AreBytes,
}

/// The `for` of one element, such as `for="[2001:db8::1]:4711";proto=https`; an element with
/// several has none.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut values = split_from_right(element, b';', Quotes::Enclose).filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
        name.eq_ignore_ascii_case(b"for").then_some(value)
    });
    let (value, None) = (values.next()?, values.next()) else { return None };
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    address(unquoted.unwrap_or(value))
}

/// An address with or without a port; an IPv6 address with a port stands in brackets, and may do so
/// without one.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => text.split_at(text.find(':')?),
    };
    let ip: IpAddr = host.parse().ok()?;
    let is_whole = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    (is_whole && ip.is_ipv6() == text.starts_with('[')).then_some(ip)
}

/// A port number, or an obfuscated port (RFC 7239, section 6.3).
fn is_port(text: &str) -> bool {
    text.starts_with('_') || text.parse::<u16>().is_ok()
}

/// Splits at a separator and returns the last part first.
///
/// Parsed from the right, the start of a quoted string is unambiguous: every quotation mark in it
/// is escaped by a backslash. Parsed from the left, an unclosed quotation mark of a client would
/// include the entries that proxies append.
fn split_from_right(text: &[u8], separator: u8, quotes: Quotes) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut is_quoted = false;
        for at in (0..text.len()).rev() {
            match text[at] {
                b'"' if is_quoted => is_quoted = is_escaped(&text[..at]),
                b'"' => is_quoted = quotes == Quotes::Enclose,
                byte if byte == separator && !is_quoted => {
                    rest = Some(&text[..at]);
                    return Some(&text[at + 1..]);
                }
                _ => {}
            }
        }
        Some(text)
    })
}

/// Whether what follows stands behind a backslash that is not itself escaped.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}
