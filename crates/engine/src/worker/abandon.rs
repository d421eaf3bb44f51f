//! Removal of a session whose handling panicked, so that the worker's other sessions continue.
//!
//! Invariant: the broken session's own state is not trusted. Its subscribers and its user entry are
//! found by full scans of the shared state, which is slow and happens only after a panic.

use std::sync::Arc;

use wire::protocol::{ClientInfo, DisconnectCode};

use super::{Worker, find};
use crate::broker::{Membership, PresenceRequest, PublicationsRequest};
use crate::buckets::ConnectionBuckets;
use crate::lifecycle::Change;
use crate::session::timers::Timers;
use crate::session::{Opening, Phase, Session, Subscription};
use crate::session_event::SessionChange;
use crate::session_key::SessionKey;
use crate::time::Now;
use crate::turn::{Effect, Outputs};

/// What a worker is handling, so that a panic can be attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CurrentInput {
    /// Work that does not concern a single session or channel.
    Nothing,
    /// An input of this session.
    Session(SessionKey),
    /// A delivery into the channel in this slot of the hub.
    Channel(u32),
}

/// Reason of the offline event and of the close frame.
const REASON: &str = "internal server error";

impl Worker {
    /// Recovers from a panic during an input: removes the session that was being handled, and
    /// reports gaps to subscribers that an interrupted delivery may have left out. Returns the
    /// removed session. State shared by sessions is consistent afterwards.
    ///
    /// The caller catches the unwinding, calls this once, and continues.
    pub fn handle_panic(&mut self, now: Now) -> Option<SessionKey> {
        match std::mem::replace(&mut self.current_input, CurrentInput::Nothing) {
            CurrentInput::Nothing => None,
            CurrentInput::Session(key) => {
                self.abandon(now, key);
                Some(key)
            }
            CurrentInput::Channel(slot) => {
                self.out.gaps.extend(self.hub.lagging(slot));
                None
            }
        }
    }

    /// The session that is being handled; after a panic, [`Worker::handle_panic`] removes it.
    #[must_use]
    pub fn current_session(&self) -> Option<SessionKey> {
        match self.current_input {
            CurrentInput::Session(key) => Some(key),
            CurrentInput::Nothing | CurrentInput::Channel(_) => None,
        }
    }

    /// Removes a session without reading its state, and closes it with 3004. As with every closed
    /// session, its socket and queued frames stay until [`Worker::handle_gone`].
    pub fn abandon(&mut self, now: Now, key: SessionKey) {
        let Some(session) = find(&mut self.sessions, key) else {
            return;
        };
        let encoding = session.encoding;
        let ping_style = session.ping_style;
        let timers = Timers::new(now, &self.rules.client);
        let opening = Opening { encoding, user: None, ping_style };
        let buckets = ConnectionBuckets::full(now.monotonic_ms);
        let mut broken = std::mem::replace(session, Session::new(key, opening, timers, buckets));
        session.phase = Phase::Closed;
        session.outbox = std::mem::take(&mut broken.outbox);
        // A frame that is partly written must be completed; later frames may be inconsistent.
        session.outbox.drop_unbegun();
        self.users.forget(key.slot);
        self.out.gaps.retain(|(slot, _)| *slot != key.slot);
        self.out.closing.retain(|(closing, _)| *closing != key);
        let mut channels = Vec::new();
        for subscriber_key in self.hub.subscribers_of(key.slot) {
            channels.push(self.hub.channel(subscriber_key).name.clone());
            if let Some(channel) = self.hub.leave(subscriber_key) {
                self.out.submit(PublicationsRequest::Unsubscribe { channel });
            }
        }
        if let Some(info) = broken.info.take() {
            let (rules, at_ms) = (&self.rules.client, now.unix_ms);
            for channel in channels {
                if let Some(ended) = depart(&mut self.out, &broken, channel, &info) {
                    let what = || SessionChange::Unsubscribed(ended.channel.clone());
                    self.out.report_subscription(rules, (&ended.info, at_ms), what);
                }
            }
            if broken.is_online {
                let change = Change::Offline { reason: REASON.into() };
                self.out.report_client(rules, (&info, at_ms), change);
            }
        }
        let disconnect = DisconnectCode::ServerError.into();
        self.out.effects.push_back(Effect::Close { key, disconnect });
        // Dropping it runs no code of this project.
        drop(broken);
    }
}

/// Removes the client from the presence of a channel where it may be present, and announces the
/// leave where the namespace publishes leaves. Returns the subscription, if it was active.
fn depart<'s>(
    out: &mut Outputs,
    broken: &'s Session,
    channel: Arc<str>,
    info: &Arc<ClientInfo>,
) -> Option<&'s Subscription> {
    let mut subscriptions = broken.subscriptions.iter();
    let subscription = subscriptions.find(|one| one.channel == channel && one.joining.is_none());
    let (name, client) = (channel.clone(), info.clone());
    out.submit(PresenceRequest::Remove { channel: name, client });
    if let Some(subscription) = subscription.filter(|one| one.traits.is_announced) {
        let (info, change) = (subscription.info.clone(), Membership::Leave);
        out.submit(PublicationsRequest::Announce { channel, info, change });
    }
    subscription
}
