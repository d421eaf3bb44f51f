//! Rights of a node at NATS, and rights that the server has refused.
//!
//! NATS reports a refusal as an error of the connection, not as an answer to the request.
//! Invariant: a refused right makes the node unready until it was tried again without a refusal.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::HeaderMap;
use bytes::Bytes;
use engine::broker::BrokerError;
use tracing::{info, warn};

use super::availability::UnavailableCause;
use super::link::NatsLink;
use super::subject::Names;
use crate::limits::NATS_REFUSALS_MAX;

/// Rights that the server has refused over this connection, and has not granted since.
#[derive(Default)]
pub(super) struct DeniedSubjects(Mutex<Refusals>);

/// The state of [`DeniedSubjects`].
#[derive(Default)]
struct Refusals {
    /// With the trial in which each was refused last; at most [`NATS_REFUSALS_MAX`].
    known: BTreeMap<DeniedSubject, u64>,
    /// Number of trials of all rights.
    trials: u64,
    /// More rights were refused than are kept: every right counts as refused.
    has_more: bool,
    /// A right was refused on this connection, even if it is granted by now: subscriptions must be
    /// made again.
    has_refused: bool,
}

/// A right on a subject that this node does not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeniedSubject {
    pub(super) right: Right,
    pub(super) subject: String,
}

/// An operation that needs a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    Publish,
    Subscribe,
    /// One more subscription to any subject: the server limits their number.
    SubscribeMore,
}

impl DeniedSubjects {
    /// Records an error of the server; returns whether it is a refusal.
    pub(super) fn handle_error(&self, text: &str) -> bool {
        let Some(refusal) = DeniedSubject::parse(text) else { return false };
        if self.lock().add(refusal.clone()) {
            warn!(right = %refusal.right, subject = %refusal.subject, "NATS refuses a right");
        }
        true
    }

    /// Forgets all refusals: a new connection subscribes to everything again.
    pub(super) fn forget(&self) {
        let mut refused = self.lock();
        *refused = Refusals { trials: refused.trials, ..Refusals::default() };
    }

    /// One of the refused rights.
    pub(super) fn first(&self) -> Option<DeniedSubject> {
        self.lock().known.first_key_value().map(|(refusal, _)| refusal.clone())
    }

    /// Returns whether this right was refused, or may have been.
    pub(super) fn has(&self, right: Right, subject: &str) -> bool {
        let refused = self.lock();
        let is_it = |refusal: &DeniedSubject| match refusal.right {
            Right::SubscribeMore => right == Right::Subscribe,
            refused => refused == right && refusal.subject == subject,
        };
        refused.has_more || refused.known.keys().any(is_it)
    }

    /// Begins a trial and returns the rights to try again; they stay refused until its end.
    fn begin_trial(&self) -> (u64, Vec<DeniedSubject>) {
        let mut refused = self.lock();
        refused.trials += 1;
        (refused.trials, refused.known.keys().cloned().collect())
    }

    /// Removes the refusals that this trial has not repeated.
    fn end_trial(&self, trial: u64) {
        self.lock().known.retain(|_, last| *last >= trial);
    }

    /// Returns whether a right was refused over this connection, even if it is granted by now.
    fn has_refused(&self) -> bool {
        self.lock().has_refused
    }

    fn lock(&self) -> MutexGuard<'_, Refusals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refusals {
    /// Records a refusal; returns whether it is new.
    fn add(&mut self, refusal: DeniedSubject) -> bool {
        self.has_refused = true;
        if let Some(last) = self.known.get_mut(&refusal) {
            *last = self.trials;
            return false;
        }
        if self.known.len() >= NATS_REFUSALS_MAX {
            self.has_more = true;
            // Kept in place of a refusal of an earlier trial, since that one may be granted by now.
            let old = self.known.iter().find(|(_, last)| **last < self.trials);
            let Some(old) = old.map(|(refusal, _)| refusal.clone()) else { return false };
            self.known.remove(&old);
        }
        self.known.insert(refusal, self.trials);
        true
    }
}

impl DeniedSubject {
    /// Parses `Permissions Violation for Subscription to "a.b"` or `… for Publish to "a.b"`, with
    /// any text behind it.
    fn parse(text: &str) -> Option<DeniedSubject> {
        if text.to_ascii_lowercase().contains("maximum subscriptions exceeded") {
            return Some(DeniedSubject { right: Right::SubscribeMore, subject: String::new() });
        }
        let (what, rest) = text.strip_prefix("Permissions Violation for ")?.split_once(" to \"")?;
        let right = match what {
            "Publish" => Right::Publish,
            _ => Right::Subscribe,
        };
        Some(DeniedSubject { right, subject: rest.split('"').next()?.to_owned() })
    }

