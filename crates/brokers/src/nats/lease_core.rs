//! The core of a node's lease: a message that is stored again before it expires, and shows other
//! nodes that this one runs.
//!
//! Invariant: a lease is stored only if the newest message of its subject is the one that this node
//! stored last. So a node notices that another one cleans it up, and waits until the cleanup is
//! done: its own events come after the offline events that the other node publishes. Pure: the
//! calls are made by [`super::lease`].

use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::broker::BrokerError;

use super::stored_message::{Ack, StoredMessage};
use super::subject;

/// See the module.
#[derive(Debug)]
pub(super) struct LeaseCore {
    payload: Bytes,
    ttl: Duration,
    /// JetStream sequence of the newest lease that this node has stored; zero for none.
    sequence: u64,
    /// Sequence of another node's claim to clean up this node, and when it was first seen.
    claim: Option<(u64, Instant)>,
    streams: Option<CreationTimes>,
    /// A state that no renewal has returned yet, because the lease could not be stored.
    found: LeaseState,
    has_ended: bool,
    /// When the call that stored the lease last was made: the lease expires one TTL after it at the
    /// earliest.
    renewed_at: Instant,
    /// When the last call was made.
    called_at: Instant,
    wait: Wait,
}

/// The state of a lease since its last renewal. Later variants take precedence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LeaseState {
    /// The lease was valid without interruption.
    #[default]
    Held,
    /// NATS was restarted: the streams in memory, with leases and presence, are lost.
    Lost,
    /// Another node has cleaned up this one and published that its clients are offline, or the
    /// stream with their online events is lost.
    Forgotten,
}

/// Creation times of two streams, as NATS reports them; a stream that is created again has another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CreationTimes {
    pub(super) presence: String,
    pub(super) events: String,
}

/// What a renewal requests from NATS.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LeaseCall {
    ReadStreams,
    /// Stores the lease if the newest message of its subject has the sequence `after`.
    Store {
        after: u64,
        payload: Bytes,
    },
    /// Reads the newest message of the lease's subject.
    ReadNewest,
}

/// A successful answer to the call of the same name.
#[derive(Debug)]
pub(super) enum LeaseAnswer {
    Streams(CreationTimes),
    Stored(Ack),
    Newest(Option<StoredMessage>),
}

/// The next step of a renewal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LeaseStep {
    Call(LeaseCall),
    Done(Result<LeaseState, BrokerError>),
}

/// The call whose answer is awaited.
#[derive(Clone, Copy, Debug)]
enum Wait {
    Streams,
    FirstStore,
    Newest,
    /// The lease is missing: the streams show why.
    StreamsAfterLoss,
    SecondStore,
}

impl LeaseCore {
    pub(super) fn new(now: Instant, name: &str, ttl: Duration) -> LeaseCore {
        LeaseCore {
            payload: format!("{BEGINNING}{}\n", subject::token(name)).into(),
            ttl,
            sequence: 0,
            claim: None,
            streams: None,
            found: LeaseState::default(),
            has_ended: false,
            renewed_at: now,
            called_at: now,
            wait: Wait::Streams,
        }
    }

    /// Why a failed renewal makes this node unready; `None` while the lease has half its time left.
    pub(super) fn reason(&self, now: Instant) -> Option<String> {
        let age = now.saturating_duration_since(self.renewed_at);
        if self.is_claimed() {
            return Some("another node cleans up this node as failed".to_owned());
        }
        (age > self.ttl / 2).then(|| {
            format!(
                "the lease of this node was last renewed {} s ago, and expires after {} s",
                age.as_secs(),
                self.ttl.as_secs()
            )
        })
    }

    /// Returns whether another node is known to clean up this one.
    pub(super) fn is_claimed(&self) -> bool {
        self.claim.is_some()
    }

    /// Prevents further renewals, so that the lease can be removed.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    /// Begins to store the lease again. Fails also while another node cleans up this one.
    pub(super) fn begin_renewal(&mut self, now: Instant) -> LeaseStep {
        self.called_at = now;
        if self.has_ended {
            return LeaseStep::Done(Err(BrokerError::Unavailable));
        }
        match self.streams {
            Some(_) => self.store_after(self.sequence, Wait::FirstStore),
            None => self.call(LeaseCall::ReadStreams, Wait::Streams),
        }
    }

