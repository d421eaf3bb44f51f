//! The tables of a replication stream, and their rows as events.
//!
//! Invariant: a message of the log about a table that the stream has not described is an error,
//! never a row with guessed columns.

use std::collections::HashMap;
use std::sync::Arc;

use super::pgoutput::{OldTuple, RelationMessage, Transaction, Tuple, TupleValue};
use super::row_json;
use crate::limits::RELATIONS_MAX;
use crate::row_event::{Row, RowEvent, RowOperation};

/// Tables that a replication stream has described, by id.
#[derive(Debug, Default)]
pub(super) struct Relations(HashMap<u32, Relation>);

/// A table.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) schema: Arc<str>,
    pub(super) table: Arc<str>,
    columns: Vec<KnownColumn>,
}

#[derive(Debug)]
struct KnownColumn {
    name: Arc<str>,
    is_key: bool,
    type_id: u32,
}

/// Why a message cannot be turned into an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RelationError {
    #[error("the log names the table {0} before it has described it")]
    Unknown(u32),
    #[error("a row has {found} columns, its table {expected}")]
    Columns { found: usize, expected: usize },
    #[error("a value is not UTF-8")]
    Text,
    #[error("the log describes more than {RELATIONS_MAX} tables")]
    TooMany,
}

/// A change of one row.
#[derive(Debug)]
pub(super) enum RowChange {
    Insert(Tuple),
    Update(Option<OldTuple>, Tuple),
    Delete(OldTuple),
    Truncate,
}

impl Relations {
    /// Learns a table, or its new form.
    pub(super) fn describe(&mut self, message: RelationMessage) -> Result<(), RelationError> {
        if self.0.len() >= RELATIONS_MAX && !self.0.contains_key(&message.id) {
            return Err(RelationError::TooMany);
        }
        let columns = message.columns.into_iter().map(|column| KnownColumn {
            name: column.name.into(),
            is_key: column.is_key,
            type_id: column.type_id,
        });
        let relation = Relation {
            schema: message.schema.into(),
            table: message.table.into(),
            columns: columns.collect(),
        };
        self.0.insert(message.id, relation);
        Ok(())
    }

    pub(super) fn get(&self, id: u32) -> Result<&Relation, RelationError> {
        self.0.get(&id).ok_or(RelationError::Unknown(id))
    }
}

impl Relation {
    /// The event of a change in this transaction.
    pub(super) fn event(
        &self,
        transaction: &Transaction,
        change: RowChange,
    ) -> Result<RowEvent, RelationError> {
        let mut event = RowEvent {
            operation: RowOperation::Truncate,
            database: None,
            schema: self.schema.clone(),
            table: self.table.clone(),
            row: None,
            old: None,
            unchanged: Vec::new(),
            time_ms: Some(transaction.time_ms),
            position: Some(transaction.commit.to_string().into()),
        };
        match change {
            RowChange::Insert(row) => {
                event.operation = RowOperation::Insert;
                event.row = Some(self.row(&row, None, &mut event.unchanged)?);
            }
            RowChange::Update(old, row) => {
                event.operation = RowOperation::Update;
                let before = match &old {
                    Some(OldTuple::Full(before)) => Some(before),
                    _ => None,
                };
                event.row = Some(self.row(&row, before, &mut event.unchanged)?);
                event.old = old.map(|old| self.old(&old)).transpose()?;
            }
            RowChange::Delete(old) => {
                event.operation = RowOperation::Delete;
                event.old = Some(self.old(&old)?);
            }
            RowChange::Truncate => {}
        }
        Ok(event)
    }

    /// The new row. A value that did not change is taken from the row before where that is whole;
    /// otherwise its column is named in `unchanged`.
    fn row(
        &self,
        row: &Tuple,
        before: Option<&Tuple>,
        unchanged: &mut Vec<Arc<str>>,
    ) -> Result<Row, RelationError> {
        self.check(row)?;
        let mut columns = Vec::with_capacity(row.0.len());
        for (index, (column, value)) in self.columns.iter().zip(&row.0).enumerate() {
            let value = match (value, before.and_then(|before| before.0.get(index))) {
                (TupleValue::Unchanged, Some(before)) => before,
                (value, _) => value,
            };
            match column.json(value)? {
                Some(json) => columns.push((column.name.clone(), json)),
                None => unchanged.push(column.name.clone()),
            }
        }
        Ok(Row::new(columns))
    }