    /// A message for operators: the missing right, and how to grant it.
    pub(super) fn reason(&self, names: &Names) -> String {
        let DeniedSubject { right, subject } = self;
        if *right == Right::SubscribeMore {
            return "NATS takes no more subscriptions of this node, so that messages of some channels do not arrive: raise max_subscriptions \
                    of nats-server or of the account, and restart this node"
                .to_owned();
        }
        let pattern = self.pattern(names);
        format!(
            "NATS does not let the user of broker.nats.url {right} {subject:?}: allow it to {right} {pattern:?} (docs/clustering.md \
             lists all rights)"
        )
    }

    /// The subject pattern that includes this subject.
    fn pattern(&self, names: &Names) -> String {
        let subject = &self.subject;
        if subject.starts_with("$JS.API.") {
            return "$JS.API.>".to_owned();
        }
        if subject.starts_with("_INBOX.") {
            return "_INBOX.>".to_owned();
        }
        let kind = subject.strip_prefix(&*names.prefix).and_then(|rest| rest.strip_prefix('.'));
        match kind.and_then(|kind| kind.split_once('.')) {
            Some((kind, _)) => format!("{}.{kind}.>", names.prefix),
            None => subject.clone(),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Right::Publish => "publish to",
            Right::Subscribe | Right::SubscribeMore => "subscribe to",
        })
    }
}

impl NatsLink {
    /// Tries every right that a node needs, and again those that were refused, with requests of no
    /// effect; returns a missing right.
    pub(super) async fn try_rights(&self) -> Result<Option<DeniedSubject>, BrokerError> {
        let refusals = &self.shared.denied_subjects;
        let (trial, before) = refusals.begin_trial();
        self.try_each(before).await?;
        refusals.end_trial(trial);
        Ok(refusals.first())
    }

    /// Tries the rights at run time and updates the cause [`UnavailableCause::Rights`].
    pub(super) async fn check_rights(&self) {
        let was_refused = self.shared.availability.has(UnavailableCause::Rights);
        let Ok(missing) = self.try_rights().await else { return };
        match missing {
            Some(refusal) => {
                self.shared
                    .availability
                    .set(UnavailableCause::Rights, &refusal.reason(&self.names));
            }
            // The connection is new since the refusal, and has subscribed without another one.
            None if was_refused && !self.shared.denied_subjects.has_refused() => {
                self.shared.availability.clear(UnavailableCause::Rights);
            }
            None if was_refused => {
                info!("NATS: this node has its rights again, and subscribes anew");
                // A new connection subscribes again to what was refused and verifies all channels;
                // after that the node is ready.
                let _ended = self.client.force_reconnect().await;
            }
            None => {}
        }
    }

    async fn try_each(&self, more: Vec<DeniedSubject>) -> Result<(), BrokerError> {
        let mut subscribed = Vec::new();
        let more = more.into_iter().map(|refusal| (refusal.right, refusal.subject, ""));
        for (right, subject, body) in self.needed().into_iter().chain(more) {
            match right {
                Right::Publish => self.publish_unkept(subject, body).await?,
                Right::Subscribe => subscribed.push(self.subscribe(subject).await?),
                // A trial would take a subscription from others; only a new connection shows it.
                Right::SubscribeMore => {
                    self.shared.denied_subjects.lock().add(DeniedSubject { right, subject });
                }
            }
        }
        // Refusals arrive before the first echo. Another task records them, and has run when the
        // second echo returns.
        self.echo().await?;
        self.echo().await
    }

    /// Publishes a message that no stream stores and no node handles.
    async fn publish_unkept(&self, subject: String, body: &'static str) -> Result<(), BrokerError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", "none");
        let body = Bytes::from_static(body.as_bytes());
        let published = self.client.publish_with_headers(subject, headers, body).await;
        published.map_err(|_| BrokerError::Unavailable)
    }

    /// The rights that this node needs, with a body that has no effect.
    fn needed(&self) -> Vec<(Right, String, &'static str)> {
        let names = &self.names;
        let mut needed = vec![
            (Right::Subscribe, self.client.new_inbox(), ""),
            (Right::Subscribe, names.control(), ""),
            (Right::Subscribe, names.control_of(&names.node), ""),
            (Right::Subscribe, names.channel(PROBE), ""),
            (Right::Publish, names.channel(PROBE), ""),
            (Right::Publish, names.control(), ""),
            (Right::Publish, names.control_of(PROBE), ""),
        ];
        if !self.has_jetstream {
            return needed;
        }
        needed.extend([
            (Right::Subscribe, names.generation(), ""),
            (Right::Subscribe, names.leaders(), ""),
            (Right::Publish, names.probe(), ""),
            (Right::Publish, names.presence(&names.node, "0", PROBE, PROBE), ""),
            (Right::Publish, names.lease(&names.node), ""),
            (Right::Publish, names.generation(), ""),
            (Right::Publish, names.events(), "{}"),
            (Right::Publish, names.revocation(PROBE), ""),
        ]);
        let streams = [
            names.history_stream(),
            names.presence_stream(),
            names.events_stream(),
            names.generation_stream(),
            names.revocation_stream(),
        ];
        for (index, stream) in streams.iter().enumerate() {
            needed.push((Right::Publish, format!("$JS.API.STREAM.INFO.{stream}"), ""));
            // Nothing is read from the stream of events, and messages are only removed from the
            // first two.
            if index != 2 {
                needed.push((Right::Publish, format!("$JS.API.STREAM.MSG.GET.{stream}"), "{}"));
            }
            if index < 2 {
                let nothing = r#"{"filter":"=nothing"}"#;
                needed.push((Right::Publish, format!("$JS.API.STREAM.PURGE.{stream}"), nothing));
                needed.push((Right::Publish, format!("$JS.API.CONSUMER.CREATE.{stream}"), "{}"));
            }
        }
        for verb in ["STREAM.MSG.DELETE", "CONSUMER.CREATE"] {
            let of_revocations = format!("$JS.API.{verb}.{}", names.revocation_stream());
            needed.push((Right::Publish, of_revocations, "{}"));
        }
        needed
    }
}

