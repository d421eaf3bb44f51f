//! The pure part of one worker: its sessions, hub and timers, and the routing between them and the
//! broker.
//!
//! A driver feeds inputs (`handle_*`) and drains outputs (`poll_*`). Invariant: after every
//! `handle_*` each closed session has been removed: it has no subscribers, no presence and no entry
//! among the users, and its [`Effect::Close`] is queued.

mod abandon;
mod call_results;
mod fan_out;
mod positions;
mod replies;
mod revoke;
mod views;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;
use wire::protocol::{self, Disconnect, DisconnectCode, PushEvent};

use crate::broker::{BrokerEvent, Control, Membership};
use crate::buckets::ConnectionBuckets;
use crate::call::SessionCallId;
use crate::capacity::{Kept, shrink_queue, shrink_vec};
use crate::checks::Checks;
use crate::counters::Counters;
use crate::delayed_leaves::DelayedLeaves;
use crate::encoding::Encoder;
use crate::hash_keys::HashKeys;
use crate::hub::Hub;
use crate::lifecycle::Change;
use crate::outbox::Outbox;
use crate::random::Random;
use crate::recent_channels::RecentChannels;
use crate::rules::Rules;
use crate::session::timers::{self, Timers};
use crate::session::{Opening, Phase, Session, join, metering, orders};
use crate::session_key::SessionKey;
use crate::shared_buckets::SharedBuckets;
use crate::time::Now;
use crate::turn::{Effect, Outputs, Turn};
use crate::users::Users;
use crate::wheel::{Tick, Wheel};
use abandon::CurrentInput;

pub use views::{ClientView, Identity};

/// The sessions of one worker and their shared state.
#[derive(Debug)]
pub struct Worker {
    rules: Arc<Rules>,
    sessions: Slab<Box<Session>>,
    generation: u32,
    hub: Hub,
    users: Users,
    wheel: Wheel<SessionKey>,
    /// Timers that are due but not handled yet.
    due: VecDeque<(Tick, SessionKey)>,
    random: Random,
    out: Outputs,
    checks: Checks,
    delayed_leaves: DelayedLeaves,
    /// The current input, for [`Worker::handle_panic`].
    current_input: CurrentInput,
    recent: RecentChannels,
    shared: Option<Arc<SharedBuckets>>,
}

/// Offline reason of a client whose connection ended without a close frame of the server.
const CONNECTION_CLOSED: &str = "connection closed";

impl Worker {
    /// Creates a worker without sessions. All its ids and jitter follow from `seed`, all hashes
    /// from `hasher`.
    #[must_use]
    pub fn new(
        now: Now,
        rules: Arc<Rules>,
        encoder: Encoder,
        seed: u64,
        hasher: HashKeys,
    ) -> Worker {
        Worker {
            rules,
            sessions: Slab::new(),
            generation: 0,
            hub: Hub::new(hasher),
            users: Users::new(hasher),
            wheel: Wheel::new(now.monotonic_ms),
            due: VecDeque::new(),
            random: Random::new(seed),
            out: Outputs::new(encoder, hasher),
            checks: Checks::new(now.monotonic_ms),
            delayed_leaves: DelayedLeaves::default(),
            current_input: CurrentInput::Nothing,
            recent: RecentChannels::new(hasher),
            shared: None,
        }
    }

    /// Shares the rate limits of users with the other workers of the node. Without this, users have
    /// no rate limits.
    pub fn share_buckets(&mut self, shared: Arc<SharedBuckets>) {
        self.shared = Some(shared);
    }

    /// Opens a session after a handshake.
    pub fn handle_open(&mut self, now: Now, opening: Opening) -> SessionKey {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.sessions.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("a worker has fewer than 2^32 sessions");
        let key = SessionKey { slot, generation: self.generation };
        let timers = Timers::new(now, &self.rules.client);
        let buckets = ConnectionBuckets::full(now.monotonic_ms);
        entry.insert(Box::new(Session::new(key, opening, timers, buckets)));
        self.out.counters.sessions_opened += 1;
        self.schedule(now, key);
        key
    }

