//! Names and texts inside SQL.
//!
//! Invariant: what comes from the configuration is part of a statement only through this file.

use std::fmt;
use std::str::FromStr;

/// A table as SQL writes it: `outbox`, `app.outbox` or `"App"."Outbox"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName(Box<str>);

/// The text is no name of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a table such as outbox, app.outbox or \"App\".\"Outbox\"")]
pub struct NotTableName;

impl FromStr for TableName {
    type Err = NotTableName;

    fn from_str(text: &str) -> Result<TableName, NotTableName> {
        let mut rest = text;
        for _ in 0..3 {
            rest = after_name(rest).ok_or(NotTableName)?;
            match rest.strip_prefix('.') {
                Some(after) => rest = after,
                None if rest.is_empty() => return Ok(TableName(text.into())),
                None => return Err(NotTableName),
            }
        }
        Err(NotTableName)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What follows a name at the beginning of a text.
fn after_name(text: &str) -> Option<&str> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (name, after) = quoted.split_once('"')?;
        return (!name.is_empty() && !name.contains('\0')).then_some(after);
    }
    let is_inner = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let end = text.find(|c: char| !is_inner(c)).unwrap_or(text.len());
    let is_name = text.starts_with(|c: char| c.is_alphabetic() || c == '_');
    is_name.then(|| &text[end..])
}

/// A name with its exact characters.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text, whatever `standard_conforming_strings` is.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_tables() {
        for table in ["outbox", "app.outbox", "\"App\".\"Out.box\"", "db.app.outbox", "größe"] {
            assert!(table.parse::<TableName>().is_ok(), "{table}");
        }
        for table in
            ["", "a b", "a;drop table b", "a.", ".a", "1a", "\"a", "a.b.c.d", "a--", "\"\""]
        {
            assert_eq!(table.parse::<TableName>(), Err(NotTableName), "{table}");
        }
    }

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("a'b\\"), "E'a\\'b\\\\'");
    }
}
