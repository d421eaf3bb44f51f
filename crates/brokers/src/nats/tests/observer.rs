//! What the endpoints of the simulated world receive, and the oracles on it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use engine::broker::{BrokerError, BrokerEvent, BrokerReply, JoinedStream};
use wire::protocol::{Publication, StreamPosition};

use crate::Inbox;

/// The inbox of an endpoint.
#[derive(Default)]
pub(super) struct Recorded {
    events: Mutex<Vec<BrokerEvent>>,
    is_full: AtomicBool,
}

impl Inbox for Recorded {
    fn deliver(&self, event: BrokerEvent) {
        self.events.lock().unwrap().push(event);
    }

    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }
}

/// Every publication that was stored with an offset, by epoch and offset.
#[derive(Default)]
pub(super) struct Truth {
    pub(super) stored: HashMap<(String, u64), String>,
    /// Texts of stored publications: each is stored once.
    texts: HashSet<String>,
}

/// One endpoint and what it knows of each channel.
pub(super) struct Observer {
    pub(super) name: String,
    pub(super) inbox: Arc<Recorded>,
    /// Open requests by number, with what they are about.
    pub(super) open: BTreeMap<u64, OpenRequest>,
    pub(super) channels: HashMap<String, Seen>,
    /// Whether every message arrives: then no gap is allowed.
    pub(super) is_lossless: bool,
}

#[derive(Clone, Debug)]
pub(super) enum OpenRequest {
    Subscribe {
        channel: String,
        since: Option<StreamPosition>,
    },
    /// Text of the publication, and whether a repetition of its key may be answered.
    Publish {
        channel: String,
        text: String,
        is_retained: bool,
        has_key: bool,
    },
    Other,
}

/// What an endpoint knows of a channel.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) is_subscribed: bool,
    /// Number of the request that subscribed, once it is answered: from then on nothing is missed.
    pub(super) joined_by: Option<u64>,
    /// Number of the first request after the last end of the subscription.
    pub(super) subscribed_after: u64,
    /// Position from replies, publications and notices; `None` before the first.
    pub(super) position: Option<(String, u64)>,
    /// Publications without offset.
    plain: HashSet<String>,
}

impl Truth {
    pub(super) fn add(&mut self, epoch: &str, offset: u64, text: &str) {
        let is_new = self.texts.insert(text.to_owned());
        assert!(is_new, "publication {text} is stored twice");
        let before = self.stored.insert((epoch.to_owned(), offset), text.to_owned());
        assert_eq!(before, None, "two publications at offset {offset} of epoch {epoch}");
    }

    fn check(&self, epoch: &str, publication: &Publication) {
        let expected = self.stored.get(&(epoch.to_owned(), publication.offset));
        assert_eq!(expected, Some(&text(publication)), "offset {}", publication.offset);
    }
}

pub(super) fn text(publication: &Publication) -> String {
    String::from_utf8(publication.data.to_vec()).unwrap()
}

impl Observer {
    pub(super) fn new(name: String, is_lossless: bool) -> Observer {
        let (inbox, open, channels) = Default::default();
        Observer { name, inbox, open, channels, is_lossless }
    }

    pub(super) fn seen(&mut self, channel: &str) -> &mut Seen {
        self.channels.entry(channel.to_owned()).or_default()
    }

    /// Checks what has arrived since the last call.
    pub(super) fn check(&mut self, truth: &Truth) {
        let events = std::mem::take(&mut *self.inbox.events.lock().unwrap());
        for event in events {
            self.check_event(truth, event);
        }
    }

    fn check_event(&mut self, truth: &Truth, event: BrokerEvent) {
        let name = self.name.clone();
        let is_lossless = self.is_lossless;
        match event {
            BrokerEvent::Publication { channel, publication, epoch } if epoch.is_empty() => {
                let seen = self.seen(&channel);
                let text = text(&publication);
                assert!(seen.plain.insert(text), "{name}: a publication twice");
            }
            BrokerEvent::Publication { channel, publication, epoch } => {
                truth.check(&epoch, &publication);
                let seen = self.seen(&channel);
                if let Some((known, offset)) = &seen.position
                    && **known == *epoch
                {
                    let next = publication.offset;
                    assert!(next > *offset, "{name}: offset {next} after {offset}");
                    let is_gap = next != offset + 1;
                    let is_allowed = !is_lossless || seen.joined_by.is_none();
                    assert!(!is_gap || is_allowed, "{name}: offset {next} after {offset}");
                }
                seen.position = Some((epoch.to_string(), publication.offset));
            }
            BrokerEvent::Position { channel, top } => self.seen(&channel).advance(&top),
            BrokerEvent::Reply(reply) => self.check_reply(truth, reply),
            BrokerEvent::Membership { .. } | BrokerEvent::Expired { .. } => {}
            other => panic!("{name}: {other:?}"),
        }
    }