    /// Handles the answer to the last call.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        result: Result<LeaseAnswer, BrokerError>,
    ) -> LeaseStep {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => return LeaseStep::Done(Err(error)),
        };
        let called_at = std::mem::replace(&mut self.called_at, now);
        match (self.wait, answer) {
            (Wait::Streams, LeaseAnswer::Streams(streams)) => {
                self.streams = Some(streams);
                self.store_after(self.sequence, Wait::FirstStore)
            }
            (Wait::FirstStore | Wait::SecondStore, LeaseAnswer::Stored(Ack::Stored(sequence))) => {
                self.sequence = sequence;
                self.renewed_at = called_at;
                self.claim = None;
                LeaseStep::Done(Ok(std::mem::take(&mut self.found)))
            }
            (Wait::FirstStore, LeaseAnswer::Stored(_)) => {
                self.call(LeaseCall::ReadNewest, Wait::Newest)
            }
            (Wait::Newest, LeaseAnswer::Newest(None)) => {
                self.call(LeaseCall::ReadStreams, Wait::StreamsAfterLoss)
            }
            (Wait::Newest, LeaseAnswer::Newest(Some(stored))) => self.handle_newest(now, &stored),
            (Wait::StreamsAfterLoss, LeaseAnswer::Streams(streams)) => {
                let before = self.streams.replace(streams.clone());
                let is_forgotten = before.is_some_and(|before| {
                    let was_cleared = streams.presence == before.presence;
                    was_cleared || streams.events != before.events
                });
                self.find(if is_forgotten { LeaseState::Forgotten } else { LeaseState::Lost });
                self.store_after(0, Wait::SecondStore)
            }
            (Wait::SecondStore, LeaseAnswer::Stored(_)) => {
                LeaseStep::Done(Err(BrokerError::Unavailable))
            }
            (wait, answer) => unreachable!("{wait:?} is answered with {answer:?}"),
        }
    }

    /// Handles a message that this node does not know as its newest one.
    fn handle_newest(&mut self, now: Instant, stored: &StoredMessage) -> LeaseStep {
        if is_lease(stored) {
            // This node stored it, but the acknowledgement was lost.
            return self.store_after(stored.sequence, Wait::SecondStore);
        }
        self.find(LeaseState::Forgotten);
        match self.claim {
            // The node with the claim has failed too.
            Some((claim, since)) if claim == stored.sequence && now >= since + self.ttl => {
                return self.store_after(stored.sequence, Wait::SecondStore);
            }
            Some((claim, _)) if claim == stored.sequence => {}
            _ => self.claim = Some((stored.sequence, now)),
        }
        LeaseStep::Done(Err(BrokerError::Unavailable))
    }

    fn find(&mut self, state: LeaseState) {
        self.found = self.found.max(state);
    }

    fn store_after(&mut self, after: u64, wait: Wait) -> LeaseStep {
        let payload = self.payload.clone();
        self.call(LeaseCall::Store { after, payload }, wait)
    }

    fn call(&mut self, call: LeaseCall, wait: Wait) -> LeaseStep {
        self.wait = wait;
        LeaseStep::Call(call)
    }
}

/// Returns whether a message is a lease, and not a claim to clean up its node.
pub(super) fn is_lease(stored: &StoredMessage) -> bool {
    name_in(stored).is_some()
}

/// The node name in a lease.
pub(super) fn name_in(stored: &StoredMessage) -> Option<String> {
    let line = std::str::from_utf8(&stored.payload).ok()?;
    subject::text(line.strip_prefix(BEGINNING)?.strip_suffix('\n')?)
}

