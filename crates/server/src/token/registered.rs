//! The registered claims of RFC 7519 §4.1: issuer, subject, audience, times and token id.

use std::fmt;

use engine::limits::ID_BYTES_MAX;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::cause::Cause;
use crate::json::{Identifier, NumericDate};

/// The registered claims that are checked.
#[derive(Deserialize)]
pub(super) struct Registered {
    sub: Option<Identifier>,
    iss: Option<String>,
    aud: Option<Audience>,
    exp: Option<NumericDate>,
    nbf: Option<NumericDate>,
    iat: Option<NumericDate>,
    jti: Option<Identifier>,
}

impl Registered {
    /// Checks `exp` and `nbf` against the current time.
    pub(super) fn check_time(&self, now_unix: i64) -> Result<(), Cause> {
        if self.exp.is_some_and(|exp| now_unix >= exp.whole()) {
            return Err(Cause::Expired);
        }
        if self.nbf.is_some_and(|nbf| now_unix < nbf.rounded_up()) {
            return Err(Cause::NotYetValid);
        }
        Ok(())
    }

    /// Unix time in seconds at which a connection or subscription expires; `None` if never. Claim
    /// `expire_at` overrides the expiration of the token; zero or less means never.
    pub(super) fn lifetime_end(&self, expire_at: Option<NumericDate>) -> Option<i64> {
        match expire_at {
            None => self.exp.map(NumericDate::whole),
            Some(end) => Some(end.whole()).filter(|seconds| *seconds > 0),
        }
    }

    /// Claim `iat` as Unix time in seconds.
    pub(super) fn issued_at(&self) -> Option<i64> {
        self.iat.map(NumericDate::whole)
    }

    /// Claim `jti`; empty if absent.
    pub(super) fn token_id(&self) -> Result<&str, Cause> {
        within_bound(self.jti.as_ref().map_or("", |Identifier(id)| id))
    }

    /// Claim `sub`; empty if absent.
    pub(super) fn subject(&self) -> &str {
        self.sub.as_ref().map_or("", |Identifier(user)| user)
    }

    /// Claim `iss`; empty if absent.
    pub(super) fn issuer(&self) -> &str {
        self.iss.as_deref().unwrap_or_default()
    }

    /// Claim `aud` as a list.
    pub(super) fn audience(&self) -> &[String] {
        self.aud.as_ref().map_or(&[], |Audience(values)| values)
    }
}

/// Refuses a user id or token id that is too long to be revoked.
pub(super) fn within_bound<T: AsRef<str>>(id: T) -> Result<T, Cause> {
    if id.as_ref().len() <= ID_BYTES_MAX { Ok(id) } else { Err(Cause::IdTooLong) }
}

/// Claim `aud`: one text or a list of texts.
struct Audience(Vec<String>);

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AudienceVisitor)
    }
}

struct AudienceVisitor;

impl<'de> Visitor<'de> for AudienceVisitor {
    type Value = Audience;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a list of texts")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Audience, E> {
        Ok(Audience(vec![value.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Audience, A::Error> {
        let mut audience = Vec::new();
        while let Some(value) = values.next_element()? {
            audience.push(value);
        }
        Ok(Audience(audience))
    }
}
