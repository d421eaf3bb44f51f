//! What a node must be allowed to do at NATS, and what the server has refused.
//!
//! NATS refuses on the side: a message of the connection says it, and what was refused has no
//! answer. Invariant: a refusal that was seen makes the node unavailable until the same has been
//! tried again and was not refused.

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

/// What the server has refused this node over this connection, and has not allowed since.
#[derive(Default)]
pub(super) struct DeniedSubjects(Mutex<Refused>);

#[derive(Default)]
struct Refused {
    /// With the trial in which each was refused last.
    known: BTreeMap<DeniedSubject, u64>,
    /// How often all was tried.
    trials: u64,
    /// More was refused than is kept: anything may have been.
    has_more: bool,
    /// Something was refused, whether or not it is allowed by now: it must be asked for anew.
    has_refused: bool,
}

/// That this node may not do something with a subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeniedSubject {
    pub(super) right: Right,
    pub(super) subject: String,
}

/// What can be done with a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    Publish,
    Subscribe,
    /// One more subscription, whatever its subject.
    SubscribeMore,
}

impl DeniedSubjects {
    /// Takes an error of the server; says whether it is a refusal.
    pub(super) fn handle_error(&self, text: &str) -> bool {
        let Some(refusal) = DeniedSubject::parse(text) else { return false };
        if self.lock().add(refusal.clone()) {
            warn!(right = %refusal.right, subject = %refusal.subject, "NATS refuses a right");
        }
        true
    }

    /// Over a new connection everything is asked for again.
    pub(super) fn forget(&self) {
        let mut refused = self.lock();
        *refused = Refused { trials: refused.trials, ..Refused::default() };
    }

    pub(super) fn first(&self) -> Option<DeniedSubject> {
        self.lock().known.first_key_value().map(|(refusal, _)| refusal.clone())
    }

    /// Whether this was refused, or may have been.
    pub(super) fn has(&self, right: Right, subject: &str) -> bool {
        let refused = self.lock();
        let is_it = |refusal: &DeniedSubject| match refusal.right {
            Right::SubscribeMore => right == Right::Subscribe,
            refused => refused == right && refusal.subject == subject,
        };
        refused.has_more || refused.known.keys().any(is_it)
    }

    /// All that was refused is about to be tried again, and stays refused until that is done.
    fn begin_trial(&self) -> (u64, Vec<DeniedSubject>) {
        let mut refused = self.lock();
        refused.trials += 1;
        (refused.trials, refused.known.keys().cloned().collect())
    }

    /// What was not refused again is allowed.
    fn end_trial(&self, trial: u64) {
        self.lock().known.retain(|_, last| *last >= trial);
    }

    /// Whether something was refused over this connection, even if it is allowed by now.
    fn has_refused(&self) -> bool {
        self.lock().has_refused
    }

    fn lock(&self) -> MutexGuard<'_, Refused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refused {
    /// Says whether it was not known.
    fn add(&mut self, refusal: DeniedSubject) -> bool {
        self.has_refused = true;
        if let Some(last) = self.known.get_mut(&refusal) {
            *last = self.trials;
            return false;
        }
        if self.known.len() >= NATS_REFUSALS_MAX {
            self.has_more = true;
            // A trial may find that all that is kept is allowed again, but not this.
            let old = self.known.iter().find(|(_, last)| **last < self.trials);
            let Some(old) = old.map(|(refusal, _)| refusal.clone()) else { return false };
            self.known.remove(&old);
        }
        self.known.insert(refusal, self.trials);
        true
    }
}

impl DeniedSubject {
    /// `Permissions Violation for Subscription to "a.b"`, or `… for Publish to "a.b"`, or one of
    /// those with more behind it.
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

    /// For people: what is missing, and what to do.
    pub(super) fn reason(&self, names: &Names) -> String {
        let DeniedSubject { right, subject } = self;
        if *right == Right::SubscribeMore {
            return "NATS takes no more subscriptions of this node, so that some channels are not heard: raise max_subscriptions \
                    of nats-server or of the account, and restart this node"
                .to_owned();
        }
        let pattern = self.pattern(names);
        format!(
            "NATS does not let the user of broker.nats.url {right} {subject:?}: allow it to {right} {pattern:?} (docs/clustering.md \
             lists all rights)"
        )
    }

