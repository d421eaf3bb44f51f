//! What all clients together have seen, and what is wrong with it.
//!
//! Invariants: within an epoch of a channel a client's offsets go up by one, unless it was notified
//! of a loss; one offset is one publication, for all clients on all nodes; and one publication has
//! one offset.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use ::client::session::Subscribed;
use ::client::{Publication, StreamPosition};

use crate::client::Place;
use crate::publisher::{Acknowledged, Payload};

/// See the module.
pub(crate) struct Truth {
    /// When the world began, which payloads count from.
    began: Instant,
    /// Since when places are to settle.
    pub(crate) mark: Option<Instant>,
    streams: Vec<Stream>,
    /// Where a publication was seen first.
    seen: HashMap<u64, (usize, StreamPosition)>,
    /// Names of clients, by every connection that they had.
    pub(crate) admitted: Vec<String>,
    pub(crate) tally: Tally,
    /// The first failures, in words.
    pub(crate) failures: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) deliveries: u64,
    /// Unsubscribed or disconnected because something may be missing.
    pub(crate) reported: u64,
    /// Reconnected and was notified of a gap.
    pub(crate) notices: u64,
    pub(crate) failures: u64,
}

/// The epochs of a channel.
type Stream = HashMap<String, EpochLog>;

struct EpochLog {
    /// The lowest offset from which on a client was subscribed without a gap.
    after: u64,
    /// The highest offset that a client has received.
    to: u64,
    payloads: HashMap<u64, u64>,
}

