//! The column `payload` of an outbox, whatever its type: jsonb, json, text or bytea.
//!
//! Invariant: a payload that is too large does not leave the database.

use super::postgres_connection::PostgresConnection;
use super::postgres_error::PostgresError;
use super::sql_name::TableName;
use crate::limits::OUTBOX_PAYLOAD_MAX;

/// Type of the column `payload` of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PayloadColumn {
    Bytes,
    /// Its text form is the payload.
    Text,
}

impl PayloadColumn {
    pub(super) async fn of(
        connection: &mut PostgresConnection,
        table: &TableName,
    ) -> Result<PayloadColumn, PostgresError> {
        // With `limit 0` there is no row to read the type from.
        let sql = format!(
            "select pg_typeof(payload)::text from (select payload from {table} limit 0) o \
             right join (select 1) x on true"
        );
        let rows = connection.simple(&sql).await?;
        match rows.first().and_then(|row| row.text(0)) {
            Some("bytea") => Ok(PayloadColumn::Bytes),
            _ => Ok(PayloadColumn::Text),
        }
    }

    /// The payload unless it is too large, and its length.
    pub(super) fn selected(self) -> String {
        let text = match self {
            PayloadColumn::Bytes => "convert_from(payload, 'UTF8')",
            PayloadColumn::Text => "payload::text",
        };
        let length = match self {
            PayloadColumn::Bytes => "octet_length(payload)",
            PayloadColumn::Text => "octet_length(payload::text)",
        };
        format!("case when {length} <= {OUTBOX_PAYLOAD_MAX} then {text} end, {length}")
    }
}