    /// The right that holds this one.
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
    /// Tries every right that a node needs, and again what was refused before, without any effect;
    /// returns what is missing.
    pub(super) async fn try_rights(&self) -> Result<Option<DeniedSubject>, BrokerError> {
        let refusals = &self.shared.refusals;
        let (trial, before) = refusals.begin_trial();
        self.try_each(before).await?;
        refusals.end_trial(trial);
        Ok(refusals.first())
    }

    /// At run time: the node is available as far as its rights go, or the reason says what is
    /// missing.
    pub(super) async fn check_rights(&self) {
        let was_refused = self.shared.availability.has(UnavailableCause::Rights);
        let Ok(missing) = self.try_rights().await else { return };
        match missing {
            Some(refusal) => {
                self.shared
                    .availability
                    .set(UnavailableCause::Rights, &refusal.reason(&self.names));
            }
            // All was asked for anew over this connection; what came of it was not learnt then.
            None if was_refused && !self.shared.refusals.has_refused() => {
                self.shared.availability.clear(UnavailableCause::Rights);
            }
            None if was_refused => {
                info!("NATS: this node has its rights again, and subscribes anew");
                // What was refused is asked for again with a new connection, and everything is
                // verified; then it is ready.
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
                // It cannot be tried without taking one away from others: a new connection shows
                // it.
                Right::SubscribeMore => {
                    self.shared.refusals.lock().add(DeniedSubject { right, subject });
                }
            }
        }
        // Refusals come before the echo. They are noted by another task, which has run when a
        // second one is back.
        self.echo().await?;
        self.echo().await
    }

    /// Says something that no stream keeps and nobody answers.
    async fn publish_unkept(&self, subject: String, body: &'static str) -> Result<(), BrokerError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", "none");
        let body = Bytes::from_static(body.as_bytes());
        let published = self.client.publish_with_headers(subject, headers, body).await;
        published.map_err(|_| BrokerError::Unavailable)
    }

    /// What this node needs, with a body that does nothing.
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
        if !self.keeps {
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
            // Of the stream of events nothing is read, and in that of generations nothing is
            // removed.
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

/// A token that no name has.
const PROBE: &str = "=probe";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_read() {
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
    fn the_right_that_is_missing_is_named() {
        let names = Names { prefix: "a.b".into(), node: "n".into() };
        for (subject, expected) in [
            ("a.b.channel.x", "a.b.channel.>"),
            ("a.b.events", "a.b.events"),
            ("$JS.API.STREAM.INFO.a_b_history", "$JS.API.>"),
            ("_INBOX.x.*", "_INBOX.>"),
            ("strange", "strange"),
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
    fn what_is_refused_beyond_those_kept_counts_as_refused() {
        let refusals = DeniedSubjects::default();
        refuse(&refusals, 0..NATS_REFUSALS_MAX);
        assert!(refusals.has(Right::Subscribe, "a.0"));
        assert!(!refusals.has(Right::Subscribe, "b") && !refusals.has(Right::Publish, "a.0"));
        refuse(&refusals, NATS_REFUSALS_MAX..NATS_REFUSALS_MAX + 1);
        let last = format!("a.{NATS_REFUSALS_MAX}");
        assert!(refusals.has(Right::Subscribe, &last) && refusals.has(Right::Publish, "b"));
        // Those that are kept are allowed again, but one that was not kept is still refused.
        let (trial, _) = refusals.begin_trial();
        refuse(&refusals, NATS_REFUSALS_MAX..NATS_REFUSALS_MAX + 1);
        refusals.end_trial(trial);
        assert_eq!(refusals.first().map(|refusal| refusal.subject), Some(last.clone()));
        // Only a new connection shows what else there was.
        assert!(refusals.has(Right::Subscribe, "a.0"));
        refusals.forget();
        assert!(!refusals.has(Right::Subscribe, &last) && !refusals.has_refused());
    }

    #[test]
    fn what_is_tried_again_stays_refused_meanwhile() {
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
