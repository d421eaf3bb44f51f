//! JSON values as members of commands are decoded.
//!
//! Invariant: `null` equals absence for every optional member of every command; only published data
//! keeps it. A number is its value, whatever its notation (`100`, `100.0`, `1e2`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};

/// A string, borrowed if it has no escapes; empty for `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn into_owned(self) -> String {
        self.0.into_owned()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string or null")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(""))
    }
}

/// An integer; zero for `null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JsonInteger<T>(pub(super) T);

/// Largest number that is exact when written with a point or an exponent.
const EXACT_MAX: f64 = (1u64 << f64::MANTISSA_DIGITS) as f64;

impl<'de, T: TryFrom<i128> + Default> Deserialize<'de> for JsonInteger<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<JsonInteger<T>, D::Error> {
        deserializer.deserialize_any(IntegerVisitor(PhantomData))
    }
}

struct IntegerVisitor<T>(PhantomData<T>);

impl<T: TryFrom<i128> + Default> Visitor<'_> for IntegerVisitor<T> {
    type Value = JsonInteger<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an integer in range, or null")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<JsonInteger<T>, E> {
        let number = T::try_from(i128::from(value)).map(JsonInteger);
        number.map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<JsonInteger<T>, E> {
        let number = T::try_from(i128::from(value)).map(JsonInteger);
        number.map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<JsonInteger<T>, E> {
        let is_whole = value.fract() == 0.0 && value.abs() <= EXACT_MAX;
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
        let number = is_whole.then(|| T::try_from(i128::from(value as i64)).ok()).flatten();
        number.map(JsonInteger).ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
    }

    fn visit_unit<E: Error>(self) -> Result<JsonInteger<T>, E> {
        Ok(JsonInteger(T::default()))
    }
}

/// A boolean; `false` for `null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flag(pub(super) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Flag, D::Error> {
        Option::deserialize(deserializer).map(|flag| Flag(flag.unwrap_or_default()))
    }
}

/// The entries of an object whose names are data; none for `null`. Repeated names are an error.
#[derive(Debug)]
pub(super) struct Entries<'a, T>(BTreeMap<Text<'a>, T>);

impl<T> Default for Entries<'_, T> {
    fn default() -> Self {
        Entries(BTreeMap::new())
    }
}

impl<T> Entries<'_, T> {
    pub(super) fn into_pairs(self) -> impl Iterator<Item = (String, T)> {
        self.0.into_iter().map(|(name, value)| (name.into_owned(), value))
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Entries<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor(PhantomData)).map(Entries)
    }
}

struct EntriesVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
    type Value = BTreeMap<Text<'de>, T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or null")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            if entries.insert(name, value).is_some() {
                return Err(A::Error::custom("a name is repeated"));
            }
        }
        Ok(entries)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }
}
