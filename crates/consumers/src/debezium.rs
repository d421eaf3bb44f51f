//! Events of Debezium: changes of rows of any database, as JSON with or without a schema.
//!
//! Invariant: an event without meaning for subscribers (a message of the log, the end of a key) is
//! passed over; an event that is not understood is an error with a reason.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::channel_template::ChannelTemplate;
use crate::decode::Undecodable;
use crate::message::ConsumedPublication;
use crate::row_event::{Row, RowEvent, RowOperation};

/// How events become publications.
#[derive(Clone, Debug)]
pub struct ChangeEvents {
    /// The channel of an event.
    pub channel: ChannelTemplate,
}

impl ChangeEvents {
    /// The publication of an event; `None` if it has no meaning for subscribers.
    ///
    /// # Errors
    /// What is wrong with the event.
    pub fn publication(
        &self,
        value: &[u8],
        idempotency_key: String,
    ) -> Result<Option<ConsumedPublication>, Undecodable> {
        let Some(event) = decode(value)? else { return Ok(None) };
        let channels = self.channel.channels(&event).map_err(|fault| {
            let table = &event.table;
            Cow::from(format!("the event of table {table} has no channel: {fault}"))
        })?;
        Ok(Some(ConsumedPublication {
            channels,
            data: event.to_json(),
            idempotency_key,
            ..ConsumedPublication::default()
        }))
    }
}

/// Decodes an event; `None` if it has no meaning for subscribers.
///
/// # Errors
/// What is wrong with the event.
pub fn decode(value: &[u8]) -> Result<Option<RowEvent>, Undecodable> {
    let mut envelope: Envelope<'_> = read(value)?;
    if envelope.op.is_none() && envelope.payload.is_some() {
        // With a schema the event is one level deeper.
        envelope = read(envelope.payload.map_or("", RawValue::get).as_bytes())?;
    } else if envelope.op.is_none() && envelope.has_schema {
        return Ok(None);
    }
    let op = envelope.op.ok_or("the record is not a Debezium event: it has no \"op\"")?;
    let operation = match &*op {
        "c" => RowOperation::Insert,
        "u" => RowOperation::Update,
        "d" => RowOperation::Delete,
        "r" => RowOperation::Read,
        "t" => RowOperation::Truncate,
        "m" => return Ok(None),
        op => {
            let shown: String = op.chars().take(20).flat_map(char::escape_debug).collect();
            return Err(format!("the event has the unknown \"op\" \"{shown}\"").into());
        }
    };
    let source = envelope.source.ok_or("the event has no \"source\"")?;
    let table = source.table.as_deref().ok_or("the event's \"source\" names no table")?;
    let text = |name: &Option<Cow<'_, str>>| {
        name.as_deref().filter(|name| !name.is_empty()).map(Arc::from)
    };
    Ok(Some(RowEvent {
        operation,
        database: text(&source.db),
        schema: text(&source.schema).unwrap_or_default(),
        table: table.into(),
        row: envelope.after.map(Columns::row),
        old: envelope.before.map(Columns::row),
        unchanged: Vec::new(),
        time_ms: source.ts_ms.or(envelope.ts_ms),
        position: source.position(),
    }))
}

fn read<'v, T: Deserialize<'v>>(value: &'v [u8]) -> Result<T, Undecodable> {
    let read = serde_json::from_slice(value);
    read.map_err(|error| format!("the record is not a Debezium event in JSON: {error}").into())
}

#[derive(Deserialize)]
struct Envelope<'e> {
    #[serde(borrow)]
    payload: Option<&'e RawValue>,
    #[serde(default, rename = "schema", deserialize_with = "is_there")]
    has_schema: bool,
    #[serde(borrow)]
    op: Option<Cow<'e, str>>,
    before: Option<Columns>,
    after: Option<Columns>,
    #[serde(borrow)]
    source: Option<EventSource<'e>>,
    ts_ms: Option<i64>,
}

#[derive(Deserialize)]
struct EventSource<'e> {
    #[serde(borrow)]
    db: Option<Cow<'e, str>>,
    #[serde(borrow)]
    schema: Option<Cow<'e, str>>,
    #[serde(borrow)]
    table: Option<Cow<'e, str>>,
    ts_ms: Option<i64>,
    /// Of PostgreSQL.
    lsn: Option<u64>,
    /// Of MySQL and MariaDB.
    #[serde(borrow)]
    file: Option<Cow<'e, str>>,
    pos: Option<u64>,
}

