//! A consumed message: where it comes from, and what it asks for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// One message of a source.
#[derive(Clone, Debug)]
pub struct ConsumedMessage {
    /// Where the message comes from.
    pub origin: MessageOrigin,
    /// What the message asks for.
    pub body: Body,
}

/// Where a message comes from. Its text stands in logs.
#[derive(Clone, Debug)]
pub struct MessageOrigin {
    /// Name of the consumer.
    pub consumer: Arc<str>,
    /// Topic, table, stream or slot.
    pub source: Arc<str>,
    /// Partition of the source; `None` if it has none.
    pub partition: Option<u32>,
    /// Place of the message in the source or partition.
    pub offset: RecordOffset,
}

/// Place of a message in its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordOffset {
    /// Offset in a partition, sequence of a stream, or id of a row.
    Number(u64),
    /// Position in the write-ahead log of PostgreSQL.
    Lsn(u64),
}

/// What a message asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A method of the server API with its parameters as JSON.
    Command {
        /// Name of the method.
        method: Box<str>,
        /// Parameters of the method.
        payload: Bytes,
    },
    /// A publication whose data is the message.
    Publication(ConsumedPublication),
}

/// A publication to one or several channels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumedPublication {
    /// Channels to publish to.
    pub channels: Vec<String>,
    /// Payload.
    pub data: Bytes,
    /// Tags of the publication.
    pub tags: BTreeMap<String, String>,
    /// A publication with the key of an earlier one is not published again; empty for none.
    pub idempotency_key: String,
    /// Whether to deliver the difference to the previous publication.
    pub delta: bool,
    /// A publication with a version that is not newer is not published; 0 for none.
    pub version: u64,
    /// Versions of different epochs are not compared.
    pub version_epoch: String,
}

impl fmt::Display for RecordOffset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordOffset::Number(number) => write!(formatter, "{number}"),
            RecordOffset::Lsn(lsn) => write!(formatter, "{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF),
        }
    }
}

impl fmt::Display for MessageOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.source)?;
        if let Some(partition) = self.partition {
            write!(formatter, "[{partition}]")?;
        }
        write!(formatter, "@{}", self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_names_source_partition_and_offset() {
        let origin = |partition, offset| MessageOrigin {
            consumer: "orders".into(),
            source: "events".into(),
            partition,
            offset,
        };
        assert_eq!(origin(Some(3), RecordOffset::Number(42)).to_string(), "events[3]@42");
        assert_eq!(
            origin(None, RecordOffset::Lsn(0x16_B374_D848)).to_string(),
            "events@16/B374D848"
        );
    }
}
