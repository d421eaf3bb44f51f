//! Values of PostgreSQL in their text form as JSON, by the identifier of their type.
//!
//! Invariants: the result is valid JSON without line breaks; numbers keep all digits; a value of an
//! unknown type, or one that is not what its type promises, is a string.

use serde_json::value::RawValue;

/// A value as JSON.
pub(super) fn json_of(type_id: u32, text: &str) -> Box<RawValue> {
    match ValueForm::of(type_id) {
        ValueForm::Array(item) => array(item, text).unwrap_or_else(|| string(text)),
        form => scalar(form, text),
    }
}

/// The JSON null.
pub(super) fn null() -> Box<RawValue> {
    raw("null".to_owned()).unwrap_or_else(|| string(""))
}

/// The form that a type takes in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueForm {
    Boolean,
    Number,
    Json,
    Text,
    Array(ArrayItem),
}

/// The form of the items of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArrayItem {
    Boolean,
    Number,
    Json,
    Text,
}

impl ValueForm {
    /// By the identifiers in PostgreSQL's `pg_type.dat`, which never change.
    fn of(type_id: u32) -> ValueForm {
        match type_id {
            16 => ValueForm::Boolean,
            // int8, int2, int4, oid, float4, float8, numeric
            20 | 21 | 23 | 26 | 700 | 701 | 1700 => ValueForm::Number,
            114 | 3802 => ValueForm::Json,
            1000 => ValueForm::Array(ArrayItem::Boolean),
            1005 | 1007 | 1016 | 1021 | 1022 | 1028 | 1231 => ValueForm::Array(ArrayItem::Number),
            199 | 3807 => ValueForm::Array(ArrayItem::Json),
            // char, name, text, bpchar, varchar, date, time, timestamp, timestamptz, uuid
            1002 | 1003 | 1009 | 1014 | 1015 | 1115 | 1182 | 1183 | 1185 | 2951 => {
                ValueForm::Array(ArrayItem::Text)
            }
            _ => ValueForm::Text,
        }
    }
}

fn scalar(form: ValueForm, text: &str) -> Box<RawValue> {
    let found = match (form, text) {
        (ValueForm::Boolean, "t") => raw("true".to_owned()),
        (ValueForm::Boolean, "f") => raw("false".to_owned()),
        // NaN and Infinity are no numbers of JSON.
        (ValueForm::Number, text) if is_number(text) => raw(text.to_owned()),
        // In valid JSON a line break is only ever space between tokens.
        (ValueForm::Json, text) => raw(text.replace(['\n', '\r'], " ")),
        _ => None,
    };
    found.unwrap_or_else(|| string(text))
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.as_bytes().first().is_some_and(u8::is_ascii_digit)
}

fn raw(text: String) -> Option<Box<RawValue>> {
    RawValue::from_string(text).ok()
}

fn string(text: &str) -> Box<RawValue> {
    serde_json::value::to_raw_value(text).unwrap_or_default()
}

/// An array of one dimension, such as `{1,NULL,"a b"}`; `None` for any other text.
fn array(item: ArrayItem, text: &str) -> Option<Box<RawValue>> {
    let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut items: Vec<Box<RawValue>> = Vec::new();
    while !rest.is_empty() {
        let (value, is_quoted, after) = array_item(rest)?;
        items.push(match item {
            _ if !is_quoted && value == "NULL" => null(),
            ArrayItem::Boolean => scalar(ValueForm::Boolean, &value),
            ArrayItem::Number => scalar(ValueForm::Number, &value),
            ArrayItem::Json => scalar(ValueForm::Json, &value),
            ArrayItem::Text => string(&value),
        });
        rest = match after.strip_prefix(',') {
            Some("") => return None,
            Some(after) => after,
            None if after.is_empty() => after,
            None => return None,
        };
    }
    serde_json::value::to_raw_value(&items).ok()
}

/// The first item, whether it was quoted, and what follows it.
fn array_item(text: &str) -> Option<(String, bool, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        let is_plain = !value.is_empty() && !value.contains(['{', '}', '"', '\\']);
        return is_plain.then(|| (value.to_owned(), false, after));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, true, &quoted[index + 1..])),
            '\\' => value.push(characters.next()?.1),
            character => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(type_id: u32, text: &str) -> String {
        json_of(type_id, text).get().to_owned()
    }

    #[test]
    fn values_take_the_form_of_their_type() {
        assert_eq!(json(16, "t"), "true");
        assert_eq!(json(20, "9007199254740993"), "9007199254740993");
        assert_eq!(json(1700, "-0.10"), "-0.10");
        assert_eq!(json(701, "NaN"), r#""NaN""#);
        assert_eq!(json(701, "-Infinity"), r#""-Infinity""#);
        assert_eq!(json(701, "1e+20"), "1e+20");
        assert_eq!(json(114, "{\"a\":\n1}"), r#"{"a": 1}"#);
        assert_eq!(json(25, "a\"b"), r#""a\"b""#);
        assert_eq!(json(1184, "2026-01-02 03:04:05+00"), r#""2026-01-02 03:04:05+00""#);
        assert_eq!(json(99_999, "happy"), r#""happy""#);
        assert_eq!(null().get(), "null");
    }

    #[test]
    fn arrays_of_one_dimension_are_arrays() {
        assert_eq!(json(1007, "{1,NULL,3}"), "[1,null,3]");
        assert_eq!(json(1009, r#"{a,"b \"c\"","NULL",NULL}"#), r#"["a","b \"c\"","NULL",null]"#);
        assert_eq!(json(1009, "{}"), "[]");
        assert_eq!(json(1007, "{{1},{2}}"), r#""{{1},{2}}""#);
        assert_eq!(json(1007, "[0:1]={1,2}"), r#""[0:1]={1,2}""#);
        assert_eq!(json(3807, r#"{"{\"a\": 1}"}"#), r#"[{"a": 1}]"#);
        assert_eq!(json(1007, "{1,}"), r#""{1,}""#);
    }

    proptest! {
        #[test]
        fn whatever_the_text_the_result_is_json_of_one_line(type_id in prop_oneof![
            Just(16u32), Just(20), Just(114), Just(1000), Just(1007), Just(1009), Just(3807), Just(25)
        ], text in "[{}\",\\\\0-9a-zNUL\n .-]{0,20}") {
            let json = json_of(type_id, &text);
            prop_assert!(serde_json::from_str::<serde_json::Value>(json.get()).is_ok());
            prop_assert!(!json.get().contains('\n'));
        }
    }
}