impl EventSource<'_> {
    /// Place in the log of the database.
    fn position(&self) -> Option<Box<str>> {
        let text = match (self.lsn, &self.file, self.pos) {
            (Some(lsn), _, _) => format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF),
            (None, Some(file), Some(pos)) if !file.is_empty() => format!("{file}:{pos}"),
            _ => return None,
        };
        Some(text.into())
    }
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Columns in the order of the event.
struct Columns(Vec<(Arc<str>, Box<RawValue>)>);

impl Columns {
    fn row(self) -> Row {
        Row::new(self.0)
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Columns, D::Error> {
        deserializer.deserialize_map(ColumnsVisitor)
    }
}

struct ColumnsVisitor;

impl<'de> Visitor<'de> for ColumnsVisitor {
    type Value = Columns;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of columns")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
        let mut columns = Vec::with_capacity(map.size_hint().unwrap_or_default().min(64));
        while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
            columns.push((name.into(), value));
        }
        Ok(Columns(columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(value: &str) -> Result<Option<(Vec<String>, String)>, Undecodable> {
        let events = ChangeEvents { channel: "db:{database}.{table}:{id}".parse().unwrap() };
        let publication = events.publication(value.as_bytes(), "key".to_owned())?;
        Ok(publication.map(|publication| {
            (publication.channels, String::from_utf8(publication.data.to_vec()).unwrap())
        }))
    }

    const MYSQL: &str = r#""source":{"version":"3.4.0.Final","connector":"mysql","name":"shop",
        "ts_ms":1700000000000,"snapshot":"false","db":"shop","table":"orders","server_id":1,
        "file":"binlog.000003","pos":1234,"row":0},"ts_ms":1700000000123,"transaction":null"#;

    #[test]
    fn a_change_of_mysql_becomes_a_publication_with_operation_and_rows() {
        let update = format!(
            r#"{{"before":{{"id":7,"price":1.10}},"after":{{"id":7,"price":1.20}},"op":"u",{MYSQL}}}"#
        );
        let (channels, data) = publish(&update).unwrap().unwrap();
        assert_eq!(channels, ["db:shop.orders:7"]);
        assert_eq!(
            data,
            r#"{"operation":"update","database":"shop","schema":"","table":"orders","row":{"id":7,"price":1.20},"old":{"id":7,"price":1.10},"time_ms":1700000000000,"position":"binlog.000003:1234"}"#
        );
        let with_schema = format!(r#"{{"schema":{{"type":"struct"}},"payload":{update}}}"#);
        assert_eq!(publish(&with_schema).unwrap().unwrap().1, data);
    }

    #[test]
    fn every_operation_has_its_name() {
        let event = |op: &str, before: &str, after: &str| {
            let text = format!(r#"{{"before":{before},"after":{after},"op":"{op}",{MYSQL}}}"#);
            publish(&text).unwrap().map(|(_, data)| data)
        };
        let row = r#"{"id":1}"#;
        let named = |data: Option<String>, name: &str| {
            assert!(data.unwrap().starts_with(&format!(r#"{{"operation":"{name}""#)), "{name}");
        };
        named(event("c", "null", row), "insert");
        named(event("r", "null", row), "read");
        named(event("d", row, "null"), "delete");
        assert_eq!(event("m", "null", "null"), None);
        assert_eq!(publish(r#"{"schema":null,"payload":null}"#).unwrap(), None);
    }

    #[test]
    fn what_is_no_event_is_refused_with_a_reason() {
        let cases = [
            ("", "in JSON"),
            ("[]", "in JSON"),
            ("7", "in JSON"),
            ("{}", "has no \"op\""),
            (r#"{"op":"x"}"#, "unknown \"op\" \"x\""),
            (r#"{"op":"c"}"#, "no \"source\""),
            (r#"{"op":"c","source":{}}"#, "names no table"),
            (r#"{"op":"c","after":[1],"source":{"table":"t"}}"#, "in JSON"),
            (r#"{"op":"c","after":{"no":1},"source":{"table":"t"}}"#, "no column \"id\""),
        ];
        for (value, reason) in cases {
            let error = publish(value).unwrap_err();
            assert!(error.contains(reason), "{value}: {error}");
        }
    }
}