    /// Handles one complete message of a peer.
    pub fn handle_message(&mut self, now: Now, key: SessionKey, message: &[u8]) {
        let Some(session) = find(&mut self.sessions, key) else {
            return;
        };
        match protocol::decode_commands(session.encoding.codec, message) {
            Ok(commands) => self.with_session(now, key, |session, turn| {
                let metered = metering::message(session, turn, message.len());
                for command in commands {
                    match &metered {
                        Ok(()) => session.handle_command(turn, command),
                        Err(refusal) => session.refuse_command(turn, command, refusal.clone()),
                    }
                }
            }),
            Err(_) => session.close(&mut self.out, DisconnectCode::BadRequest),
        }
        self.settle(now, key);
    }

    /// Handles a WebSocket pong. It counts for sessions that the server pings by WebSocket frames.
    pub fn handle_pong_frame(&mut self, now: Now, key: SessionKey) {
        let Some(session) = find(&mut self.sessions, key) else {
            return;
        };
        if session.ping_style == crate::session::PingStyle::Frame {
            // RFC 6455 §5.5.3 allows unsolicited pongs.
            let _unasked = session.timers.handle_pong();
            self.settle(now, key);
        }
    }

    /// Handles an event of the broker.
    pub fn handle_broker_event(&mut self, now: Now, event: BrokerEvent) {
        match event {
            BrokerEvent::Publication { channel, publication, epoch } => {
                self.deliver(now, &channel, &publication, &epoch);
            }
            BrokerEvent::Membership { channel, info, change } => {
                let event = match change {
                    Membership::Join => PushEvent::Join(info),
                    Membership::Leave => PushEvent::Leave(info),
                };
                self.notify_members(&channel, event);
            }
            BrokerEvent::Position { channel, top } => {
                if let Some((slot, channel)) = self.hub.find(&channel) {
                    let gaps = &mut self.out.gaps;
                    channel.handle_position(now.monotonic_ms, slot, &top, gaps);
                }
            }
            BrokerEvent::Expired { channel } => self.end_channel(now, &channel),
            BrokerEvent::Reply(reply) => self.handle_reply(now, reply),
            BrokerEvent::Control(control) => self.handle_control(now, &control),
            // For the node, not for sessions.
            BrokerEvent::Question { .. }
            | BrokerEvent::Revocation(_)
            | BrokerEvent::RevocationsStale => {}
        }
        self.remove_closing(now);
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.wheel.advance(now.monotonic_ms, &mut self.due);
        // An entry stays in the queue until it is handled, so that a panic in one session loses no
        // timers of others.
        while let Some((tick, key)) = self.due.pop_front() {
            let Some(session) = find(&mut self.sessions, key) else {
                continue;
            };
            if session.timers.scheduled != Some(tick) {
                continue;
            }
            session.timers.scheduled = None;
            let next = timers::next(session, now, &self.rules);
            if next.is_some_and(|at| at <= now.monotonic_ms) {
                self.with_session(now, key, timers::handle_timeout);
                self.settle(now, key);
            } else {
                self.schedule(now, key);
            }
        }
        self.due.shrink_to(256);
        self.check_positions(now);
        self.delayed_leaves.publish_due(now.monotonic_ms, &mut self.out);
        self.remove_closing(now);
    }

    /// Removes a session whose socket is closed.
    pub fn handle_gone(&mut self, now: Now, key: SessionKey) {
        if find(&mut self.sessions, key).is_none() {
            return;
        }
        self.handle_disconnect(now, key);
        self.sessions.remove(key.slot as usize);
        if self.sessions.is_empty() {
            self.sessions = Slab::new();
        }
    }

    /// Ends a session without a further message to its peer, and ignores further input. The socket
    /// may still be open.
    pub fn handle_disconnect(&mut self, now: Now, key: SessionKey) {
        let Some(session) = find(&mut self.sessions, key) else {
            return;
        };
        if session.phase != Phase::Closed {
            session.phase = Phase::Closed;
            self.remove_session(now, key, || CONNECTION_CLOSED.into());
        }
        self.remove_closing(now);
    }

    /// Closes a session for a reason found by the driver.
    pub fn close(&mut self, now: Now, key: SessionKey, disconnect: impl Into<Disconnect>) {
        if let Some(session) = find(&mut self.sessions, key) {
            session.close(&mut self.out, disconnect);
        }
        self.remove_closing(now);
    }

