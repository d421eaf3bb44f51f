//! Types that the value of an option can have.
//!
//! Invariant: [`OptionValue::of`] accepts every value that `coerce` has made for the kind of the
//! type.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use serde_json::Value;

use super::duration::parse_ms;

/// Type and range of the value of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number from 0 to this maximum.
    Integer(u64),
    /// A duration such as `"10s"` or `"1m30s"`.
    Duration,
    /// Any text.
    Text,
    /// Text that is never logged or printed.
    Secret,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A list of texts.
    List,
    /// Texts by name.
    Map,
}

/// A type of options.
pub(crate) trait OptionValue: Sized {
    const KIND: Kind;

    /// Converts a value of this kind.
    fn of(value: &Value) -> Option<Self>;
}

impl OptionValue for bool {
    const KIND: Kind = Kind::Bool;

    fn of(value: &Value) -> Option<bool> {
        value.as_bool()
    }
}

impl OptionValue for u16 {
    const KIND: Kind = Kind::Integer(u16::MAX as u64);

    fn of(value: &Value) -> Option<u16> {
        value.as_u64()?.try_into().ok()
    }
}

impl OptionValue for u32 {
    const KIND: Kind = Kind::Integer(u32::MAX as u64);

    fn of(value: &Value) -> Option<u32> {
        value.as_u64()?.try_into().ok()
    }
}

/// A number from 0 to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpTo<const MAX: u64>(u64);

impl<const MAX: u64> From<UpTo<MAX>> for u64 {
    fn from(number: UpTo<MAX>) -> u64 {
        number.0
    }
}

impl<const MAX: u64> OptionValue for UpTo<MAX> {
    const KIND: Kind = Kind::Integer(MAX);

    fn of(value: &Value) -> Option<UpTo<MAX>> {
        value.as_u64().filter(|number| *number <= MAX).map(UpTo)
    }
}

/// A Unix time in seconds.
impl OptionValue for i64 {
    const KIND: Kind = Kind::Integer(i64::MAX as u64);

    fn of(value: &Value) -> Option<i64> {
        value.as_i64()
    }
}

impl OptionValue for Duration {
    const KIND: Kind = Kind::Duration;

    fn of(value: &Value) -> Option<Duration> {
        parse_ms(value.as_str()?).map(Duration::from_millis)
    }
}

impl OptionValue for String {
    const KIND: Kind = Kind::Text;

    fn of(value: &Value) -> Option<String> {
        value.as_str().map(str::to_owned)
    }
}

/// A text that is never logged or printed.
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl OptionValue for Secret {
    const KIND: Kind = Kind::Secret;

    fn of(value: &Value) -> Option<Secret> {
        value.as_str().map(|text| Secret(text.to_owned()))
    }
}

impl OptionValue for Vec<String> {
    const KIND: Kind = Kind::List;

    fn of(value: &Value) -> Option<Vec<String>> {
        value.as_array()?.iter().map(String::of).collect()
    }
}

impl OptionValue for BTreeMap<String, String> {
    const KIND: Kind = Kind::Map;

    fn of(value: &Value) -> Option<BTreeMap<String, String>> {
        let members = value.as_object()?.iter();
        members.map(|(name, value)| Some((name.clone(), String::of(value)?))).collect()
    }
}

/// Makes a type an option that is one of some texts: `one_of!(LogFormat { "json" => Json })`.
macro_rules! one_of {
    ($type:ident { $($text:literal => $value:expr),* $(,)? }) => {
        impl $crate::config::kind::OptionValue for $type {
            const KIND: $crate::config::kind::Kind =
                $crate::config::kind::Kind::OneOf(&[$($text),*]);

            fn of(value: &serde_json::Value) -> Option<$type> {
                match value.as_str()? {
                    $($text => Some($value),)*
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use one_of;
