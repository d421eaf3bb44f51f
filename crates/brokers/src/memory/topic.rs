//! One channel of the memory broker: subscribers, stream, presence, and what must not be published
//! again.
//!
//! Invariant: everything stored here ends: subscribers and clients leave, streams and keys expire.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use engine::broker::{
    BrokerError, BrokerEvent, ChannelTtl, JoinRead, JoinedStream, Membership, PublishOptions,
};
use engine::history::{Retention, Stream};
use engine::limits::IDEMPOTENCY_TTL_MS;
use engine::presence::Presence;
use wire::protocol::{Publication, StreamPosition};

use super::usage::Growth;
use crate::limits::{CHANNEL_COST, IDEMPOTENCY_KEYS_MAX, KEPT_COST, KEY_COST, PRESENCE_COST};
use crate::{Endpoint, Inbox};

/// One channel of the memory broker.
#[derive(Default)]
pub(super) struct Topic {
    listeners: Vec<(Endpoint, Arc<dyn Inbox>)>,
    kept: Option<Box<Kept>>,
}

/// State that only some channels have.
#[derive(Default)]
struct Kept {
    /// Clients with their endpoint, and whether their leave is announced.
    presence: Presence<(Endpoint, bool)>,
    stream: Option<Stream>,
    /// Start and end of a temporary channel.
    lifetime: Option<(u64, u64)>,
    /// Time at which offset and epoch expire.
    stream_ends_at_ms: u64,
    version: u64,
    version_epoch: String,
    /// Positions by idempotency key, and the keys in order of expiry.
    accepted: HashMap<String, StreamPosition>,
    /// Bytes of the idempotency keys.
    accepted_bytes: usize,
    accepted_order: VecDeque<(u64, String)>,
}

/// A publication to be added to a topic.
pub(super) struct Published<'a> {
    pub(super) channel: &'a Arc<str>,
    pub(super) publication: Publication,
    pub(super) options: &'a PublishOptions,
}

impl Topic {
    pub(super) fn add_listener(&mut self, endpoint: Endpoint, inbox: Arc<dyn Inbox>) {
        if !self.listeners.iter().any(|(listener, _)| *listener == endpoint) {
            // Exact, because most channels have subscribers on one worker.
            self.listeners.reserve_exact(1);
            self.listeners.push((endpoint, inbox));
        }
    }

    pub(super) fn remove_listener(&mut self, endpoint: Endpoint) {
        self.listeners.retain(|(listener, _)| *listener != endpoint);
    }

    pub(super) fn has_subscribers(&self) -> bool {
        !self.listeners.is_empty()
    }

    pub(super) fn notify(&self, event: &BrokerEvent) {
        for (_, inbox) in &self.listeners {
            inbox.deliver(event.clone());
        }
    }

    pub(super) fn presence_mut(&mut self) -> &mut Presence<(Endpoint, bool)> {
        &mut self.kept.get_or_insert_default().presence
    }

    /// Returns the stream; creates it if there is none.
    pub(super) fn stream(
        &mut self,
        now_ms: u64,
        meta_ttl_ms: u64,
        new_epoch: impl FnOnce() -> Arc<str>,
    ) -> &Stream {
        self.kept.get_or_insert_default().stream(now_ms, meta_ttl_ms, new_epoch)
    }

    pub(super) fn clear_stream(&mut self) {
        if let Some(stream) = self.kept.as_mut().and_then(|kept| kept.stream.as_mut()) {
            stream.clear();
        }
    }

    pub(super) fn join(
        &mut self,
        now_ms: u64,
        read: &JoinRead,
        new_epoch: impl FnOnce() -> Arc<str>,
    ) -> JoinedStream {
        match read {
            JoinRead::Nothing => JoinedStream::default(),
            JoinRead::Position { meta_ttl_ms }
            | JoinRead::Since { meta_ttl_ms, .. }
            | JoinRead::Newest { meta_ttl_ms } => {
                self.stream(now_ms, *meta_ttl_ms, new_epoch).join(read)
            }
        }
    }

    pub(super) fn publish(
        &mut self,
        now_ms: u64,
        published: Published<'_>,
        new_epoch: impl FnOnce() -> Arc<str>,
    ) -> Result<StreamPosition, BrokerError> {
        let Published { channel, publication, options } = published;
        if let Some(position) = self.kept.as_ref().and_then(|kept| kept.suppressed(options)) {
            return Ok(position);
        }
        if self.listeners.iter().any(|(_, inbox)| inbox.is_full()) {
            return Err(BrokerError::Overloaded);
        }
        let (publication, epoch, position) = if options.history_size > 0 {
            let kept = self.kept.get_or_insert_default();
            kept.stream(now_ms, options.history_meta_ttl_ms, new_epoch);
            let stream = kept.stream.as_mut().expect("begun in the line above");
            let publication = stream.append(now_ms, retention(options), publication);
            (publication, stream.epoch().clone(), stream.position())
        } else {
            (Arc::new(publication), "".into(), StreamPosition::default())
        };
        if options.version > 0 || !options.idempotency_key.is_empty() {
            self.kept.get_or_insert_default().remember(now_ms, options, &position);
        }
        let channel = channel.clone();
        self.notify(&BrokerEvent::Publication { channel, publication, epoch });
        Ok(position)
    }

