//! User and token ids in JSON.
//!
//! Invariant: two different ids never become the same text.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// An id as text; a whole number is accepted too, because many databases use numbers as ids.
pub(crate) struct Identifier(pub(crate) String);

impl<'de> Deserialize<'de> for Identifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdentifierVisitor)
    }
}

struct IdentifierVisitor;

impl Visitor<'_> for IdentifierVisitor {
    type Value = Identifier;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a whole number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Identifier, E> {
        Ok(Identifier(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Identifier, E> {
        Ok(Identifier(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Identifier, E> {
        Ok(Identifier(number.to_string()))
    }

    /// Only exact whole numbers: rounding could give two users the same id.
    fn visit_f64<E: Error>(self, number: f64) -> Result<Identifier, E> {
        if number.fract() != 0.0 || number.abs() > EXACT_INTEGER_MAX {
            return Err(E::custom("not a whole number that is exact"));
        }
        Ok(Identifier((number as i64).to_string()))
    }
}

/// 2^53 - 1: up to this bound, `f64` represents every whole number exactly.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;
