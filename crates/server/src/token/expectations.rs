//! The issuer and audience that a token must have.

use regex::{Captures, Regex};

use super::cause::Cause;
use super::key_error::{KeyError, KeyFault};
use super::registered::Registered;
use super::settings::TokenSettings;
use crate::expression::compile;

/// Expected values and patterns of `iss` and `aud`; `None` is not checked.
pub(super) struct Expectations {
    issuer: Option<String>,
    issuer_pattern: Option<Regex>,
    audience: Option<String>,
    audience_pattern: Option<Regex>,
}

impl Expectations {
    /// Compiles the regular expressions.
    pub(super) fn new(settings: &TokenSettings) -> Result<Self, KeyError> {
        Ok(Self {
            issuer: configured(&settings.issuer),
            issuer_pattern: pattern("issuer_regex", &settings.issuer_regex)?,
            audience: configured(&settings.audience),
            audience_pattern: pattern("audience_regex", &settings.audience_regex)?,
        })
    }

    /// Checks issuer and audience.
    pub(super) fn check(&self, claims: &Registered) -> Result<(), Cause> {
        let issuer = claims.issuer();
        let issuer_holds = self.issuer.as_deref().is_none_or(|expected| issuer == expected)
            && self.issuer_pattern.as_ref().is_none_or(|pattern| pattern.is_match(issuer));
        if !issuer_holds {
            return Err(Cause::Issuer);
        }
        let audience = claims.audience();
        let audience_holds =
            self.audience.as_ref().is_none_or(|expected| audience.contains(expected))
                && self
                    .audience_pattern
                    .as_ref()
                    .is_none_or(|pattern| audience.iter().any(|value| pattern.is_match(value)));
        if !audience_holds {
            return Err(Cause::Audience);
        }
        Ok(())
    }

    /// The groups that the pattern of the issuer captured.
    pub(super) fn issuer_captures<'c>(&self, claims: &'c Registered) -> Option<Captures<'c>> {
        self.issuer_pattern.as_ref()?.captures(claims.issuer())
    }

    /// The groups that the pattern of the audience captured in the first matching value.
    pub(super) fn audience_captures<'c>(&self, claims: &'c Registered) -> Option<Captures<'c>> {
        let pattern = self.audience_pattern.as_ref()?;
        claims.audience().iter().find_map(|value| pattern.captures(value))
    }

    pub(super) fn issuer_pattern(&self) -> Option<&Regex> {
        self.issuer_pattern.as_ref()
    }

    pub(super) fn audience_pattern(&self) -> Option<&Regex> {
        self.audience_pattern.as_ref()
    }
}

/// A configured text; `None` if it is empty.
pub(super) fn configured(value: &Option<String>) -> Option<String> {
    value.clone().filter(|text| !text.is_empty())
}

fn pattern(setting: &'static str, value: &Option<String>) -> Result<Option<Regex>, KeyError> {
    configured(value)
        .map(|text| compile(&text))
        .transpose()
        .map_err(|_| KeyError { setting, fault: KeyFault::Pattern })
}
