//! Operations on the stream of one channel: publish, read, clear, limit. Each is one future that
//! owns its data.
//!
//! Invariant: every record is stored under the condition that no other one was stored since the top
//! was read, so that offsets grow by one, whichever node publishes.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use engine::broker::{BrokerError, ChannelTtl, PublishOptions};
use engine::history::Stream;
use engine::limits::IDEMPOTENCY_TTL_MS;
use tokio::time::Instant;
use wire::protocol::{Publication, PushEvent, StreamPosition};

use super::jetstream::Ack;
use super::link::NatsLink;
use super::record::{Record, RecordKind, StreamTop};
use super::rights::Right;
use super::subject;
use crate::limits::{ANSWER_TIMEOUT, TRIM_EVERY};

/// The stream of a channel: the messages of one subject of the history stream.
#[derive(Clone)]
pub(super) struct ChannelStream {
    pub(super) link: Rc<NatsLink>,
    pub(super) channel: Arc<str>,
    /// The channel as one token of a subject.
    pub(super) token: Arc<str>,
}

/// What a read of a stream returns, and whether it creates the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StreamRead {
    /// Lifetime of a stream that this read creates, milliseconds; zero creates none.
    pub(super) meta_ttl_ms: u64,
    pub(super) publications: Publications,
}

/// Which publications a read returns; later variants include the earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Publications {
    #[default]
    None,
    Newest,
    All,
}

impl ChannelStream {
    /// Fails if the server has refused this node a right on the channel's subject.
    pub(super) fn check_right(&self, right: Right) -> Result<(), BrokerError> {
        let refusals = &self.link.shared.denied_subjects;
        let is_refused = refusals.has(right, &self.link.names.channel(&self.token));
        if is_refused { Err(BrokerError::Unavailable) } else { Ok(()) }
    }

    /// Publishes into the stream; returns also the top of the stream, if known.
    pub(super) async fn publish(
        self,
        known: Option<StreamTop>,
        publication: Arc<Publication>,
        options: PublishOptions,
    ) -> (Result<StreamPosition, BrokerError>, Option<StreamTop>) {
        let mut known = known;
        let mut identifier = self.identifier(&options);
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while Instant::now() < deadline {
            let top = match known.take() {
                Some(top) => top,
                None => match self.top().await {
                    Ok(record) => record.map(|record| record.top).unwrap_or_default(),
                    Err(error) => return (Err(error), None),
                },
            };
            let now_ms = self.link.now_ms();
            if top.is_alive(now_ms) && top.is_stale(&options) {
                // A known idempotency key would return its own position; the top serves as well.
                return (Ok(self.stale_position(&top)), Some(top));
            }
            let record = next(&self.link, now_ms, &top, &publication, &options);
            let payload = record.encode(&self.channel);
            match self.store(top.sequence, &identifier, payload).await {
                Ok(Ack::Stored(sequence)) => {
                    let position = self.record_position(&record);
                    return (Ok(position), Some(StreamTop { sequence, ..record.top }));
                }
                Ok(Ack::Conflict) => {}
                Ok(Ack::Duplicate(sequence)) => match self.accepted_before(sequence).await {
                    Ok(Some(position)) => return (Ok(position), None),
                    // The key has expired, and may be used for another publication.
                    Ok(None) => identifier.push_str(&format!(" {sequence}")),
                    Err(error) => return (Err(error), None),
                },
                Err(error) => return (Err(error), None),
            }
        }
        (Err(BrokerError::Unavailable), None)
    }

    /// Reads the stream, and creates it if there is none.
    pub(super) async fn read(self, read: StreamRead) -> Result<(StreamTop, Stream), BrokerError> {
        let (top, newest) = self.read_or_create_top(read.meta_ttl_ms).await?;
        let now_ms = self.link.now_ms();
        let is_empty = top.base > top.offset;
        let retained = match read.publications {
            Publications::None => Vec::new(),
            _ if is_empty => Vec::new(),
            Publications::Newest if newest.is_some() => newest.into_iter().collect(),
            Publications::Newest | Publications::All => {
                let stream = self.link.names.history_stream();
                let subject = self.link.names.stream(&self.token);
                let stored = self.link.range_up_to(&stream, &subject, top.sequence).await?;
                let records = stored
                    .iter()
                    .filter_map(|stored| Record::decode(&stored.payload, stored.sequence));
                records.collect()
            }
        };
        // The store may have lost messages that other nodes received: then the epoch is another.
        self.link.settled().await?;
        let stream =
            Stream::restore(&self.link.position(&top), retained_part(&top, now_ms, &retained));
        Ok((top, stream))
    }

