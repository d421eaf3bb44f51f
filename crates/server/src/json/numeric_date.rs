//! Times in claims.
//!
//! Invariant: a number outside the range of `i64` becomes the nearest bound.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_json::Number;

/// Unix time in seconds (`NumericDate` of RFC 7519 §2): a JSON number with or without a fraction,
/// or a text that holds one.
#[derive(Clone, Copy)]
pub(crate) struct NumericDate {
    floor: i64,
    ceiling: i64,
}

impl NumericDate {
    /// Seconds, rounded down.
    pub(crate) fn whole(self) -> i64 {
        self.floor
    }

    /// Seconds, rounded up.
    pub(crate) fn rounded_up(self) -> i64 {
        self.ceiling
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumericDateVisitor)
    }
}

struct NumericDateVisitor;

impl Visitor<'_> for NumericDateVisitor {
    type Value = NumericDate;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number of seconds")
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<NumericDate, E> {
        Ok(NumericDate { floor: seconds, ceiling: seconds })
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<NumericDate, E> {
        self.visit_i64(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    fn visit_f64<E: Error>(self, seconds: f64) -> Result<NumericDate, E> {
        // The casts saturate, and a JSON number is always finite.
        Ok(NumericDate { floor: seconds.floor() as i64, ceiling: seconds.ceil() as i64 })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<NumericDate, E> {
        let number: Number = serde_json::from_str(text).map_err(|_| E::custom("no number"))?;
        match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(seconds), ..) => self.visit_i64(seconds),
            (_, Some(seconds), _) => self.visit_u64(seconds),
            (.., Some(seconds)) => self.visit_f64(seconds),
            (None, None, None) => Err(E::custom("no number")),
        }
    }
}