/// Prefix of a lease's payload.
const BEGINNING: &str = "t1 lease ";

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(12);

    /// The subject of one lease, and the creation times of the streams.
    struct Model {
        newest: Option<(u64, Bytes)>,
        last: u64,
        streams: CreationTimes,
        /// The next store takes effect, but its acknowledgement is lost.
        loses_ack: bool,
    }

    impl Model {
        fn new() -> Model {
            let streams = CreationTimes { presence: "1".into(), events: "1".into() };
            Model { newest: None, last: 0, streams, loses_ack: false }
        }

        fn put(&mut self, payload: Bytes) {
            self.last += 1;
            self.newest = Some((self.last, payload));
        }

        fn answer(&mut self, call: LeaseCall) -> Result<LeaseAnswer, BrokerError> {
            let newest = self.newest.as_ref().map_or(0, |(sequence, _)| *sequence);
            Ok(match call {
                LeaseCall::ReadStreams => LeaseAnswer::Streams(self.streams.clone()),
                LeaseCall::Store { after, .. } if after != newest => {
                    LeaseAnswer::Stored(Ack::Conflict)
                }
                LeaseCall::Store { payload, .. } => {
                    self.put(payload);
                    if std::mem::take(&mut self.loses_ack) {
                        return Err(BrokerError::Unavailable);
                    }
                    LeaseAnswer::Stored(Ack::Stored(self.last))
                }
                LeaseCall::ReadNewest => {
                    let stored = self.newest.clone().map(|(sequence, payload)| StoredMessage {
                        subject: String::new(),
                        sequence,
                        payload,
                        at_ms: 0,
                    });
                    LeaseAnswer::Newest(stored)
                }
            })
        }

        fn renew(&mut self, core: &mut LeaseCore, now: Instant) -> Result<LeaseState, BrokerError> {
            let mut step = core.begin_renewal(now);
            loop {
                step = match step {
                    LeaseStep::Call(call) => core.handle(now, self.answer(call)),
                    LeaseStep::Done(result) => return result,
                };
            }
        }
    }

    fn held() -> (Model, LeaseCore, Instant) {
        let now = Instant::now();
        let (mut model, mut core) = (Model::new(), LeaseCore::new(now, "a", TTL));
        assert_eq!(model.renew(&mut core, now), Ok(LeaseState::Held), "the first lease");
        assert_eq!(model.renew(&mut core, now), Ok(LeaseState::Held));
        (model, core, now)
    }

    #[test]
    fn a_lost_acknowledgement_does_not_end_the_lease() {
        let (mut model, mut core, now) = held();
        model.loses_ack = true;
        assert_eq!(model.renew(&mut core, now), Err(BrokerError::Unavailable));
        assert_eq!(model.renew(&mut core, now), Ok(LeaseState::Held));
        assert_eq!(core.reason(now + TTL / 2), None);
        assert!(core.reason(now + TTL).is_some());
    }

    #[test]
    fn a_lease_counts_from_the_call_and_not_from_its_answer() {
        let (mut model, mut core, now) = held();
        let late = Duration::from_secs(3);
        let LeaseStep::Call(call) = core.begin_renewal(now) else { panic!("no call") };
        let answer = model.answer(call);
        assert_eq!(core.handle(now + late, answer), LeaseStep::Done(Ok(LeaseState::Held)));
        assert_eq!(core.reason(now + TTL / 2), None);
        assert!(core.reason(now + TTL / 2 + late).is_some());
    }

    #[test]
    fn a_claimed_node_waits_for_the_cleanup_and_learns_of_it_once() {
        let (mut model, mut core, now) = held();
        model.put(Bytes::from_static(b"t1 cleared by b\n"));
        for after in [0, 6, 11] {
            let at = now + Duration::from_secs(after);
            assert_eq!(model.renew(&mut core, at), Err(BrokerError::Unavailable));
            assert!(core.is_claimed() && core.reason(at).is_some());
        }
        // The other node is done and removes the lease.
        model.newest = None;
        assert_eq!(model.renew(&mut core, now + TTL), Ok(LeaseState::Forgotten));
        assert_eq!(model.renew(&mut core, now + TTL), Ok(LeaseState::Held));
        assert!(!core.is_claimed());
    }

    #[test]
    fn a_claim_that_is_not_renewed_ends_after_a_lease_but_a_renewed_one_does_not() {
        let (mut model, mut core, now) = held();
        model.put(Bytes::from_static(b"t1 cleared by b\n"));
        assert!(model.renew(&mut core, now).is_err());
        model.put(Bytes::from_static(b"t1 cleared by b\n"));
        assert!(model.renew(&mut core, now + TTL).is_err(), "the claim is another one");
        let end = now + 2 * TTL;
        assert_eq!(model.renew(&mut core, end), Ok(LeaseState::Forgotten));
    }

    #[test]
    fn a_missing_lease_tells_by_the_streams_what_was_lost() {
        for (presence, events, expected) in [
            ("2", "1", LeaseState::Lost),
            ("2", "2", LeaseState::Forgotten),
            ("1", "1", LeaseState::Forgotten),
        ] {
            let (mut model, mut core, now) = held();
            model.newest = None;
            model.streams = CreationTimes { presence: presence.into(), events: events.into() };
            assert_eq!(model.renew(&mut core, now), Ok(expected), "{presence} {events}");
        }
    }

    #[test]
    fn an_ended_lease_is_not_stored_again() {
        let (mut model, mut core, now) = held();
        core.end();
        assert_eq!(model.renew(&mut core, now), Err(BrokerError::Unavailable));
        assert_eq!(model.last, 2);
    }
}