    /// Removes the retained publications; offset and epoch stay.
    pub(super) async fn clear(self) -> Result<StreamTop, BrokerError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while Instant::now() < deadline {
            let now_ms = self.link.now_ms();
            let Some(record) = self.top().await? else { return Ok(StreamTop::default()) };
            if !record.top.is_alive(now_ms) {
                return Ok(record.top);
            }
            let base = record.top.offset + 1;
            let top = StreamTop { base, expires_ms: 0, accepted_ms: now_ms, ..record.top };
            if let Some(top) = self.mark(top).await? {
                let subject = self.link.names.stream(&self.token);
                let stream = self.link.names.history_stream();
                self.link.purge_before(&stream, &subject, top.sequence).await?;
                return Ok(top);
            }
        }
        Err(BrokerError::Unavailable)
    }

    /// Lets the channel expire after this time, unless it has an end already.
    pub(super) async fn limit(self, ttl_ms: u64) -> Result<StreamTop, BrokerError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while Instant::now() < deadline {
            let record = self.top().await?;
            let now_ms = self.link.now_ms();
            let top = record.map(|record| record.top).unwrap_or_default();
            if top.is_ending(now_ms) {
                return Ok(top);
            }
            let mut top = top.current_or_new(now_ms, || self.link.new_epoch());
            (top.began_ms, top.ends_ms) = (now_ms, now_ms.saturating_add(ttl_ms));
            top.keep_for(now_ms, ttl_ms);
            if let Some(top) = self.mark(top).await? {
                return Ok(top);
            }
        }
        Err(BrokerError::Unavailable)
    }

    /// Age and remaining lifetime of the channel; `None` for one without an end.
    pub(super) async fn ttl(self) -> Result<Option<ChannelTtl>, BrokerError> {
        let record = self.top().await?;
        let now_ms = self.link.now_ms();
        let top = record.map(|record| record.top).filter(|top| top.is_ending(now_ms));
        Ok(top.map(|top| ChannelTtl {
            age_ms: now_ms.saturating_sub(top.began_ms),
            left_ms: top.ends_ms - now_ms,
        }))
    }

    /// Removes the messages of an expired channel, unless it was used again.
    pub(super) async fn remove_expired(self) -> Result<(), BrokerError> {
        match self.top().await? {
            Some(record) if !record.top.is_alive(self.link.now_ms()) => {
                let names = &self.link.names;
                let (stream, subject) = (names.history_stream(), names.stream(&self.token));
                // The newest message stays, so that the next one is stored after it.
                self.link.purge_before(&stream, &subject, record.top.sequence).await
            }
            _ => Ok(()),
        }
    }

    /// The top of the stream after the server has handled everything sent before. An expired stream
    /// returns a new epoch.
    pub(super) async fn echo_and_read(self) -> Result<StreamTop, BrokerError> {
        self.link.echo().await?;
        let record = self.top().await?;
        let top = record.map(|record| record.top).unwrap_or_default();
        Ok(top.current_or_new(self.link.now_ms(), || self.link.new_epoch()))
    }

    /// Removes messages beyond the history size, every [`TRIM_EVERY`] publications.
    pub(super) fn trim(&self, top: &StreamTop, history_size: u64) {
        if history_size == 0 || !top.offset.is_multiple_of(history_size.max(TRIM_EVERY)) {
            return;
        }
        let (link, token) = (self.link.clone(), self.token.clone());
        self.link.tasks.spawn("trim", async move {
            let (stream, subject) = (link.names.history_stream(), link.names.stream(&token));
            // A failure is made up for by the next removal.
            let _later = link.keep(&stream, &subject, history_size + TRIM_EVERY).await;
        });
    }

    async fn read_or_create_top(
        &self,
        meta_ttl_ms: u64,
    ) -> Result<(StreamTop, Option<Record>), BrokerError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while Instant::now() < deadline {
            let record = self.top().await?;
            let now_ms = self.link.now_ms();
            let top = record.as_ref().map(|record| record.top.clone()).unwrap_or_default();
            if top.is_alive(now_ms) {
                return Ok((top, record.filter(|record| record.kind == RecordKind::Retained)));
            }
            let mut top = top.current_or_new(now_ms, || self.link.new_epoch());
            top.keep_for(now_ms, meta_ttl_ms);
            if meta_ttl_ms == 0 {
                return Ok((StreamTop { sequence: 0, ..top }, None));
            }
            if let Some(top) = self.mark(top).await? {
                return Ok((top, None));
            }
        }
        Err(BrokerError::Unavailable)
    }

    /// Stores a top without a publication; `None` if another node has stored a record meanwhile.
    async fn mark(&self, top: StreamTop) -> Result<Option<StreamTop>, BrokerError> {
        let record = Record { kind: RecordKind::Mark, top, event: None };
        let payload = record.encode(&self.channel);
        match self.store(record.top.sequence, "", payload).await? {
            Ack::Stored(sequence) => Ok(Some(StreamTop { sequence, ..record.top })),
            Ack::Conflict | Ack::Duplicate(_) => Ok(None),
        }
    }

    /// Stores a record if the newest message still has the sequence `after`.
    async fn store(
        &self,
        after: u64,
        identifier: &str,
        payload: Bytes,
    ) -> Result<Ack, BrokerError> {
        let subject = self.link.names.stream(&self.token);
        let above = self.link.generations.high_water_sequence();
        let ack = self.link.store(&subject, Some(after), identifier, payload.clone()).await?;
        if let Ack::Stored(sequence) = ack {
            self.link.note(above, sequence, &payload);
        }
        Ok(ack)
    }

    async fn top(&self) -> Result<Option<Record>, BrokerError> {
        let subject = self.link.names.stream(&self.token);
        let stored = self.link.newest(&self.link.names.history_stream(), &subject).await?;
        let Some(stored) = stored else { return Ok(None) };
        // A message in another format is skipped: a new stream begins after it.
        let foreign = Record {
            kind: RecordKind::Mark,
            top: StreamTop { sequence: stored.sequence, ..StreamTop::default() },
            event: None,
        };
        Ok(Some(Record::decode(&stored.payload, stored.sequence).unwrap_or(foreign)))
    }

    /// Position of the publication with the same idempotency key; `None` if the key has expired.
    async fn accepted_before(&self, sequence: u64) -> Result<Option<StreamPosition>, BrokerError> {
        let stream = self.link.names.history_stream();
        let stored = self.link.numbered(&stream, sequence).await?;
        let record = stored.and_then(|stored| Record::decode(&stored.payload, sequence));
        if let Some(record) = record {
            let is_over = record.top.accepted_ms + IDEMPOTENCY_TTL_MS <= self.link.now_ms();
            return Ok((!is_over).then(|| self.record_position(&record)));
        }
        // The publication is not retained any more, nor is its position: return the top.
        let top = self.top().await?.map(|record| record.top).unwrap_or_default();
        Ok(Some(self.stale_position(&top)))
    }

    fn record_position(&self, record: &Record) -> StreamPosition {
        match record.kind {
            RecordKind::Retained => self.link.position(&record.top),
            RecordKind::Plain | RecordKind::Noted | RecordKind::Mark => StreamPosition::default(),
        }
    }

    /// The position of the top; the default for a stream without publications.
    fn stale_position(&self, top: &StreamTop) -> StreamPosition {
        match top.offset {
            0 => StreamPosition::default(),
            _ => self.link.position(top),
        }
    }

    fn identifier(&self, options: &PublishOptions) -> String {
        if options.idempotency_key.is_empty() {
            return String::new();
        }
        format!("{} {}", self.token, subject::token(&options.idempotency_key))
    }
}

