//! Whole numbers in requests.
//!
//! Invariant: a number that was rounded is refused.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

/// A whole number. JSON has one kind of number, so `242.0` is whole too.
pub(crate) struct Integer(pub(crate) i128);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Integer, D::Error> {
        deserializer.deserialize_any(IntegerVisitor)
    }
}

struct IntegerVisitor;

impl Visitor<'_> for IntegerVisitor {
    type Value = Integer;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Integer, E> {
        Ok(Integer(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Integer, E> {
        Ok(Integer(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Integer, E> {
        // A number below the range of `i64` may have been rounded to its lower bound.
        if number.fract() != 0.0 || number <= i64::MIN as f64 {
            return Err(E::invalid_type(Unexpected::Float(number), &self));
        }
        // The cast saturates; the caller refuses numbers out of the range of the field.
        Ok(Integer(number as i128))
    }
}
