//! A channel whose name contains parts of a row event, such as `db:{schema}.{table}:{id}`.
//!
//! Invariant: a value of a row never adds a separator to the name. Everything except letters,
//! digits, `-`, `.`, `_` and `~` is percent-encoded, as `encodeURIComponent` does nearly alike.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde_json::value::RawValue;

use crate::limits::TEMPLATE_LENGTH_MAX;
use crate::row_event::{Row, RowEvent};

/// A channel name with placeholders for parts of a row event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelTemplate {
    parts: Vec<Part>,
    text: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Database,
    Schema,
    Table,
    RowOperation,
    Column(Box<str>),
}

/// Why a template is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is nothing.
    #[error("is empty; a template is a channel such as \"db:{{schema}}.{{table}}:{{id}}\"")]
    Empty,
    /// It is longer than a channel can be.
    #[error("is longer than {TEMPLATE_LENGTH_MAX} bytes")]
    TooLong,
    /// A brace is opened and not closed, or closed and not opened.
    #[error("has a brace without its other half; write {{{{ for the character itself")]
    Unbalanced,
    /// `{}` or `{row.}`.
    #[error("has empty braces; name a column, or schema, table, database or operation")]
    Nameless,
    /// The namespace would depend on the data of a row.
    #[error(
        "takes its namespace from the column {0:?}; only schema, table, database and operation may \
         stand before the first \":\""
    )]
    NamespaceOfColumn(Box<str>),
}

/// Why an event has no channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelFault {
    /// The event does not have the column.
    #[error("the event has no column {0:?}")]
    Missing(Box<str>),
    /// The column is null.
    #[error("the column {0:?} is null")]
    Null(Box<str>),
    /// The column is an array or an object.
    #[error("the column {0:?} is not a text, number or boolean")]
    Compound(Box<str>),
}

impl FromStr for ChannelTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<ChannelTemplate, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        if text.len() > TEMPLATE_LENGTH_MAX {
            return Err(TemplateError::TooLong);
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let doubled = |brace: &str| rest.strip_prefix(brace);
            if let Some(after) = doubled("{{").or_else(|| doubled("}}")) {
                literal.push(next);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or(TemplateError::Unbalanced)?;
                if name.contains('{') {
                    return Err(TemplateError::Unbalanced);
                }
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                }
                parts.push(part(name)?);
                rest = after;
            } else if next == '}' {
                return Err(TemplateError::Unbalanced);
            } else {
                literal.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        check_namespace(&parts)?;
        Ok(ChannelTemplate { parts, text: text.into() })
    }
}

fn part(name: &str) -> Result<Part, TemplateError> {
    Ok(match name {
        "database" => Part::Database,
        "schema" => Part::Schema,
        "table" => Part::Table,
        "operation" => Part::RowOperation,
        name => match name.strip_prefix("row.").unwrap_or(name) {
            "" => return Err(TemplateError::Nameless),
            column => Part::Column(column.into()),
        },
    })
}

/// A column before the first `:` would let the data of a row choose rules of channels.
fn check_namespace(parts: &[Part]) -> Result<(), TemplateError> {
    for part in parts {
        match part {
            Part::Literal(text) if text.contains(':') => return Ok(()),
            Part::Column(name) => {
                let has_namespace = parts
                    .iter()
                    .any(|part| matches!(part, Part::Literal(text) if text.contains(':')));
                return match has_namespace {
                    true => Err(TemplateError::NamespaceOfColumn(name.clone())),
                    false => Ok(()),
                };
            }
            _ => {}
        }
    }
    Ok(())
}

impl fmt::Display for ChannelTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl ChannelTemplate {
    /// Whether the channel depends on a column.
    pub fn has_column(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Column(_)))
    }

    /// Channels of an event: that of the row, and that of the old row if its columns have moved
    /// the row to another channel.
    ///
    /// # Errors
    /// [`ChannelFault`] if neither row has a value for each column.
    pub fn channels(&self, event: &RowEvent) -> Result<Vec<String>, ChannelFault> {
        let of = |row: &Row| self.render(event, &|column| row.get(column).or(old(event, column)));
        let mut channels = Vec::with_capacity(1);
        match &event.row {
            Some(row) => channels.push(of(row)?),
            None => channels.push(self.render(event, &|column| old(event, column))?),
        }
        if self.has_column()
            && let (Some(_), Some(row)) = (&event.row, &event.old)
            && let Ok(left) = self.render(event, &|column| row.get(column).or(new(event, column)))
            && left != channels[0]
        {
            channels.push(left);
        }
        Ok(channels)
    }

    fn render<'e>(
        &self,
        event: &RowEvent,
        column: &dyn Fn(&str) -> Option<&'e RawValue>,
    ) -> Result<String, ChannelFault> {
        let mut channel = String::with_capacity(self.text.len());
        for part in &self.parts {
            match part {
                Part::Literal(text) => channel.push_str(text),
                Part::Database => encode(&mut channel, event.database.as_deref().unwrap_or("")),
                Part::Schema => encode(&mut channel, &event.schema),
                Part::Table => encode(&mut channel, &event.table),
                Part::RowOperation => channel.push_str(event.operation.name()),
                Part::Column(name) => {
                    let value = column(name).ok_or_else(|| ChannelFault::Missing(name.clone()))?;
                    encode(&mut channel, &scalar(name, value)?);
                }
            }
        }
        Ok(channel)
    }
}

