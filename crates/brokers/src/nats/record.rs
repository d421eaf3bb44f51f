//! Encoding of publications, and of the state of their stream, in messages.
//!
//! A message is one line of text, followed by a Protobuf reply of the client protocol that holds
//! the push: `t1 KIND EPOCH OFFSET BASE UNTIL EXPIRES ACCEPTED VERSION VERSION_EPOCH`, and ` BEGAN
//! ENDS` in a temporary channel. Invariant: the newest message of a subject of the history stream
//! holds the whole state of the channel's stream, so that one conditional store changes it
//! atomically.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use engine::broker::{BrokerEvent, Membership, PublishOptions};
use wire::protocol::{Codec, Publication, Push, PushEvent, Reply, ReplyBody};

use super::subject;

/// The kind of a message in the subject of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// Fanned out and not stored: a publication without history, a join, a leave.
    Plain,
    /// A publication in the history.
    Retained,
    /// A publication outside the history that is stored for its version or idempotency key.
    VersionOnly,
    /// No publication: a stream is created, cleared or limited.
    StateOnly,
}

/// The state of a stream, as its newest message holds it. The default is that of a stream that does
/// not exist. Times are Unix milliseconds by the clock of NATS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamTop {
    /// JetStream sequence of the message; not part of its payload.
    pub(super) sequence: u64,
    pub(super) epoch: Arc<str>,
    pub(super) offset: u64,
    /// The first offset that is retained.
    pub(super) first_retained: u64,
    /// When offset and epoch expire.
    pub(super) stream_expires_ms: u64,
    /// When this publication leaves the history.
    pub(super) publication_expires_ms: u64,
    /// When this message was written.
    pub(super) accepted_ms: u64,
    pub(super) version: u64,
    pub(super) version_epoch: String,
    /// When the channel began, if it is temporary.
    pub(super) channel_began_ms: u64,
    /// When the channel ends; zero for one without an end.
    pub(super) channel_ends_ms: u64,
}

/// A decoded message.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) kind: RecordKind,
    pub(super) top: StreamTop,
    /// `None` in a [`RecordKind::StateOnly`].
    pub(super) event: Option<PushEvent>,
}

impl StreamTop {
    pub(super) fn is_alive(&self, now_ms: u64) -> bool {
        self.stream_expires_ms > now_ms
            && (self.channel_ends_ms == 0 || self.channel_ends_ms > now_ms)
    }

    /// Returns whether this is the stream of a temporary channel that has not ended.
    pub(super) fn is_ending(&self, now_ms: u64) -> bool {
        self.channel_ends_ms > 0 && self.is_alive(now_ms)
    }

    /// The top that the next record starts from: this one, or a new epoch if it has expired.
    pub(super) fn current_or_new(
        &self,
        now_ms: u64,
        new_epoch: impl FnOnce() -> Arc<str>,
    ) -> StreamTop {
        if self.is_alive(now_ms) {
            return StreamTop { accepted_ms: now_ms, publication_expires_ms: 0, ..self.clone() };
        }
        StreamTop {
            sequence: self.sequence,
            epoch: new_epoch(),
            first_retained: 1,
            accepted_ms: now_ms,
            ..StreamTop::default()
        }
    }

    pub(super) fn extend_stream(&mut self, now_ms: u64, ttl_ms: u64) {
        self.stream_expires_ms = self.stream_expires_ms.max(now_ms.saturating_add(ttl_ms));
    }

    pub(super) fn is_stale(&self, options: &PublishOptions) -> bool {
        options.version > 0
            && options.version <= self.version
            && (options.version_epoch.is_empty() || options.version_epoch == self.version_epoch)
    }
}

impl Record {
    pub(super) fn encode(&self, channel: &Arc<str>) -> Bytes {
        let Record { kind, top, event } = self;
        let mut out = Vec::with_capacity(256);
        let kind = match kind {
            RecordKind::Plain => "plain",
            RecordKind::Retained => "retained",
            RecordKind::VersionOnly => "noted",
            RecordKind::StateOnly => "mark",
        };
        out.put_slice(b"t1 ");
        out.put_slice(kind.as_bytes());
        if kind != "plain" {
            let numbers = [
                top.offset,
                top.first_retained,
                top.stream_expires_ms,
                top.publication_expires_ms,
                top.accepted_ms,
                top.version,
            ];
            out.put_u8(b' ');
            out.put_slice(subject::token(&top.epoch).as_bytes());
            for number in numbers {
                out.put_u8(b' ');
                out.put_slice(number.to_string().as_bytes());
            }
            out.put_u8(b' ');
            out.put_slice(subject::token(&top.version_epoch).as_bytes());
            if top.channel_ends_ms > 0 {
                out.put_slice(
                    format!(" {} {}", top.channel_began_ms, top.channel_ends_ms).as_bytes(),
                );
            }
        }
        out.put_u8(b'\n');
        if let Some(event) = event {
            let push = Push { channel: channel.clone(), event: event.clone() };
            let reply = Reply { id: 0, body: ReplyBody::Push(push) };
            wire::protocol::encode_reply(Codec::Protobuf, &reply, &mut out);
        }
        out.into()
    }

