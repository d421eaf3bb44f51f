//! What a node must be allowed to do at NATS, and what the server has refused.
//!
//! NATS refuses on the side: a message of the connection says it, and what was refused has no answer. Invariant: a refusal
//! that was seen makes the node unavailable until the same has been tried again and was not refused.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_nats::HeaderMap;
use bytes::Bytes;
use engine::broker::BrokerError;
use tracing::{info, warn};

use super::availability::Cause;
use super::link::Link;
use super::subject::Names;
use crate::limits::NATS_REFUSALS_MAX;

/// What the server has refused this node since it was looked at last.
#[derive(Default)]
pub(super) struct Refusals(Mutex<BTreeSet<Refusal>>);

/// That this node may not do something with a subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Refusal {
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

impl Refusals {
    /// Takes an error of the server; says whether it is a refusal.
    pub(super) fn handle_error(&self, text: &str) -> bool {
        let Some(refusal) = Refusal::parse(text) else { return false };
        let mut refusals = self.lock();
        let is_new = refusals.len() < NATS_REFUSALS_MAX && refusals.insert(refusal.clone());
        drop(refusals);
        if is_new {
            warn!(right = %refusal.right, subject = %refusal.subject, "NATS refuses a right");
        }
        true
    }

    /// Over a new connection everything is asked for again.
    pub(super) fn forget(&self) {
        self.take();
    }

    pub(super) fn first(&self) -> Option<Refusal> {
        self.lock().first().cloned()
    }

    /// Whether this was refused, or may have been.
    pub(super) fn has(&self, right: Right, subject: &str) -> bool {
        let refusals = self.lock();
        refusals.iter().any(|refusal| match refusal.right {
            Right::SubscribeMore => right == Right::Subscribe,
            refused => refused == right && refusal.subject == subject,
        })
    }

    fn take(&self) -> BTreeSet<Refusal> {
        std::mem::take(&mut *self.lock())
    }

    fn put_back(&self, refusals: BTreeSet<Refusal>) {
        self.lock().extend(refusals);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refusal {
    /// `Permissions Violation for Subscription to "a.b"`, or `… for Publish to "a.b"`, or one of those with more behind it.
    fn parse(text: &str) -> Option<Refusal> {
        if text.to_ascii_lowercase().contains("maximum subscriptions exceeded") {
            return Some(Refusal { right: Right::SubscribeMore, subject: String::new() });
        }
        let (what, rest) = text.strip_prefix("Permissions Violation for ")?.split_once(" to \"")?;
        let right = match what {
            "Publish" => Right::Publish,
            _ => Right::Subscribe,
        };
        Some(Refusal { right, subject: rest.split('"').next()?.to_owned() })
    }

    /// For people: what is missing, and what to do.
    pub(super) fn reason(&self, names: &Names) -> String {
        let Refusal { right, subject } = self;
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

impl Link {
    /// Tries every right that a node needs, and again what was refused before, without any effect; returns what is missing.
    pub(super) async fn try_rights(&self) -> Result<Option<Refusal>, BrokerError> {
        let before = self.shared.refusals.take();
        let tried = self.try_each(&before).await;
        if tried.is_err() {
            self.shared.refusals.put_back(before);
        }
        tried?;
        Ok(self.shared.refusals.first())
    }

    /// At run time: the node is available as far as its rights go, or the reason says what is missing.
    pub(super) async fn check_rights(&self) {
        let was_refused = self.shared.availability.has(Cause::Rights);
        let Ok(missing) = self.try_rights().await else { return };
        match missing {
            Some(refusal) => {
                self.shared.availability.set(Cause::Rights, &refusal.reason(&self.names));
            }
            None if was_refused => {
                info!("NATS: this node has its rights again, and subscribes anew");
                // What was refused is asked for again with a new connection, and everything is proven; then it is ready.
                let _ended = self.client.force_reconnect().await;
            }
            None => {}
        }
    }

    async fn try_each(&self, more: &BTreeSet<Refusal>) -> Result<(), BrokerError> {
        let mut subscribed = Vec::new();
        let more = more.iter().map(|refusal| (refusal.right, refusal.subject.clone(), ""));
        for (right, subject, body) in self.needed().into_iter().chain(more) {
            match right {
                Right::Publish => self.publish_unkept(subject, body).await?,
                Right::Subscribe => subscribed.push(self.subscribe(subject).await?),
                // It cannot be tried without taking one away from others: a new connection shows it.
                Right::SubscribeMore => {
                    self.shared.refusals.put_back([Refusal { right, subject }].into());
                }
            }
        }
        // Refusals come before the echo. They are noted by another task, which has run when a second one is back.
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
            (Right::Subscribe, names.era(), ""),
            (Right::Subscribe, names.leaders(), ""),
            (Right::Publish, names.probe(), ""),
            (Right::Publish, names.presence(&names.node, "0", PROBE, PROBE), ""),
            (Right::Publish, names.lease(&names.node), ""),
            (Right::Publish, names.era(), ""),
            (Right::Publish, names.events(), "{}"),
        ]);
        let streams = [
            names.history_stream(),
            names.presence_stream(),
            names.events_stream(),
            names.era_stream(),
        ];
        for (index, stream) in streams.iter().enumerate() {
            needed.push((Right::Publish, format!("$JS.API.STREAM.INFO.{stream}"), ""));
            // Of the stream of events nothing is read, and in that of eras nothing is removed.
            if index != 2 {
                needed.push((Right::Publish, format!("$JS.API.STREAM.MSG.GET.{stream}"), "{}"));
            }
            if index < 2 {
                let nothing = r#"{"filter":"=nothing"}"#;
                needed.push((Right::Publish, format!("$JS.API.STREAM.PURGE.{stream}"), nothing));
                needed.push((Right::Publish, format!("$JS.API.CONSUMER.CREATE.{stream}"), "{}"));
            }
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
            let read = Refusal::parse(text).map(|refusal| (refusal.right, refusal.subject));
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
            let refusal = Refusal { right: Right::Publish, subject: subject.into() };
            let reason = refusal.reason(&names);
            assert!(
                reason.contains(&format!("{subject:?}: allow it to publish to {expected:?}")),
                "{reason}"
            );
        }
    }
}
