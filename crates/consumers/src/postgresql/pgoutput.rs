//! Messages of `pgoutput`, the logical decoding of PostgreSQL (protocol version 1), as values.
//!
//! Invariants: any bytes give a message or an error, never a panic; nothing is allocated for an
//! announced count before its bytes are there; values are parts of the message and not copied.

use bytes::{Buf as _, Bytes};

use super::lsn::Lsn;

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum LogMessage {
    /// A transaction begins.
    Begin(Transaction),
    /// The transaction has ended; the log goes on at `end`.
    Commit {
        end: Lsn,
    },
    /// The form of a table, before its first row and after each change of it.
    Relation(RelationMessage),
    Insert {
        relation: u32,
        row: Tuple,
    },
    Update {
        relation: u32,
        old: Option<OldTuple>,
        row: Tuple,
    },
    Delete {
        relation: u32,
        old: OldTuple,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// A message without rows: an origin, a type, a message of `pg_logical_emit_message`.
    Other,
}

/// A transaction, as its begin announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transaction {
    /// Place of the commit.
    pub(super) commit: Lsn,
    /// Unix milliseconds of the commit.
    pub(super) time_ms: i64,
}

/// The form of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RelationMessage {
    pub(super) id: u32,
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// Part of the replica identity.
    pub(super) is_key: bool,
    /// Identifier of the type.
    pub(super) type_id: u32,
}

/// Values of a row, in the order of the columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tuple(pub(super) Vec<TupleValue>);

/// What the log has of a row before its change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OldTuple {
    /// The columns of the replica identity; the others are null.
    Key(Tuple),
    /// All columns, with `replica identity full`.
    Full(Tuple),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TupleValue {
    Null,
    /// A long value outside of the row that did not change; the log does not contain it.
    Unchanged,
    /// Text form of the value, in UTF-8.
    Text(Bytes),
}

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LogError {
    #[error("a message ends too early")]
    Short,
    #[error("a message of the unknown kind {0:#04x}")]
    Kind(u8),
    #[error("a tuple of the unknown kind {0:#04x}")]
    TupleKind(u8),
    #[error("a value of the unknown kind {0:#04x}")]
    ValueKind(u8),
    #[error("text that is not UTF-8")]
    Text,
    #[error("bytes after the end of a message")]
    Long,
}

/// Milliseconds between the epochs of Unix and of PostgreSQL (2000-01-01).
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// Unix milliseconds of a time stamp of PostgreSQL.
pub(super) fn unix_ms(microseconds: i64) -> i64 {
    (microseconds.div_euclid(1000)).saturating_add(POSTGRES_EPOCH_MS)
}

/// A time stamp of PostgreSQL.
pub(super) fn postgres_time(unix_ms: i64) -> i64 {
    unix_ms.saturating_sub(POSTGRES_EPOCH_MS).saturating_mul(1000)
}

impl LogMessage {
    pub(super) fn decode(message: Bytes) -> Result<LogMessage, LogError> {
        let mut reader = Reader(message);
        let message = match reader.u8()? {
            b'B' => {
                let (commit, time_ms) = (Lsn(reader.u64()?), unix_ms(reader.i64()?));
                reader.u32()?;
                LogMessage::Begin(Transaction { commit, time_ms })
            }
            b'C' => {
                reader.u8()?;
                reader.u64()?;
                let end = Lsn(reader.u64()?);
                reader.u64()?;
                LogMessage::Commit { end }
            }
            b'R' => LogMessage::Relation(reader.relation()?),
            b'I' => {
                let relation = reader.u32()?;
                match reader.u8()? {
                    b'N' => LogMessage::Insert { relation, row: reader.tuple()? },
                    kind => return Err(LogError::TupleKind(kind)),
                }
            }
            b'U' => {
                let relation = reader.u32()?;
                let (old, kind) = match reader.u8()? {
                    kind @ (b'K' | b'O') => (Some(reader.old(kind)?), reader.u8()?),
                    kind => (None, kind),
                };
                match kind {
                    b'N' => LogMessage::Update { relation, old, row: reader.tuple()? },
                    kind => return Err(LogError::TupleKind(kind)),
                }
            }
            b'D' => {
                let relation = reader.u32()?;
                let kind = reader.u8()?;
                LogMessage::Delete { relation, old: reader.old(kind)? }
            }
            b'T' => {
                let count = reader.u32()?;
                reader.u8()?;
                let mut relations = Vec::new();
                for _ in 0..count {
                    relations.push(reader.u32()?);
                }
                LogMessage::Truncate { relations }
            }
            b'O' | b'Y' | b'M' => return Ok(LogMessage::Other),
            kind => return Err(LogError::Kind(kind)),
        };
        match reader.0.is_empty() {
            true => Ok(message),
            false => Err(LogError::Long),
        }
    }