/// The record that follows `top`.
fn next(
    link: &NatsLink,
    now_ms: u64,
    top: &StreamTop,
    publication: &Arc<Publication>,
    options: &PublishOptions,
) -> Record {
    let mut top = top.current_or_new(now_ms, || link.new_epoch());
    top.keep_for(now_ms, options.history_meta_ttl_ms);
    let kind = if options.history_size > 0 {
        top.offset += 1;
        top.base = top.base.max((top.offset + 1).saturating_sub(options.history_size.into()));
        top.expires_ms = now_ms.saturating_add(options.history_ttl_ms);
        RecordKind::Retained
    } else {
        RecordKind::Noted
    };
    if options.version > 0 {
        top.version = options.version;
        top.version_epoch.clone_from(&options.version_epoch);
        top.keep_for(now_ms, IDEMPOTENCY_TTL_MS);
    }
    Record { kind, top, event: Some(PushEvent::Publication(publication.clone())) }
}

/// The publications among records that are retained: consecutive, and ending at the top.
fn retained_part(top: &StreamTop, now_ms: u64, read: &[Record]) -> Vec<Arc<Publication>> {
    let mut expected = top.offset;
    let mut retained = Vec::new();
    for record in read.iter().rev() {
        if record.kind != RecordKind::Retained || record.top.epoch != top.epoch {
            continue;
        }
        // Published while the stream was read.
        if record.top.offset > top.offset {
            continue;
        }
        if record.top.offset != expected || expected < top.base || expected == 0 {
            break;
        }
        expected -= 1;
        retained.push(record);
    }
    retained.reverse();
    let fresh = retained.iter().position(|record| record.top.expires_ms > now_ms);
    let fresh = fresh.unwrap_or(retained.len());
    retained[fresh..].iter().filter_map(|record| record.publication()).collect()
}