    /// Bytes of the topic; 0 for one that is not stored.
    pub(super) fn cost(&self, channel: &str) -> usize {
        if self.is_idle() {
            return 0;
        }
        let kept = self.kept.as_ref().map_or(0, |kept| kept.cost());
        CHANNEL_COST + channel.len() + kept
    }

    /// Growth by a subscriber.
    pub(super) fn growth_of_listener(&self, channel: &str) -> Growth {
        match self.is_idle() {
            true => Growth::NewChannel { bytes: CHANNEL_COST + channel.len() + KEPT_COST },
            false => Growth::None,
        }
    }

    /// Growth by a publication. One that is delivered only, or was accepted before, costs nothing.
    pub(super) fn growth_of(&self, published: &Published<'_>) -> Growth {
        let Published { channel, publication, options } = published;
        if self.kept.as_ref().is_some_and(|kept| kept.suppressed(options).is_some()) {
            return Growth::None;
        }
        let mut bytes = 0;
        if options.history_size > 0 {
            let retention = retention(options);
            let stream = self.kept.as_ref().and_then(|kept| kept.stream.as_ref());
            let fresh = || Stream::new("".into()).growth(retention, publication);
            bytes += stream.map_or_else(fresh, |stream| stream.growth(retention, publication));
        }
        if !options.idempotency_key.is_empty() {
            bytes += KEY_COST + 2 * options.idempotency_key.len();
        }
        let keeps =
            options.history_size > 0 || options.version > 0 || !options.idempotency_key.is_empty();
        match (keeps, self.is_idle(), &self.kept) {
            (false, ..) => Growth::None,
            (true, true, _) => {
                let bytes = bytes + CHANNEL_COST + channel.len() + KEPT_COST;
                Growth::NewChannel { bytes }
            }
            (true, false, None) => Growth::Known { bytes: bytes + KEPT_COST },
            (true, false, Some(_)) if bytes == 0 => Growth::None,
            (true, false, Some(_)) => Growth::Known { bytes },
        }
    }

    /// Deletes offset and epoch if nothing else is stored. Returns whether it did.
    pub(super) fn forget_empty_stream(&mut self) -> bool {
        let Some(kept) = self.kept.as_mut().filter(|_| self.listeners.is_empty()) else {
            return false;
        };
        let empty = kept.stream.take_if(|stream| stream.is_empty() && !stream.is_new());
        let has_forgotten = empty.is_some();
        if kept.is_empty() {
            self.kept = None;
        }
        has_forgotten
    }

    /// Deletes the stream. Returns whether clients may hold positions of it.
    pub(super) fn end_stream(&mut self) -> bool {
        let Some(kept) = &mut self.kept else { return false };
        let has_ended = kept.stream.take().is_some_and(|stream| !stream.is_new());
        if kept.is_empty() {
            self.kept = None;
        }
        has_ended
    }

    /// Removes a detached endpoint: its subscription and its clients.
    pub(super) fn forget(&mut self, channel: &Arc<str>, endpoint: Endpoint) {
        self.remove_listener(endpoint);
        let gone = match &mut self.kept {
            Some(kept) => kept.presence.remove_endpoint(|(owner, _)| *owner == endpoint),
            None => return,
        };
        for (info, _) in gone.into_iter().filter(|(_, (_, announces))| *announces) {
            let (channel, change) = (channel.clone(), Membership::Leave);
            self.notify(&BrokerEvent::Membership { channel, info, change });
        }
    }

    /// Makes the channel temporary. Later calls do not change its expiry.
    pub(super) fn limit(&mut self, now_ms: u64, ttl_ms: u64) {
        let ends_at_ms = now_ms.saturating_add(ttl_ms);
        self.kept.get_or_insert_default().lifetime.get_or_insert((now_ms, ends_at_ms));
    }

    /// Returns age and remaining TTL; `None` if the channel is not temporary.
    pub(super) fn ttl(&self, now_ms: u64) -> Option<ChannelTtl> {
        let (began_at_ms, ends_at_ms) = self.kept.as_ref()?.lifetime?;
        let age_ms = now_ms.saturating_sub(began_at_ms);
        Some(ChannelTtl { age_ms, left_ms: ends_at_ms.saturating_sub(now_ms) })
    }