impl Truth {
    pub(crate) fn new(began: Instant, channels: usize) -> Truth {
        Truth {
            began,
            mark: None,
            streams: (0..channels).map(|_| Stream::new()).collect(),
            seen: HashMap::new(),
            admitted: Vec::new(),
            tally: Tally::default(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn fail(&mut self, failure: String) {
        self.tally.failures += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(failure);
        }
    }

    /// The client knows now that something may be missing.
    pub(crate) fn reported(&mut self, place: &mut Place) {
        self.tally.reported += 1;
        self.settle(place);
    }

    /// A subscription has begun, perhaps from where the client was.
    pub(crate) fn begin(&mut self, place: &mut Place, subscribed: &Subscribed) {
        let channel = place.channel;
        let is_recovered = subscribed.was_recovering && subscribed.recovered;
        let position = subscribed.position.clone();
        if let Some(old) = &place.position {
            if !is_recovered {
                self.tally.notices += 1;
            } else if old.epoch != position.epoch {
                self.fail(format!("channel {channel}: recovered from another epoch: {old:?}"));
            }
        }
        if is_recovered {
            let from = place.position.as_ref().map(|position| position.offset);
            if from != Some(position.offset) {
                let offset = position.offset;
                self.fail(format!("channel {channel}: recovered from {offset}, not {from:?}"));
            }
        } else {
            if subscribed.missed > 0 {
                self.fail(format!("channel {channel}: publications without recovery"));
            }
            let log = self.log(channel, &position);
            log.after = log.after.min(position.offset);
            place.position = Some(position);
        }
        self.settle(place);
    }

    pub(crate) fn take(&mut self, place: &mut Place, publication: &Publication) {
        self.tally.deliveries += 1;
        let channel = place.channel;
        let Some(position) = &mut place.position else {
            return self.fail(format!("channel {channel}: a publication before a position"));
        };
        let (expected, offset) = (position.offset + 1, publication.offset);
        position.offset = offset;
        let position = position.clone();
        if offset != expected {
            self.fail(format!("channel {channel}: offset {offset} instead of {expected}"));
        }
        let Some(payload) = Payload::decode(&publication.data) else {
            let data = publication.data.escape_ascii();
            return self.fail(format!("channel {channel}: strange data {data}"));
        };
        let log = self.log(channel, &position);
        log.to = log.to.max(offset);
        match log.payloads.entry(offset) {
            Entry::Occupied(known) if *known.get() == payload.id => {}
            Entry::Occupied(known) => {
                let known = *known.get();
                self.fail(format!("channel {channel}: {position:?} is {known} and {}", payload.id));
            }
            Entry::Vacant(free) => {
                free.insert(payload.id);
                if let Some(other) = self.seen.insert(payload.id, (channel, position.clone())) {
                    let id = payload.id;
                    self.fail(format!("{id} is at {other:?} and at {channel}, {position:?}"));
                }
            }
        }
        if self.mark.is_some_and(|mark| self.began + payload.at >= mark) {
            self.settle(place);
        }
    }

    /// What publishers were promised, once all clients stand at the top of their channels.
    pub(crate) fn check(&mut self, acknowledged: &[Acknowledged], tops: &[StreamPosition]) {
        for reported in acknowledged {
            let Acknowledged { channel, id, position } = reported;
            let StreamPosition { offset, epoch } = position;
            if *epoch == tops[*channel].epoch && *offset > tops[*channel].offset {
                self.fail(format!("{reported:?} is beyond the top"));
            }
            // An epoch that no client knows ended before any client received it.
            let Some(log) = self.streams[*channel].get(epoch) else { continue };
            let seen = log.payloads.get(offset);
            let is_covered = log.after < *offset && *offset <= log.to;
            if (is_covered || seen.is_some()) && seen != Some(id) {
                self.fail(format!("{reported:?}, but {seen:?} is there"));
            }
        }
    }

    /// Publications that all clients together have seen.
    pub(crate) fn publications(&self) -> usize {
        self.seen.len()
    }

    fn log(&mut self, channel: usize, position: &StreamPosition) -> &mut EpochLog {
        let stream = &mut self.streams[channel];
        if !stream.contains_key(&position.epoch) {
            let log =
                EpochLog { after: position.offset, to: position.offset, payloads: HashMap::new() };
            stream.insert(position.epoch.clone(), log);
        }
        stream.get_mut(&position.epoch).expect("it is there")
    }

    fn settle(&mut self, place: &mut Place) {
        if self.mark.is_some() {
            place.settled.get_or_insert_with(Instant::now);
        }
    }
}

const FAILURES_KEPT: usize = 20;

#[cfg(test)]
mod tests {
    use ::client::session::SubscriptionOrigin;

    use super::*;

    fn publication(offset: u64, id: u64) -> Publication {
        let data = Payload { id, at: Duration::ZERO }.encode().into();
        Publication { offset, data, ..Publication::default() }
    }

    fn joined(offset: u64, recovered: bool) -> Subscribed {
        Subscribed {
            origin: SubscriptionOrigin::Client,
            recoverable: true,
            positioned: true,
            was_recovering: recovered,
            recovered,
            missed: 0,
            position: StreamPosition { offset, epoch: "e".to_owned() },
            data: Vec::new().into(),
        }
    }

    /// Two clients in one channel; the first has 1 and 2.
    fn world() -> (Truth, Place, Place) {
        let mut truth = Truth::new(Instant::now(), 1);
        let (mut one, mut two) = (Place::new(0), Place::new(0));
        truth.begin(&mut one, &joined(0, false));
        truth.begin(&mut two, &joined(0, false));
        truth.take(&mut one, &publication(1, 11));
        truth.take(&mut one, &publication(2, 12));
        assert_eq!(truth.failures, [""; 0]);
        (truth, one, two)
    }

    #[test]
    fn a_gap_a_double_and_another_order_are_failures() {
        for (offset, id) in [(2, 12), (1, 12), (0, 11)] {
            let (mut truth, _, mut two) = world();
            truth.take(&mut two, &publication(offset, id));
            assert!(truth.tally.failures > 0, "{offset} {id}");
        }
        let (mut truth, mut one, _) = world();
        truth.take(&mut one, &publication(3, 11));
        assert_eq!(truth.tally.failures, 1, "one publication at two offsets");
    }

    #[test]
    fn a_reported_gap_is_no_violation() {
        let (mut truth, _, mut two) = world();
        truth.begin(&mut two, &joined(2, false));
        truth.take(&mut two, &publication(3, 13));
        assert_eq!((truth.tally.notices, truth.tally.failures), (1, 0));
    }

    #[test]
    fn a_recovery_that_is_short_is_a_failure() {
        let (mut truth, _, mut two) = world();
        truth.begin(&mut two, &joined(0, true));
        truth.take(&mut two, &publication(3, 13));
        assert_eq!(truth.tally.failures, 1);
    }

    #[test]
    fn an_acknowledged_publication_that_nobody_saw_is_a_failure() {
        let at = |offset| StreamPosition { offset, epoch: "e".to_owned() };
        let (mut truth, ..) = world();
        let reported = |offset, id| [Acknowledged { channel: 0, id, position: at(offset) }];
        truth.check(&reported(2, 12), &[at(2)]);
        assert_eq!(truth.tally.failures, 0);
        truth.check(&reported(2, 13), &[at(2)]);
        truth.check(&reported(3, 13), &[at(2)]);
        assert_eq!(truth.tally.failures, 2);
    }
}