    /// `None` for a message in another format, from a foreign publisher under our prefix.
    pub(super) fn decode(message: &Bytes, sequence: u64) -> Option<Record> {
        let end = message.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&message[..end]).ok()?;
        let mut words = line.strip_prefix("t1 ")?.split(' ');
        let kind = match words.next()? {
            "plain" => RecordKind::Plain,
            "retained" => RecordKind::Retained,
            "noted" => RecordKind::VersionOnly,
            "mark" => RecordKind::StateOnly,
            _ => return None,
        };
        let mut top = StreamTop { sequence, ..StreamTop::default() };
        if kind != RecordKind::Plain {
            top.epoch = subject::text(words.next()?)?.into();
            for number in [
                &mut top.offset,
                &mut top.first_retained,
                &mut top.stream_expires_ms,
                &mut top.publication_expires_ms,
                &mut top.accepted_ms,
                &mut top.version,
            ] {
                *number = words.next()?.parse().ok()?;
            }
            top.version_epoch = subject::text(words.next()?)?;
            if let Some(began) = words.next() {
                (top.channel_began_ms, top.channel_ends_ms) =
                    (began.parse().ok()?, words.next()?.parse().ok()?);
            }
        }
        let event = match &message[end + 1..] {
            [] => None,
            body => Some(decode_push(body)?.event),
        };
        Some(Record { kind, top, event })
    }

    /// The event for subscribers; `epoch` is the record's epoch as clients see it.
    pub(super) fn into_event(self, channel: &Arc<str>, epoch: &Arc<str>) -> Option<BrokerEvent> {
        let channel = channel.clone();
        Some(match self.event? {
            PushEvent::Publication(publication) if self.kind == RecordKind::Retained => {
                let publication = with_offset(&publication, self.top.offset);
                BrokerEvent::Publication { channel, publication, epoch: epoch.clone() }
            }
            PushEvent::Publication(publication) => {
                BrokerEvent::Publication { channel, publication, epoch: "".into() }
            }
            PushEvent::Join(info) => {
                BrokerEvent::Membership { channel, info, change: Membership::Join }
            }
            PushEvent::Leave(info) => {
                BrokerEvent::Membership { channel, info, change: Membership::Leave }
            }
            _ => return None,
        })
    }

    /// The publication with its offset; `None` unless the record is in the history.
    pub(super) fn publication(&self) -> Option<Arc<Publication>> {
        match (&self.event, self.kind) {
            (Some(PushEvent::Publication(publication)), RecordKind::Retained) => {
                Some(with_offset(publication, self.top.offset))
            }
            _ => None,
        }
    }
}

/// Encodes a message that is fanned out and not stored.
pub(super) fn plain(channel: &Arc<str>, event: PushEvent) -> Bytes {
    Record { kind: RecordKind::Plain, top: StreamTop::default(), event: Some(event) }
        .encode(channel)
}

pub(super) fn decode_push(body: &[u8]) -> Option<Push> {
    let replies = wire::protocol::decode_replies(Codec::Protobuf, body).ok()?;
    match replies.into_iter().next()?.body {
        ReplyBody::Push(push) => Some(push),
        _ => None,
    }
}

fn with_offset(publication: &Arc<Publication>, offset: u64) -> Arc<Publication> {
    if publication.offset == offset {
        return publication.clone();
    }
    Arc::new(Publication { offset, ..Publication::clone(publication) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_other_messages_are_not_decoded() {
        let publication =
            Publication { data: Bytes::from_static(b"{}"), offset: 7, ..Publication::default() };
        let top = StreamTop {
            sequence: 9,
            epoch: "e 1".into(),
            offset: 7,
            first_retained: 3,
            stream_expires_ms: u64::MAX,
            publication_expires_ms: 5,
            accepted_ms: 4,
            version: u64::MAX,
            version_epoch: "a b\n".into(),
            ..StreamTop::default()
        };
        let event = Some(PushEvent::Publication(Arc::new(publication)));
        for kind in [RecordKind::Retained, RecordKind::VersionOnly] {
            let record = Record { kind, top: top.clone(), event: event.clone() };
            let back = Record::decode(&record.encode(&"c".into()), 9).unwrap();
            assert_eq!((back.kind, &back.top, &back.event), (kind, &top, &event));
        }
        let mark = Record { kind: RecordKind::StateOnly, top: top.clone(), event: None };
        let back = Record::decode(&mark.encode(&"c".into()), 9).unwrap();
        assert_eq!((back.kind, &back.top, back.event), (RecordKind::StateOnly, &top, None));
        let top = StreamTop { channel_began_ms: 2, channel_ends_ms: 8, ..top };
        let record = Record { kind: RecordKind::StateOnly, top: top.clone(), event: None };
        assert_eq!(Record::decode(&record.encode(&"c".into()), 9).unwrap().top, top);
        for foreign in ["", "{}", "t1 retained\n", "t1 odd\n", "t2 mark e 1 1 1 1 1 1 =\n"] {
            assert!(Record::decode(&Bytes::from(foreign), 1).is_none(), "{foreign:?}");
        }
    }
}