    fn old(&self, old: &OldTuple) -> Result<Row, RelationError> {
        let (tuple, is_key_only) = match old {
            OldTuple::Key(tuple) => (tuple, true),
            OldTuple::Full(tuple) => (tuple, false),
        };
        self.check(tuple)?;
        let mut columns = Vec::new();
        for (column, value) in self.columns.iter().zip(&tuple.0) {
            if is_key_only && !column.is_key {
                continue;
            }
            if let Some(json) = column.json(value)? {
                columns.push((column.name.clone(), json));
            }
        }
        Ok(Row::new(columns))
    }

    fn check(&self, tuple: &Tuple) -> Result<(), RelationError> {
        let (found, expected) = (tuple.0.len(), self.columns.len());
        match found == expected {
            true => Ok(()),
            false => Err(RelationError::Columns { found, expected }),
        }
    }
}

impl KnownColumn {
    fn json(
        &self,
        value: &TupleValue,
    ) -> Result<Option<Box<serde_json::value::RawValue>>, RelationError> {
        Ok(match value {
            TupleValue::Unchanged => None,
            TupleValue::Null => Some(row_json::null()),
            TupleValue::Text(text) => {
                let text = std::str::from_utf8(text).map_err(|_| RelationError::Text)?;
                Some(row_json::json_of(self.type_id, text))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::lsn::Lsn;
    use super::super::pgoutput::Column;
    use super::*;

    fn text(value: &str) -> TupleValue {
        TupleValue::Text(value.to_owned().into())
    }

    fn event(change: RowChange) -> Result<String, RelationError> {
        let mut relations = Relations::default();
        let column =
            |name: &str, is_key, type_id| Column { name: name.to_owned(), is_key, type_id };
        relations.describe(RelationMessage {
            id: 7,
            schema: "public".to_owned(),
            table: "t".to_owned(),
            columns: vec![column("id", true, 20), column("body", false, 25)],
        })?;
        let transaction = Transaction { commit: Lsn(0x1F), time_ms: 5 };
        let event = relations.get(7)?.event(&transaction, change)?;
        Ok(String::from_utf8(event.to_json().into()).unwrap())
    }

    #[test]
    fn a_change_is_an_event_with_what_the_log_has() {
        let key = || OldTuple::Key(Tuple(vec![text("1"), TupleValue::Null]));
        let full = || OldTuple::Full(Tuple(vec![text("1"), text("long")]));
        let new = |body: TupleValue| Tuple(vec![text("2"), body]);
        let cases = [
            (RowChange::Insert(new(TupleValue::Null)), r#""row":{"id":2,"body":null}"#),
            (
                RowChange::Update(None, new(TupleValue::Unchanged)),
                r#""row":{"id":2},"unchanged":["body"]"#,
            ),
            (
                RowChange::Update(Some(key()), new(text("x"))),
                r#""row":{"id":2,"body":"x"},"old":{"id":1}"#,
            ),
            (
                RowChange::Update(Some(full()), new(TupleValue::Unchanged)),
                r#""row":{"id":2,"body":"long"},"old":{"id":1,"body":"long"}"#,
            ),
            (RowChange::Delete(key()), r#""old":{"id":1}"#),
        ];
        for (change, expected) in cases {
            let json = event(change).unwrap();
            let tail = r#","time_ms":5,"position":"0/1F"}"#;
            assert!(json.ends_with(&format!("{expected}{tail}")), "{json}");
        }
        let wrong = RowChange::Insert(Tuple(vec![text("1")]));
        assert_eq!(event(wrong), Err(RelationError::Columns { found: 1, expected: 2 }));
    }

    #[test]
    fn a_table_that_was_not_described_is_an_error() {
        assert_eq!(Relations::default().get(3).err(), Some(RelationError::Unknown(3)));
    }
}
