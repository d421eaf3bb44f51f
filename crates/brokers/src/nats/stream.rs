//! What is done with a channel's stream: publish, read, forget. Each is one future that owns what
//! it needs.
//!
//! Invariant: whatever moves a stream is stored under the condition that nobody moved it since it
//! was read, so that offsets count by one, whoever publishes.

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
use super::record::{Record, RecordKind, Top};
use super::rights::Right;
use super::subject;
use crate::limits::{ANSWER_TIMEOUT, TRIM_EVERY};

/// A channel's names.
#[derive(Clone)]
pub(super) struct ChannelStream {
    pub(super) link: Rc<NatsLink>,
    pub(super) channel: Arc<str>,
    pub(super) token: Arc<str>,
}

/// What a reader wants to know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Want {
    /// How long the stream is kept when this read begins it; zero begins nothing.
    pub(super) meta_ttl_ms: u64,
    pub(super) publications: Publications,
}

/// Which publications a reader wants; a wider wish holds a smaller one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Publications {
    #[default]
    None,
    Newest,
    All,
}

impl ChannelStream {
    /// Whether the server has refused this node what it just did with the channel.
    pub(super) fn check_right(&self, right: Right) -> Result<(), BrokerError> {
        let refusals = &self.link.shared.refusals;
        let is_refused = refusals.has(right, &self.link.names.channel(&self.token));
        if is_refused { Err(BrokerError::Unavailable) } else { Ok(()) }
    }