    /// The table that the beginning of a message names; for messages that are too long to keep.
    pub(super) fn relation_of(start: &[u8]) -> Option<u32> {
        match start {
            [b'I' | b'U' | b'D', id @ ..] => Some(u32::from_be_bytes(*id.first_chunk()?)),
            _ => None,
        }
    }
}

/// Reads the parts of one message.
struct Reader(Bytes);

impl Reader {
    fn take(&mut self, length: usize) -> Result<Bytes, LogError> {
        if self.0.len() < length {
            return Err(LogError::Short);
        }
        Ok(self.0.split_to(length))
    }

    fn u8(&mut self) -> Result<u8, LogError> {
        Ok(self.take(1)?.get_u8())
    }

    fn u16(&mut self) -> Result<u16, LogError> {
        Ok(self.take(2)?.get_u16())
    }

    fn u32(&mut self) -> Result<u32, LogError> {
        Ok(self.take(4)?.get_u32())
    }

    fn u64(&mut self) -> Result<u64, LogError> {
        Ok(self.take(8)?.get_u64())
    }

    fn i64(&mut self) -> Result<i64, LogError> {
        Ok(self.take(8)?.get_i64())
    }

    fn text(&mut self) -> Result<String, LogError> {
        let end = memchr::memchr(0, &self.0).ok_or(LogError::Short)?;
        let text = self.take(end)?;
        self.u8()?;
        String::from_utf8(text.into()).map_err(|_| LogError::Text)
    }

    fn relation(&mut self) -> Result<RelationMessage, LogError> {
        let (id, schema, table) = (self.u32()?, self.text()?, self.text()?);
        self.u8()?;
        let count = self.u16()?;
        let mut columns = Vec::new();
        for _ in 0..count {
            let is_key = self.u8()? & 1 == 1;
            let name = self.text()?;
            let type_id = self.u32()?;
            self.u32()?;
            columns.push(Column { name, is_key, type_id });
        }
        // The schema pg_catalog is sent as an empty name.
        let schema = if schema.is_empty() { "pg_catalog".to_owned() } else { schema };
        Ok(RelationMessage { id, schema, table, columns })
    }

    fn old(&mut self, kind: u8) -> Result<OldTuple, LogError> {
        match kind {
            b'K' => Ok(OldTuple::Key(self.tuple()?)),
            b'O' => Ok(OldTuple::Full(self.tuple()?)),
            kind => Err(LogError::TupleKind(kind)),
        }
    }

