//! The timers of a session: stale, ping, pong, expiry.
//!
//! Invariant: [`next`] is never later than the first of these times, unless the Unix clock jumps.

use wire::protocol::{DisconnectCode, ErrorCode, PushEvent, Reply, ReplyBody, UnsubscribeCode};
use wire::websocket::encoder::{self, FrameKind};

use super::{Phase, PingStyle, Session, join, renewal};
use crate::random::Random;
use crate::refusal::Refusal;
use crate::rules::{ClientRules, Rules};
use crate::time::Now;
use crate::turn::Turn;
use crate::wheel::Tick;

/// Timers of one session on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timers {
    /// Time at which the session closes unless it is connected.
    stale_at_ms: u64,
    ping_at_ms: u64,
    pong_by_ms: u64,
    /// The current entry in the worker's wheel; other entries are stale.
    pub(crate) scheduled: Option<Tick>,
}

const NEVER: u64 = u64::MAX;

impl Timers {
    pub(crate) fn new(now: Now, rules: &ClientRules) -> Timers {
        Timers {
            stale_at_ms: now.monotonic_ms.saturating_add(rules.stale_close_delay_ms),
            ping_at_ms: NEVER,
            pong_by_ms: NEVER,
            scheduled: None,
        }
    }

    /// The client is authenticated: the connect reply is now delayed by the server, not the client.
    pub(crate) fn handle_admitted(&mut self) {
        self.stale_at_ms = NEVER;
    }

    /// The connect command was refused: the session closes unless the peer does so first.
    pub(crate) fn handle_refused(&mut self, now: Now, rules: &ClientRules) {
        *self = Timers { scheduled: self.scheduled, ..Timers::new(now, rules) };
    }

    /// Schedules the first ping at a random time in the second half of the interval, so that
    /// clients that connected together are not pinged together.
    pub(crate) fn handle_connected(&mut self, now: Now, rules: &ClientRules, random: &mut Random) {
        let interval = rules.ping_interval_ms;
        if interval > 0 {
            let half = interval / 2;
            self.ping_at_ms = now.monotonic_ms + half + random.below(interval - half);
        }
    }

    /// Handles the answer to a ping. A pong without a ping violates the protocol.
    pub(crate) fn handle_pong(&mut self) -> Result<(), Refusal> {
        if self.pong_by_ms == NEVER {
            return Err(DisconnectCode::BadRequest.into());
        }
        self.pong_by_ms = NEVER;
        Ok(())
    }

    fn handle_pinged(&mut self, now: Now, rules: &ClientRules) {
        self.ping_at_ms = now.monotonic_ms + rules.ping_interval_ms;
        if rules.pong_timeout_ms > 0 {
            self.pong_by_ms = now.monotonic_ms + rules.pong_timeout_ms;
        }
    }
}

/// The monotonic time at which the session must be checked next.
pub(crate) fn next(session: &Session, now: Now, rules: &Rules) -> Option<u64> {
    if session.phase == Phase::Closed {
        return None;
    }
    let timers = &session.timers;
    let mut first = timers.stale_at_ms.min(timers.ping_at_ms).min(timers.pong_by_ms);
    if let Some(at) = session.expire_at {
        first = first.min(
            expiry(session, rules)
                .map_or(NEVER, |grace_ms| now.monotonic_at(end_of_grace(at, grace_ms))),
        );
    }
    for subscription in &session.subscriptions {
        // The grace period is looked up only if the expiry itself is earlier than `first`.
        if let Some(at) =
            subscription.expire_at.filter(|at| now.monotonic_at(end_of_grace(*at, 0)) < first)
            && let Some(grace_ms) = sub_expiry(session, rules, &subscription.channel)
        {
            first = first.min(now.monotonic_at(end_of_grace(at, grace_ms)));
        }
    }
    Some(first).filter(|first| *first != NEVER)
}

/// The grace period after the expiry of the connection: none if the server refreshes it. `None`
/// while a backend is asked.
fn expiry(session: &Session, rules: &Rules) -> Option<u64> {
    let is_asked = session.waiting().is_some_and(|waiting| waiting.refreshes());
    let own = rules.client.refresh_proxy.then_some(0);
    (!is_asked).then(|| own.unwrap_or(rules.client.expired_close_delay_ms))
}

/// The grace period after the expiry of a subscription; `None` while a backend is asked.
fn sub_expiry(session: &Session, rules: &Rules, channel: &str) -> Option<u64> {
    let is_asked = session.waiting().is_some_and(|waiting| waiting.refreshes_channel(channel));
    let own = renewal::proxy(rules, channel).map(|_| 0);
    (!is_asked).then(|| own.unwrap_or(rules.client.expired_sub_close_delay_ms))
}

/// Runs the timers that are due.
pub(crate) fn handle_timeout(session: &mut Session, turn: &mut Turn<'_>) {
    let now_ms = turn.now.monotonic_ms;
    let rules = turn.rules;
    let unix_ms = turn.now.unix_ms;
    let is_over = |at: i64, grace: Option<u64>| {
        grace.is_some_and(|grace_ms| end_of_grace(at, grace_ms) <= unix_ms)
    };
    let is_stale = session.timers.stale_at_ms <= now_ms;
    let is_silent = session.timers.pong_by_ms <= now_ms;
    let is_expired = session.expire_at.is_some_and(|at| is_over(at, expiry(session, rules)));
    if is_stale {
        return session.close(turn.out, DisconnectCode::Stale);
    }
    if is_silent {
        return session.close(turn.out, DisconnectCode::NoPong);
    }
    if is_expired {
        if !rules.client.refresh_proxy {
            return session.close(turn.out, DisconnectCode::Expired);
        }
        renewal::begin(session, turn);
    }
    let over = |session: &Session| {
        session.subscriptions.iter().position(|one| {
            let at = one.expire_at.filter(|at| end_of_grace(*at, 0) <= unix_ms);
            at.is_some_and(|at| is_over(at, sub_expiry(session, rules, &one.channel)))
        })
    };
    while let Some(index) = over(session) {
        let channel = &session.subscriptions[index].channel;
        if let Some(proxy) = renewal::proxy(rules, channel) {
            renewal::begin_sub(session, turn, channel.clone(), proxy.clone());
            continue;
        }
        if session.subscriptions[index].traits.is_server_side {
            return session.close(turn.out, DisconnectCode::SubscriptionExpired);
        }
        if session.subscriptions[index].joining.is_some() {
            // The subscription was not active yet.
            join::abort(session, turn, index, ErrorCode::Expired);
            continue;
        }
        let channel = join::leave(session, turn, index);
        session.push(turn, channel, PushEvent::from(UnsubscribeCode::Expired));
    }
    if session.timers.ping_at_ms <= now_ms {
        session.timers.handle_pinged(turn.now, &rules.client);
        ping(session, turn);
    }
}

/// Unix time in milliseconds at which the grace period after an expiry ends.
fn end_of_grace(unix_seconds: i64, grace_ms: u64) -> i64 {
    let grace_ms = i64::try_from(grace_ms).unwrap_or(i64::MAX);
    unix_seconds.saturating_mul(1000).saturating_add(grace_ms)
}

fn ping(session: &mut Session, turn: &mut Turn<'_>) {
    match session.ping_style {
        PingStyle::Protocol => session.send(turn, &Reply { id: 0, body: ReplyBody::Ping }),
        PingStyle::Frame => {
            let frame = encoder::frame(FrameKind::Ping, b"");
            session.send_frame(turn.out, frame, turn.rules.client.queue_max_size);
        }
    }
}