    /// Publishes with a place in the stream; returns what is known of the stream then.
    pub(super) async fn publish(
        self,
        known: Option<Top>,
        publication: Arc<Publication>,
        options: PublishOptions,
    ) -> (Result<StreamPosition, BrokerError>, Option<Top>) {
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
                // A key that was seen before would answer with its own position; the stream's top
                // is as good.
                return (Ok(self.stale_position(&top)), Some(top));
            }
            let record = next(&self.link, now_ms, &top, &publication, &options);
            let payload = record.encode(&self.channel);
            match self.store(top.sequence, &identifier, payload).await {
                Ok(Ack::Stored(sequence)) => {
                    let position = self.record_position(&record);
                    return (Ok(position), Some(Top { sequence, ..record.top }));
                }
                Ok(Ack::Conflict) => {}
                Ok(Ack::Duplicate(sequence)) => match self.accepted_before(sequence).await {
                    Ok(Some(position)) => return (Ok(position), None),
                    // The key has had its time: the next use of it is another.
                    Ok(None) => identifier.push_str(&format!(" {sequence}")),
                    Err(error) => return (Err(error), None),
                },
                Err(error) => return (Err(error), None),
            }
        }
        (Err(BrokerError::Unavailable), None)
    }

    /// Reads the stream, and begins it when there is none.
    pub(super) async fn read(self, want: Want) -> Result<(Top, Stream), BrokerError> {
        let (top, newest) = self.begun(want.meta_ttl_ms).await?;
        let now_ms = self.link.now_ms();
        let is_empty = top.base > top.offset;
        let retained = match want.publications {
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
        // What was read may be less than others have received: then the epoch is another.
        self.link.settled().await?;
        let stream = Stream::restore(&self.link.position(&top), whole(&top, now_ms, &retained));
        Ok((top, stream))
    }

    /// Drops what is retained; offset and epoch stay.
    pub(super) async fn clear(self) -> Result<Top, BrokerError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while Instant::now() < deadline {
            let now_ms = self.link.now_ms();
            let Some(record) = self.top().await? else { return Ok(Top::default()) };
            if !record.top.is_alive(now_ms) {
                return Ok(record.top);
            }
            let base = record.top.offset + 1;
            let top = Top { base, expires_ms: 0, accepted_ms: now_ms, ..record.top };
            if let Some(top) = self.mark(top).await? {
                let subject = self.link.names.stream(&self.token);
                let stream = self.link.names.history_stream();
                self.link.purge_before(&stream, &subject, top.sequence).await?;
                return Ok(top);
            }
        }
        Err(BrokerError::Unavailable)
    }

    /// Lets the channel end after so long, unless it has an end already.
    pub(super) async fn limit(self, ttl_ms: u64) -> Result<Top, BrokerError> {
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

    /// How long the channel is; `None` for one without an end.
    pub(super) async fn length(self) -> Result<Option<ChannelTtl>, BrokerError> {
        let record = self.top().await?;
        let now_ms = self.link.now_ms();
        let top = record.map(|record| record.top).filter(|top| top.is_ending(now_ms));
        Ok(top.map(|top| ChannelTtl {
            age_ms: now_ms.saturating_sub(top.began_ms),
            left_ms: top.ends_ms - now_ms,
        }))
    }

    /// Removes what a channel that is over has retained, unless it has begun anew.
    pub(super) async fn remove_expired(self) -> Result<(), BrokerError> {
        match self.top().await? {
            Some(record) if !record.top.is_alive(self.link.now_ms()) => {
                let names = &self.link.names;
                let (stream, subject) = (names.history_stream(), names.stream(&self.token));
                // The newest stays: it keeps numbers from being given twice.
                self.link.purge_before(&stream, &subject, record.top.sequence).await
            }
            _ => Ok(()),
        }
    }

    /// Where the stream stands once everything that was asked of the server before has been done. A
    /// stream that is gone has begun anew.
    pub(super) async fn echo_and_read(self) -> Result<Top, BrokerError> {
        self.link.echo().await?;
        let record = self.top().await?;
        let top = record.map(|record| record.top).unwrap_or_default();
        Ok(top.current_or_new(self.link.now_ms(), || self.link.new_epoch()))
    }

    /// Now and then removes what is not retained any more.
    pub(super) fn trim(&self, top: &Top, history_size: u64) {
        if history_size == 0 || !top.offset.is_multiple_of(history_size.max(TRIM_EVERY)) {
            return;
        }
        let (link, token) = (self.link.clone(), self.token.clone());
        self.link.tasks.spawn("trim", async move {
            let (stream, subject) = (link.names.history_stream(), link.names.stream(&token));
            // What is not removed now is removed the next time.
            let _later = link.keep(&stream, &subject, history_size + TRIM_EVERY).await;
        });
    }

    async fn begun(&self, meta_ttl_ms: u64) -> Result<(Top, Option<Record>), BrokerError> {
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
                return Ok((Top { sequence: 0, ..top }, None));
            }
            if let Some(top) = self.mark(top).await? {
                return Ok((top, None));
            }
        }
        Err(BrokerError::Unavailable)
    }

    /// Moves the stream without a publication; `None` when somebody else has moved it.
    async fn mark(&self, top: Top) -> Result<Option<Top>, BrokerError> {
        let record = Record { kind: RecordKind::Mark, top, event: None };
        let payload = record.encode(&self.channel);
        match self.store(record.top.sequence, "", payload).await? {
            Ack::Stored(sequence) => Ok(Some(Top { sequence, ..record.top })),
            Ack::Conflict | Ack::Duplicate(_) => Ok(None),
        }
    }

    /// Stores the next message if the newest is still `after`.
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
        // What is not ours is stepped over: the stream begins anew behind it.
        let strange = Record {
            kind: RecordKind::Mark,
            top: Top { sequence: stored.sequence, ..Top::default() },
            event: None,
        };
        Ok(Some(Record::decode(&stored.payload, stored.sequence).unwrap_or(strange)))
    }

    /// Where a publication of the same key was accepted; `None` when that was too long ago.
    async fn accepted_before(&self, sequence: u64) -> Result<Option<StreamPosition>, BrokerError> {
        let stream = self.link.names.history_stream();
        let stored = self.link.numbered(&stream, sequence).await?;
        let record = stored.and_then(|stored| Record::decode(&stored.payload, sequence));
        if let Some(record) = record {
            let is_over = record.top.accepted_ms + IDEMPOTENCY_TTL_MS <= self.link.now_ms();
            return Ok((!is_over).then(|| self.record_position(&record)));
        }
        // It is not retained any more, and its place with it: what is known is the stream's top.
        let top = self.top().await?.map(|record| record.top).unwrap_or_default();
        Ok(Some(self.stale_position(&top)))
    }

    fn record_position(&self, record: &Record) -> StreamPosition {
        match record.kind {
            RecordKind::Retained => self.link.position(&record.top),
            RecordKind::Plain | RecordKind::Noted | RecordKind::Mark => StreamPosition::default(),
        }
    }

    /// The position of a stream that may never have had one.
    fn stale_position(&self, top: &Top) -> StreamPosition {
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

fn next(
    link: &NatsLink,
    now_ms: u64,
    top: &Top,
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

/// Of what was read, that which is retained: consecutive, and ending at the top.
fn whole(top: &Top, now_ms: u64, read: &[Record]) -> Vec<Arc<Publication>> {
    let mut expected = top.offset;
    let mut retained = Vec::new();
    for record in read.iter().rev() {
        if record.kind != RecordKind::Retained || record.top.epoch != top.epoch {
            continue;
        }
        // What was published while this was read stands above the top.
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