    /// The next action for the driver.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.out.effects.pop_front();
        if effect.is_none() {
            shrink_queue(&mut self.out.effects, Kept::OfOne);
        }
        effect
    }

    /// The next session whose outbox was empty and is not any more. It may have been removed.
    pub fn poll_touched(&mut self) -> Option<SessionKey> {
        let touched = self.out.touched.pop();
        if touched.is_none() {
            shrink_vec(&mut self.out.touched, Kept::OfOne);
        }
        touched
    }

    /// The next session whose outbox must be written before the end of the turn. It may have been
    /// removed.
    pub fn poll_pressed(&mut self) -> Option<SessionKey> {
        self.out.pressed.pop()
    }

    /// Queues a frame of the WebSocket layer, such as a pong.
    pub fn send_frame(&mut self, now: Now, key: SessionKey, frame: Bytes) {
        let queue_max_size = self.rules.client.queue_max_size;
        if let Some(session) = find(&mut self.sessions, key) {
            session.send_frame(&mut self.out, frame, queue_max_size);
        }
        self.remove_closing(now);
    }

    /// Returns whether reading from the peer must stop, because too much is queued behind a
    /// broker's reply or the result of a call.
    #[must_use]
    pub fn is_congested(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key.slot as usize).filter(|session| session.key == key);
        session.is_some_and(|session| session.is_congested())
    }

    /// The monotonic time at which [`Worker::handle_timeout`] must be called next; the wheel's
    /// horizon if there are no timers.
    #[must_use]
    pub fn next_timeout_ms(&self) -> u64 {
        let leave = self.delayed_leaves.next_at_ms();
        let due = (!self.due.is_empty()).then_some(0);
        let sessions = self.wheel.next_at_ms();
        let times = [sessions, self.checks.next_at_ms(), leave, due];
        times.into_iter().flatten().min().unwrap_or(self.wheel.horizon_ms())
    }

    /// The outbox of a session; `None` if the session was removed.
    pub fn outbox(&mut self, key: SessionKey) -> Option<&mut Outbox> {
        find(&mut self.sessions, key).map(|session| &mut session.outbox)
    }

    /// The client of a session, for logs.
    #[must_use]
    pub fn identity(&self, key: SessionKey) -> Option<Identity<'_>> {
        let session = self.sessions.get(key.slot as usize).filter(|session| session.key == key)?;
        let client = session.info.as_ref().map_or("", |info| &info.client);
        Some(Identity { user: session.user(), client })
    }

    /// The channel that a call of this session is about; empty if it is about the connection, or
    /// if the session does not wait for it any more.
    #[must_use]
    pub fn channel_of_call(&self, key: SessionKey, call: SessionCallId) -> &str {
        let session = self.sessions.get(key.slot as usize).filter(|session| session.key == key);
        session.and_then(|session| session.waiting()).map_or("", |waiting| waiting.channel_of(call))
    }

    /// The admitted clients of a user, or of all users for `None`.
    pub fn clients<'w>(
        &'w self,
        user: Option<&'w str>,
    ) -> impl Iterator<Item = ClientView<'w>> + 'w {
        let of_user = user.map(|user| self.users.slots(user));
        let all = user.is_none().then(|| self.sessions.iter().map(|(_, session)| session));
        let of_user = of_user.into_iter().flatten();
        let named = of_user.filter_map(|slot| self.sessions.get(slot as usize));
        let sessions = named.chain(all.into_iter().flatten());
        sessions.filter(|session| session.phase == Phase::Live).filter_map(|session| {
            let info = session.info.as_deref()?;
            Some(ClientView { info, admitted_at_ms: session.admitted_at_ms, session })
        })
    }

    /// Keys of all sessions, including closed ones whose socket is still open.
    pub fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.sessions.iter().map(|(_, session)| session.key)
    }

    /// The worker's counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.out.counters
    }

    /// The channels to which sessions of this worker are subscribed.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The users with a session on this worker.
    #[must_use]
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// Number of sessions.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Number of subscriptions of all sessions, including those that are not active yet.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.hub.channel_counts().map(|(_, subscribers)| subscribers).sum()
    }

    /// Replaces the rules. Existing subscriptions keep their options.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        self.rules = rules;
    }

    fn with_session(
        &mut self,
        now: Now,
        key: SessionKey,
        handle: impl FnOnce(&mut Session, &mut Turn<'_>),
    ) {
        let Some(session) = find(&mut self.sessions, key) else {
            return;
        };
        let mut turn = Turn {
            now,
            rules: &self.rules,
            random: &mut self.random,
            hub: &mut self.hub,
            users: &mut self.users,
            recent: &mut self.recent,
            shared: self.shared.as_deref(),
            checks: &mut self.checks,
            out: &mut self.out,
        };
        self.current_input = CurrentInput::Session(key);
        handle(session, &mut turn);
        session.resume(&mut turn);
        self.current_input = CurrentInput::Nothing;
    }

    /// Completes the handling of a session: reports gaps, removes closed sessions, schedules
    /// timers.
    fn settle(&mut self, now: Now, key: SessionKey) {
        self.remove_closing(now);
        self.schedule(now, key);
    }

    fn schedule(&mut self, now: Now, key: SessionKey) {
        let Some(session) = find(&mut self.sessions, key) else {
            return;
        };
        let Some(at_ms) = timers::next(session, now, &self.rules) else {
            return;
        };
        let tick = self.wheel.tick_for(at_ms);
        if session.timers.scheduled.is_none_or(|scheduled| tick < scheduled) {
            session.timers.scheduled = Some(tick);
            self.wheel.put(tick, key);
        }
    }

    fn remove_closing(&mut self, now: Now) {
        // Taken first: a subscription that ends removes its gaps from those that are left.
        for (slot, subscriber_key) in std::mem::take(&mut self.out.gaps) {
            let Some(session) = self.sessions.get_mut(slot as usize) else {
                continue;
            };
            let key = session.key;
            self.with_session(now, key, |session, turn| {
                if let Some(index) = session
                    .find_subscription(subscriber_key)
                    .filter(|_| session.phase != Phase::Closed)
                {
                    join::handle_gap(session, turn, index);
                }
            });
        }
        while let Some((key, disconnect)) = self.out.closing.pop() {
            self.remove_session(now, key, || disconnect.reason().to_owned().into());
            self.out.effects.push_back(Effect::Close { key, disconnect });
        }
    }

    /// Removes a closed session from every index.
    fn remove_session(
        &mut self,
        now: Now,
        key: SessionKey,
        reason: impl FnOnce() -> Cow<'static, str>,
    ) {
        let grace_ms = self.rules.client.leave_grace_ms;
        let mut ended = Vec::new();
        self.with_session(now, key, |session, turn| {
            while let Some(last) = session.subscriptions.len().checked_sub(1) {
                if grace_ms == 0 {
                    join::leave(session, turn, last);
                } else {
                    ended.push(join::end_subscription(session, turn, last));
                }
            }
            if let Some(info) = &session.info {
                turn.users.remove(&info.user, key.slot);
                if session.is_online {
                    let change = Change::Offline { reason: reason() };
                    let subject = (info, now.unix_ms);
                    turn.out.report_client(&turn.rules.client, subject, change);
                }
            }
        });
        for leave in ended {
            self.delayed_leaves.keep(now.monotonic_ms + grace_ms, leave, &mut self.out);
        }
    }

    /// Publishes all delayed leave messages at once, because this worker ends.
    pub fn publish_delayed_leaves(&mut self) {
        self.delayed_leaves.publish_all(&mut self.out);
    }

    fn handle_control(&mut self, now: Now, control: &Arc<Control>) {
        let slots: Vec<u32> = self.users.slots(&control.target.user).collect();
        for slot in slots {
            let Some(session) = self.sessions.get(slot as usize) else {
                continue;
            };
            let key = session.key;
            self.with_session(now, key, |session, turn| {
                orders::handle(session, turn, control);
            });
            self.settle(now, key);
        }
    }
}

fn find(sessions: &mut Slab<Box<Session>>, key: SessionKey) -> Option<&mut Session> {
    let session = sessions.get_mut(key.slot as usize)?;
    (session.key == key).then_some(&mut **session)
}
