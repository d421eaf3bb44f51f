//! A struct that is read from a JSON object only. A derived `Deserialize` would also take the
//! fields from an array, in their order, which nobody means who writes a token or a request.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::cause::Cause;

/// A value of `T` that was written as an object.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Reads the claims of a token. What was wrong stays unsaid: the text of the error could quote
/// the token.
pub(super) fn read_claims<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, Cause> {
    serde_json::from_slice::<Object<T>>(payload)
        .map(|Object(claims)| claims)
        .map_err(|_| Cause::Claims)
}