    /// Deletes expired data. Returns whether that includes a stream of which clients may hold
    /// positions.
    pub(super) fn expire(&mut self, channel: &Arc<str>, now_ms: u64) -> bool {
        let has_listeners = !self.listeners.is_empty();
        let Some(kept) = &mut self.kept else { return false };
        let mut has_forgotten = kept.expire(now_ms, self.listeners.len());
        if kept.lifetime.take_if(|(_, ends_at_ms)| *ends_at_ms <= now_ms).is_some() {
            has_forgotten |= kept.stream.take().is_some_and(|stream| !stream.is_new());
            let channel = channel.clone();
            for (_, inbox) in &self.listeners {
                inbox.deliver(BrokerEvent::Expired { channel: channel.clone() });
            }
        }
        if kept.is_empty() && !has_listeners {
            self.kept = None;
        }
        has_forgotten
    }

    pub(super) fn is_idle(&self) -> bool {
        self.listeners.is_empty() && self.kept.as_ref().is_none_or(|kept| kept.is_empty())
    }
}

fn retention(options: &PublishOptions) -> Retention {
    Retention { size: options.history_size, ttl_ms: options.history_ttl_ms }
}

impl Kept {
    fn stream(
        &mut self,
        now_ms: u64,
        meta_ttl_ms: u64,
        new_epoch: impl FnOnce() -> Arc<str>,
    ) -> &Stream {
        self.stream_ends_at_ms = self.stream_ends_at_ms.max(now_ms.saturating_add(meta_ttl_ms));
        self.stream.get_or_insert_with(|| Stream::new(new_epoch()))
    }

    /// Returns the position of an earlier publication that makes this one a repetition.
    fn suppressed(&self, options: &PublishOptions) -> Option<StreamPosition> {
        if let Some(position) = self.accepted.get(&options.idempotency_key) {
            return Some(position.clone());
        }
        let is_stale = options.version > 0
            && options.version <= self.version
            && (options.version_epoch.is_empty() || options.version_epoch == self.version_epoch);
        let top = || self.stream.as_ref().map(Stream::position).unwrap_or_default();
        is_stale.then(top)
    }

    fn remember(&mut self, now_ms: u64, options: &PublishOptions, position: &StreamPosition) {
        if options.version > 0 {
            self.version = options.version;
            self.version_epoch.clone_from(&options.version_epoch);
            let keeps_ms = options.history_meta_ttl_ms.max(IDEMPOTENCY_TTL_MS);
            self.stream_ends_at_ms = self.stream_ends_at_ms.max(now_ms.saturating_add(keeps_ms));
        }
        if !options.idempotency_key.is_empty() {
            if self.accepted_order.len() >= IDEMPOTENCY_KEYS_MAX
                && let Some((_, oldest)) = self.accepted_order.pop_front()
            {
                self.accepted.remove(&oldest);
                self.accepted_bytes -= oldest.len();
            }
            let key = options.idempotency_key.clone();
            self.accepted_bytes += key.len();
            self.accepted_order.push_back((now_ms + IDEMPOTENCY_TTL_MS, key.clone()));
            self.accepted.insert(key, position.clone());
        }
    }

    fn expire(&mut self, now_ms: u64, listener_count: usize) -> bool {
        while self.accepted_order.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms) {
            if let Some((_, key)) = self.accepted_order.pop_front() {
                self.accepted.remove(&key);
                self.accepted_bytes -= key.len();
            }
        }
        let mut has_forgotten = false;
        // A subscriber's position in an empty stream must stay valid.
        let is_waiting = listener_count > 0 && self.stream.as_ref().is_some_and(Stream::is_new);
        if self.stream_ends_at_ms <= now_ms && !is_waiting {
            has_forgotten = self.stream.take().is_some_and(|stream| !stream.is_new());
            self.version = 0;
            self.version_epoch = String::new();
        }
        if let Some(stream) = &mut self.stream {
            stream.expire(now_ms);
        }
        has_forgotten
    }

    fn cost(&self) -> usize {
        let clients = self.presence.stats().num_clients as usize;
        let stream = self.stream.as_ref().map_or(0, Stream::bytes);
        let keys = self.accepted.len() * KEY_COST + 2 * self.accepted_bytes;
        KEPT_COST + stream + keys + clients * PRESENCE_COST
    }

    /// A new stream need not be stored: the next one would be equal.
    fn is_empty(&self) -> bool {
        self.lifetime.is_none()
            && self.presence.is_empty()
            && self.stream.as_ref().is_none_or(Stream::is_new)
            && self.version == 0
            && self.accepted.is_empty()
    }
}
