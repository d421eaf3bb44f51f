//! The URL of a key set, which may depend on the issuer or audience of a token.
//!
//! Invariant: an endpoint has a fixed list of URLs that is known at start. A token selects one of
//! them and cannot add any.

use regex::Regex;

use super::expectations::Expectations;
use super::key_error::{KeyError, KeyFault};
use super::limits::ENDPOINTS_MAX;
use super::registered::Registered;

/// A URL with placeholders such as `{{name}}`.
pub(super) struct EndpointTemplate {
    pieces: Vec<Piece>,
}

enum Piece {
    Text(String),
    Placeholder(Placeholder),
}

struct Placeholder {
    name: String,
    claim: Claim,
    values: Vec<String>,
}

/// The claim whose pattern has the named group of a placeholder.
#[derive(Clone, Copy)]
enum Claim {
    Issuer,
    Audience,
}

impl EndpointTemplate {
    /// Parses a URL and resolves the values of every placeholder.
    pub(super) fn new(text: &str, expectations: &Expectations) -> Result<Self, KeyError> {
        let refused = |fault| KeyError { setting: SETTING, fault };
        if !(text.starts_with("http://") || text.starts_with("https://")) {
            return Err(refused(KeyFault::NotHttp));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, opened)) = rest.split_once("{{") {
            let (name, after) =
                opened.split_once("}}").ok_or_else(|| refused(KeyFault::Placeholder))?;
            let placeholder = Placeholder::new(name, expectations).map_err(refused)?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Placeholder(placeholder));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self { pieces })
    }

    /// Whether the URL depends on the claims of the token.
    pub(super) fn depends_on_claims(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Placeholder(_)))
    }

    /// All possible URLs of the endpoint.
    pub(super) fn addresses(&self) -> Result<Vec<String>, KeyError> {
        let mut addresses = vec![String::new()];
        for piece in &self.pieces {
            let values = match piece {
                Piece::Text(text) => std::slice::from_ref(text),
                Piece::Placeholder(placeholder) => &placeholder.values,
            };
            if addresses.len() * values.len() > ENDPOINTS_MAX {
                return Err(KeyError { setting: SETTING, fault: KeyFault::TooManyEndpoints });
            }
            addresses = addresses
                .iter()
                .flat_map(|begun| values.iter().map(move |value| format!("{begun}{value}")))
                .collect();
        }
        Ok(addresses)
    }

    /// The URL for one token; `None` if its claims do not give every placeholder one of its values.
    pub(super) fn address(
        &self,
        expectations: &Expectations,
        claims: &Registered,
    ) -> Option<String> {
        let issuer = expectations.issuer_captures(claims);
        let audience = expectations.audience_captures(claims);
        let mut address = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => address.push_str(text),
                Piece::Placeholder(Placeholder { name, claim, values }) => {
                    let captures = match claim {
                        Claim::Issuer => issuer.as_ref()?,
                        Claim::Audience => audience.as_ref()?,
                    };
                    let found = captures.name(name)?.as_str();
                    address.push_str(values.iter().find(|value| *value == found)?);
                }
            }
        }
        Some(address)
    }
}

impl Placeholder {
    fn new(name: &str, expectations: &Expectations) -> Result<Self, KeyFault> {
        if name.is_empty() {
            return Err(KeyFault::Placeholder);
        }
        let has_group = |pattern: &&Regex| pattern.capture_names().flatten().any(|n| n == name);
        let issuer = expectations.issuer_pattern().filter(has_group);
        let audience = expectations.audience_pattern().filter(has_group);
        let (claim, pattern) = match (issuer, audience) {
            (Some(pattern), None) => (Claim::Issuer, pattern),
            (None, Some(pattern)) => (Claim::Audience, pattern),
            (None, None) | (Some(_), Some(_)) => return Err(KeyFault::PlaceholderGroup),
        };
        let values = listed_values(pattern.as_str(), name).ok_or(KeyFault::PlaceholderOpen)?;
        Ok(Self { name: name.to_owned(), claim, values })
    }
}

/// The values in the group `name`; `None` if it is not a list of plain texts. The text that the
/// group captures in a token is compared with these values again, so that flags such as "ignore
/// case" cannot extend the list.
fn listed_values(pattern: &str, name: &str) -> Option<Vec<String>> {
    let opening = format!("<{name}>");
    let (before, body) = pattern.split_once(&opening)?;
    // If the name occurs only once, it is the name of the group.
    if body.contains(&opening) || !before.ends_with(['P', '?']) {
        return None;
    }
    let (list, _) = body.split_once(')')?;
    list.split('|').map(plain_text).collect()
}

/// Parses a value of letters, digits, `-`, `_` and escaped dots, and not only of dots. Such a value
/// is not a pattern and cannot change the path of the URL (`..`).
fn plain_text(value: &str) -> Option<String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let words: Vec<&str> = value.split(r"\.").collect();
    let plain = words.iter().all(|text| text.bytes().all(word));
    let empty = words.iter().all(|text| text.is_empty());
    (plain && !empty).then(|| words.join("."))
}

const SETTING: &str = "jwks_public_endpoint";