/// A token that no encoded name is equal to.
const PROBE: &str = "=probe";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_errors_are_parsed() {
        for (text, expected) in [
            ("Permissions Violation for Subscription to \"a.b\"", Some((Right::Subscribe, "a.b"))),
            (
                "Permissions Violation for Subscription to \"a.b\" using queue \"q\"",
                Some((Right::Subscribe, "a.b")),
            ),
            (
                "Permissions Violation for Subscription to \"a.b\" (sid \"4\")",
                Some((Right::Subscribe, "a.b")),
            ),
            ("Permissions Violation for Publish to \"a.b\"", Some((Right::Publish, "a.b"))),
            ("maximum subscriptions exceeded", Some((Right::SubscribeMore, ""))),
            ("Stale Connection", None),
        ] {
            let read = DeniedSubject::parse(text).map(|refusal| (refusal.right, refusal.subject));
            assert_eq!(
                read,
                expected.map(|(right, subject)| (right, subject.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn the_reason_names_the_missing_right() {
        let names = Names { prefix: "a.b".into(), node: "n".into() };
        for (subject, expected) in [
            ("a.b.channel.x", "a.b.channel.>"),
            ("a.b.events", "a.b.events"),
            ("$JS.API.STREAM.INFO.a_b_history", "$JS.API.>"),
            ("_INBOX.x.*", "_INBOX.>"),
            ("other", "other"),
        ] {
            let refusal = DeniedSubject { right: Right::Publish, subject: subject.into() };
            let reason = refusal.reason(&names);
            assert!(
                reason.contains(&format!("{subject:?}: allow it to publish to {expected:?}")),
                "{reason}"
            );
        }
    }

    fn refuse(refusals: &DeniedSubjects, subjects: std::ops::Range<usize>) {
        for subject in subjects {
            let text = format!("Permissions Violation for Subscription to \"a.{subject}\"");
            assert!(refusals.handle_error(&text));
        }
    }

    #[test]
    fn every_right_counts_as_refused_after_too_many_refusals() {
        let refusals = DeniedSubjects::default();
        refuse(&refusals, 0..NATS_REFUSALS_MAX);
        assert!(refusals.has(Right::Subscribe, "a.0"));
        assert!(!refusals.has(Right::Subscribe, "b") && !refusals.has(Right::Publish, "a.0"));
        refuse(&refusals, NATS_REFUSALS_MAX..NATS_REFUSALS_MAX + 1);
        let last = format!("a.{NATS_REFUSALS_MAX}");
        assert!(refusals.has(Right::Subscribe, &last) && refusals.has(Right::Publish, "b"));
        // The kept ones are granted again, but one that was not kept is still refused.
        let (trial, _) = refusals.begin_trial();
        refuse(&refusals, NATS_REFUSALS_MAX..NATS_REFUSALS_MAX + 1);
        refusals.end_trial(trial);
        assert_eq!(refusals.first().map(|refusal| refusal.subject), Some(last.clone()));
        // Only a new connection shows the others.
        assert!(refusals.has(Right::Subscribe, "a.0"));
        refusals.forget();
        assert!(!refusals.has(Right::Subscribe, &last) && !refusals.has_refused());
    }

    #[test]
    fn a_right_stays_refused_while_it_is_tried_again() {
        let refusals = DeniedSubjects::default();
        refuse(&refusals, 0..2);
        let (trial, before) = refusals.begin_trial();
        assert_eq!(before.len(), 2);
        assert!(refusals.has(Right::Subscribe, "a.0") && refusals.has(Right::Subscribe, "a.1"));
        refuse(&refusals, 1..2);
        refusals.end_trial(trial);
        assert!(!refusals.has(Right::Subscribe, "a.0") && refusals.has(Right::Subscribe, "a.1"));
        let (trial, _) = refusals.begin_trial();
        refusals.end_trial(trial);
        assert!(refusals.first().is_none() && refusals.has_refused());
    }
}