    fn check_reply(&mut self, truth: &Truth, reply: BrokerReply) {
        let (number, _) = reply.outcome();
        let request = self.open.remove(&number);
        let request = request.unwrap_or_else(|| panic!("{}: reply to no request", self.name));
        match (request, reply) {
            (OpenRequest::Subscribe { channel, since }, BrokerReply::Subscribed(_, result)) => {
                match result {
                    Ok(joined) => {
                        let seen = self.seen(&channel);
                        if seen.joined_by.is_none() && joined.top.epoch.is_empty() {
                            // A position that it has is that of an earlier subscription.
                            seen.position = None;
                        }
                        self.check_join(truth, &channel, since.as_ref(), &joined);
                        let seen = self.seen(&channel);
                        if number >= seen.subscribed_after {
                            seen.is_subscribed = true;
                            seen.joined_by.get_or_insert(number);
                        }
                    }
                    Err(error) => {
                        assert_eq!(error, BrokerError::Unavailable);
                        let seen = self.seen(&channel);
                        if seen.joined_by.is_none() && number >= seen.subscribed_after {
                            seen.is_subscribed = false;
                        }
                    }
                }
            }
            (OpenRequest::Publish { .. }, BrokerReply::Published(_, Err(error))) => {
                assert!(matches!(error, BrokerError::Unavailable | BrokerError::Overloaded));
                assert!(!self.is_lossless, "{}: a publication fails: {error}", self.name);
            }
            (
                OpenRequest::Publish { channel, text, is_retained, has_key },
                BrokerReply::Published(_, Ok(position)),
            ) => {
                if !is_retained {
                    self.expect_plain(&channel, &text, number);
                    return;
                }
                if has_key && position.offset == 0 {
                    return;
                }
                let stored = truth.stored.get(&(position.epoch.clone(), position.offset));
                // A repetition whose first attempt is removed is answered with the top.
                let is_right = if has_key { stored.is_some() } else { stored == Some(&text) };
                assert!(is_right, "{}: {position:?} is not that of {text}", self.name);
                let Some(seen) = self.channels.get(&channel) else { return };
                let is_joined = seen.joined_by.is_some_and(|joined| joined < number);
                if is_joined && self.is_lossless && !has_key {
                    let known = seen.position.as_ref();
                    let has_it = known.is_none_or(|(epoch, offset)| {
                        *epoch != position.epoch || *offset >= position.offset
                    });
                    assert!(has_it, "{}: the reply overtakes the publication", self.name);
                }
            }
            (OpenRequest::Other, BrokerReply::History(_, Ok(read))) => {
                for publication in &read.publications {
                    truth.check(&read.epoch, publication);
                }
                let offsets = read.publications.iter().map(|one| one.offset);
                let expected = read.offset + 1 - read.publications.len() as u64..=read.offset;
                assert!(offsets.eq(expected), "{}: a history with gaps", self.name);
            }
            (OpenRequest::Other, _) => {}
            (request, reply) => panic!("{}: {request:?} is answered with {reply:?}", self.name),
        }
    }

    /// Without faults, an endpoint that is subscribed has its own plain publication before the
    /// reply.
    fn expect_plain(&self, channel: &str, text: &str, number: u64) {
        let Some(seen) = self.channels.get(channel) else { return };
        let is_joined = seen.joined_by.is_some_and(|joined| joined < number);
        let has_it = !self.is_lossless || !is_joined || seen.plain.contains(text);
        assert!(has_it, "{}: the reply overtakes the publication {text}", self.name);
    }

    fn check_join(
        &mut self,
        truth: &Truth,
        channel: &str,
        since: Option<&StreamPosition>,
        joined: &JoinedStream,
    ) {
        let JoinedStream { top, publications } = joined;
        for publication in publications {
            truth.check(&top.epoch, publication);
        }
        if !publications.is_empty() {
            let first = top.offset + 1 - publications.len() as u64;
            let offsets = publications.iter().map(|publication| publication.offset);
            assert!(offsets.eq(first..=top.offset), "{}: a recovery with gaps", self.name);
            let since = since.filter(|since| since.epoch == top.epoch);
            assert!(since.is_none_or(|since| first > since.offset));
        }
        if !top.epoch.is_empty() {
            self.seen(channel).advance(top);
        }
    }
}

impl Seen {
    /// Takes over a position from a reply or a notice. Publications up to it have arrived before,
    /// or are covered by the reply.
    fn advance(&mut self, top: &StreamPosition) {
        let known = self.position.get_or_insert_with(|| (top.epoch.clone(), top.offset));
        if known.0 != top.epoch || known.1 < top.offset {
            *known = (top.epoch.clone(), top.offset);
        }
    }
}
