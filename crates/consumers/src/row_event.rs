//! A change of one row of a table, whatever reports it: PostgreSQL's log or an event of Debezium.
//!
//! Invariant: values keep the digits and the order of columns that the source has written; nothing
//! is rounded by a number type of ours.

use std::sync::Arc;

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;

/// A change of one row of a table.
#[derive(Clone, Debug)]
pub struct RowEvent {
    /// What happened to the row.
    pub operation: RowOperation,
    /// Database, where the source names it.
    pub database: Option<Arc<str>>,
    /// Schema of the table; empty where the source has none.
    pub schema: Arc<str>,
    /// Name of the table.
    pub table: Arc<str>,
    /// The row after the change.
    pub row: Option<Row>,
    /// The row before the change, or those of its columns that the source has logged.
    pub old: Option<Row>,
    /// Columns that did not change and that the source therefore left out.
    pub unchanged: Vec<Arc<str>>,
    /// Unix milliseconds of the commit.
    pub time_ms: Option<i64>,
    /// Place of the change in the log of the source.
    pub position: Option<Box<str>>,
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOperation {
    /// The row is new.
    Insert,
    /// The row has other values.
    Update,
    /// The row is gone.
    Delete,
    /// All rows of the table are gone.
    Truncate,
    /// The row existed when the source took its snapshot.
    Read,
}

/// Columns of a row with their values, in the order of the table.
#[derive(Clone, Debug, Default)]
pub struct Row(Vec<(Arc<str>, Box<RawValue>)>);

impl RowOperation {
    /// The name in payloads and templates.
    pub fn name(self) -> &'static str {
        match self {
            RowOperation::Insert => "insert",
            RowOperation::Update => "update",
            RowOperation::Delete => "delete",
            RowOperation::Truncate => "truncate",
            RowOperation::Read => "read",
        }
    }
}

impl Row {
    /// A row of these columns.
    pub fn new(columns: Vec<(Arc<str>, Box<RawValue>)>) -> Row {
        Row(columns)
    }

    /// The value of a column.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(column, _)| **column == *name).map(|(_, value)| &**value)
    }

    /// Whether it has no column.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(&**name, value)?;
        }
        map.end()
    }
}

impl Serialize for RowEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("operation", self.operation.name())?;
        if let Some(database) = &self.database {
            map.serialize_entry("database", &**database)?;
        }
        map.serialize_entry("schema", &*self.schema)?;
        map.serialize_entry("table", &*self.table)?;
        if let Some(row) = &self.row {
            map.serialize_entry("row", row)?;
        }
        if let Some(old) = &self.old {
            map.serialize_entry("old", old)?;
        }
        if !self.unchanged.is_empty() {
            let names: Vec<&str> = self.unchanged.iter().map(|name| &**name).collect();
            map.serialize_entry("unchanged", &names)?;
        }
        if let Some(time_ms) = self.time_ms {
            map.serialize_entry("time_ms", &time_ms)?;
        }
        if let Some(position) = &self.position {
            map.serialize_entry("position", &**position)?;
        }
        map.end()
    }
}

impl RowEvent {
    /// The payload of the publication.
    pub fn to_json(&self) -> Bytes {
        // Serializing maps with string keys into memory cannot fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_keeps_digits_and_the_order_of_columns() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let row =
            Row::new(vec![("z".into(), raw("12345678901234567890.10")), ("a".into(), raw("null"))]);
        let event = RowEvent {
            operation: RowOperation::Update,
            database: None,
            schema: "public".into(),
            table: "orders".into(),
            row: Some(row),
            old: None,
            unchanged: vec!["body".into()],
            time_ms: Some(5),
            position: Some("0/1F".into()),
        };
        assert_eq!(
            event.to_json(),
            r#"{"operation":"update","schema":"public","table":"orders","row":{"z":12345678901234567890.10,"a":null},"unchanged":["body"],"time_ms":5,"position":"0/1F"}"#
        );
    }
}