    fn tuple(&mut self) -> Result<Tuple, LogError> {
        let count = usize::from(self.u16()?);
        let mut values = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            values.push(match self.u8()? {
                b'n' => TupleValue::Null,
                b'u' => TupleValue::Unchanged,
                b't' => {
                    let length = self.u32()?;
                    let length = usize::try_from(length).map_err(|_| LogError::Short)?;
                    let text = self.take(length)?;
                    if simdutf8::basic::from_utf8(&text).is_err() {
                        return Err(LogError::Text);
                    }
                    TupleValue::Text(text)
                }
                kind => return Err(LogError::ValueKind(kind)),
            });
        }
        Ok(Tuple(values))
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut as _, BytesMut};
    use proptest::prelude::*;

    use super::*;

    fn put_tuple(out: &mut BytesMut, tuple: &Tuple) {
        out.put_u16(u16::try_from(tuple.0.len()).unwrap());
        for value in &tuple.0 {
            match value {
                TupleValue::Null => out.put_u8(b'n'),
                TupleValue::Unchanged => out.put_u8(b'u'),
                TupleValue::Text(text) => {
                    out.put_u8(b't');
                    out.put_u32(u32::try_from(text.len()).unwrap());
                    out.put_slice(text);
                }
            }
        }
    }

    fn put_old(out: &mut BytesMut, old: &OldTuple) {
        let (kind, tuple) = match old {
            OldTuple::Key(tuple) => (b'K', tuple),
            OldTuple::Full(tuple) => (b'O', tuple),
        };
        out.put_u8(kind);
        put_tuple(out, tuple);
    }

    fn encode(message: &LogMessage) -> Bytes {
        let mut out = BytesMut::new();
        match message {
            LogMessage::Begin(Transaction { commit, time_ms }) => {
                out.put_u8(b'B');
                out.put_u64(commit.0);
                out.put_i64(postgres_time(*time_ms));
                out.put_u32(9);
            }
            LogMessage::Commit { end } => {
                out.put_u8(b'C');
                out.put_u8(0);
                out.put_u64(1);
                out.put_u64(end.0);
                out.put_u64(2);
            }
            LogMessage::Relation(relation) => {
                out.put_u8(b'R');
                out.put_u32(relation.id);
                out.put_slice(relation.schema.as_bytes());
                out.put_u8(0);
                out.put_slice(relation.table.as_bytes());
                out.put_slice(b"\0d");
                out.put_u16(u16::try_from(relation.columns.len()).unwrap());
                for column in &relation.columns {
                    out.put_u8(u8::from(column.is_key));
                    out.put_slice(column.name.as_bytes());
                    out.put_u8(0);
                    out.put_u32(column.type_id);
                    out.put_u32(u32::MAX);
                }
            }
            LogMessage::Insert { relation, row } => {
                out.put_u8(b'I');
                out.put_u32(*relation);
                out.put_u8(b'N');
                put_tuple(&mut out, row);
            }
            LogMessage::Update { relation, old, row } => {
                out.put_u8(b'U');
                out.put_u32(*relation);
                if let Some(old) = old {
                    put_old(&mut out, old);
                }
                out.put_u8(b'N');
                put_tuple(&mut out, row);
            }
            LogMessage::Delete { relation, old } => {
                out.put_u8(b'D');
                out.put_u32(*relation);
                put_old(&mut out, old);
            }
            LogMessage::Truncate { relations } => {
                out.put_u8(b'T');
                out.put_u32(u32::try_from(relations.len()).unwrap());
                out.put_u8(0);
                relations.iter().for_each(|id| out.put_u32(*id));
            }
            LogMessage::Other => out.put_slice(b"Onothing"),
        }
        out.freeze()
    }

    fn tuple() -> impl Strategy<Value = Tuple> {
        let value = prop_oneof![
            Just(TupleValue::Null),
            Just(TupleValue::Unchanged),
            ".{0,9}".prop_map(|text| TupleValue::Text(text.into())),
        ];
        prop::collection::vec(value, 0..6).prop_map(Tuple)
    }

    fn old() -> impl Strategy<Value = OldTuple> {
        prop_oneof![tuple().prop_map(OldTuple::Key), tuple().prop_map(OldTuple::Full)]
    }

    fn relation() -> impl Strategy<Value = RelationMessage> {
        let column = ("[a-zé]{1,5}", any::<bool>(), any::<u32>())
            .prop_map(|(name, is_key, type_id)| Column { name, is_key, type_id });
        (any::<u32>(), "[a-z]{1,5}", "[a-z]{0,5}", prop::collection::vec(column, 0..5))
            .prop_map(|(id, schema, table, columns)| RelationMessage { id, schema, table, columns })
    }

    fn message() -> impl Strategy<Value = LogMessage> {
        prop_oneof![
            (any::<u64>(), -9_000_000_000i64..9_000_000_000_000).prop_map(|(commit, time_ms)| {
                LogMessage::Begin(Transaction { commit: Lsn(commit), time_ms })
            }),
            any::<u64>().prop_map(|end| LogMessage::Commit { end: Lsn(end) }),
            relation().prop_map(LogMessage::Relation),
            (any::<u32>(), tuple())
                .prop_map(|(relation, row)| LogMessage::Insert { relation, row }),
            (any::<u32>(), prop::option::of(old()), tuple())
                .prop_map(|(relation, old, row)| LogMessage::Update { relation, old, row }),
            (any::<u32>(), old()).prop_map(|(relation, old)| LogMessage::Delete { relation, old }),
            prop::collection::vec(any::<u32>(), 0..4)
                .prop_map(|relations| LogMessage::Truncate { relations }),
            Just(LogMessage::Other),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(message in message()) {
            prop_assert_eq!(LogMessage::decode(encode(&message)), Ok(message));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let _any = LogMessage::decode(bytes.into());
        }

        #[test]
        fn a_message_that_is_cut_or_changed_does_not_panic(
            message in message(), cut in any::<prop::sample::Index>(), change in any::<u8>(),
        ) {
            let mut bytes = encode(&message).to_vec();
            let index = cut.index(bytes.len());
            let is_cut = LogMessage::decode(bytes[..index].to_vec().into()).is_err();
            prop_assert!(is_cut || message == LogMessage::Other);
            bytes[index] ^= change;
            let _any = LogMessage::decode(bytes.into());
        }
    }

    #[test]
    fn a_table_is_known_from_the_beginning_of_a_message() {
        assert_eq!(LogMessage::relation_of(b"I\0\0\0\x07N\0"), Some(7));
        assert_eq!(LogMessage::relation_of(b"I\0\0"), None);
        assert_eq!(LogMessage::relation_of(b"B\0\0\0\x07N"), None);
    }
}