fn old<'e>(event: &'e RowEvent, column: &str) -> Option<&'e RawValue> {
    event.old.as_ref()?.get(column)
}

fn new<'e>(event: &'e RowEvent, column: &str) -> Option<&'e RawValue> {
    event.row.as_ref()?.get(column)
}

fn scalar<'v>(name: &str, value: &'v RawValue) -> Result<Cow<'v, str>, ChannelFault> {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text)
            .map(Cow::Owned)
            .map_err(|_| ChannelFault::Compound(name.into())),
        Some(b'{' | b'[') | None => Err(ChannelFault::Compound(name.into())),
        Some(b'n') => Err(ChannelFault::Null(name.into())),
        Some(_) => Ok(Cow::Borrowed(text)),
    }
}

fn encode(channel: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            channel.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            channel.push('%');
            channel.push(char::from(HEX[usize::from(byte >> 4)]));
            channel.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row_event::RowOperation;

    fn row(columns: &[(&str, &str)]) -> Row {
        let column = |(name, json): &(&str, &str)| {
            ((*name).into(), RawValue::from_string((*json).to_owned()).unwrap())
        };
        Row::new(columns.iter().map(column).collect())
    }

    fn event(new: Option<Row>, old: Option<Row>) -> RowEvent {
        RowEvent {
            operation: RowOperation::Update,
            database: None,
            schema: "public".into(),
            table: "orders".into(),
            row: new,
            old,
            unchanged: Vec::new(),
            time_ms: None,
            position: None,
        }
    }

    fn channels(template: &str, event: &RowEvent) -> Result<Vec<String>, ChannelFault> {
        template.parse::<ChannelTemplate>().unwrap().channels(event)
    }

    #[test]
    fn parts_are_replaced_and_values_cannot_add_separators() {
        let changed = event(Some(row(&[("id", "7"), ("who", r#""a:b#é""#)])), None);
        let found = channels("db:{schema}.{table}:{id}:{row.who}{{x}}", &changed);
        assert_eq!(found.unwrap(), ["db:public.orders:7:a%3Ab%23%C3%A9{x}"]);
    }

    #[test]
    fn a_row_that_moves_is_told_in_both_channels() {
        let moved = event(Some(row(&[("id", "8"), ("n", "1")])), Some(row(&[("id", "7")])));
        assert_eq!(channels("o:{id}", &moved).unwrap(), ["o:8", "o:7"]);
        assert_eq!(channels("o:{table}", &moved).unwrap(), ["o:orders"]);
        let gone = event(None, Some(row(&[("id", "7")])));
        assert_eq!(channels("o:{id}", &gone).unwrap(), ["o:7"]);
    }

    #[test]
    fn values_that_name_no_channel_are_faults() {
        let odd = event(Some(row(&[("a", "null"), ("b", "[1]")])), None);
        assert_eq!(channels("o:{a}", &odd), Err(ChannelFault::Null("a".into())));
        assert_eq!(channels("o:{b}", &odd), Err(ChannelFault::Compound("b".into())));
        assert_eq!(channels("o:{c}", &odd), Err(ChannelFault::Missing("c".into())));
    }

    #[test]
    fn invalid_templates_are_refused() {
        let error = |text: &str| text.parse::<ChannelTemplate>().unwrap_err();
        assert_eq!(error(""), TemplateError::Empty);
        assert_eq!(error("a:{b"), TemplateError::Unbalanced);
        assert_eq!(error("a:b}"), TemplateError::Unbalanced);
        assert_eq!(error("a:{}"), TemplateError::Nameless);
        assert_eq!(error("{tenant}:x"), TemplateError::NamespaceOfColumn("tenant".into()));
        assert!("{table}:{id}".parse::<ChannelTemplate>().is_ok());
    }
}
