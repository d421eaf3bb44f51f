//! When a session must be looked at again: stale, ping, pong, end of lifetime.
//!
//! Invariant: [`next`] is never later than the first of these times, as far as the Unix clock does
//! not jump.

use wire::protocol::{DisconnectCode, ErrorCode, PushEvent, Reply, ReplyBody, UnsubscribeCode};
use wire::websocket::encoder::{self, FrameKind};

use super::{Phase, PingStyle, Refusal, Session, join};
use crate::random::Random;
use crate::rules::ClientRules;
use crate::time::Now;
use crate::turn::Turn;
use crate::wheel::Tick;

/// The times of one session that are on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timers {
    /// Without a successful connect, the session ends here.
    stale_at_ms: u64,
    ping_at_ms: u64,
    pong_by_ms: u64,
    /// The entry in the worker's wheel that counts; others are stale.
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

    /// Who it is, is known: what its connect reply still waits for is not the peer's doing.
    pub(crate) fn handle_admitted(&mut self) {
        self.stale_at_ms = NEVER;
    }

    /// The connect command was refused: nothing can follow, and the peer may not be there to go.
    pub(crate) fn handle_refused(&mut self, now: Now, rules: &ClientRules) {
        *self = Timers { scheduled: self.scheduled, ..Timers::new(now, rules) };
    }

    /// The session is live: the first ping comes at a random moment in the second half of the
    /// interval, so that a fleet that came at once does not ping at once (§1.7).
    pub(crate) fn handle_connected(&mut self, now: Now, rules: &ClientRules, random: &mut Random) {
        let interval = rules.ping_interval_ms;
        if interval > 0 {
            let half = interval / 2;
            self.ping_at_ms = now.monotonic_ms + half + random.below(interval - half);
        }
    }

    /// The peer answered a ping. A pong that nobody asked for breaks the protocol.
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

/// The monotonic time at which the session must be looked at next.
pub(crate) fn next(session: &Session, now: Now, rules: &ClientRules) -> Option<u64> {
    if session.phase == Phase::Closed {
        return None;
    }
    let timers = &session.timers;
    let mut first = timers.stale_at_ms.min(timers.ping_at_ms).min(timers.pong_by_ms);
    if let Some(at) = session.expire_at {
        first = first.min(now.monotonic_at(end_of_grace(at, rules.expired_close_delay_ms)));
    }
    let ends = session.subscriptions.iter().filter_map(|subscription| subscription.expire_at);
    if let Some(at) = ends.min() {
        first = first.min(now.monotonic_at(end_of_grace(at, rules.expired_sub_close_delay_ms)));
    }
    Some(first).filter(|first| *first != NEVER)
}

/// Does what is due.
pub(crate) fn handle_timeout(session: &mut Session, turn: &mut Turn<'_>) {
    let now_ms = turn.now.monotonic_ms;
    let rules = &turn.rules.client;
    let unix_ms = turn.now.unix_ms;
    let is_over = |at: i64, grace_ms: u64| end_of_grace(at, grace_ms) <= unix_ms;
    let is_stale = session.timers.stale_at_ms <= now_ms;
    let is_silent = session.timers.pong_by_ms <= now_ms;
    let is_expired = session.expire_at.is_some_and(|at| is_over(at, rules.expired_close_delay_ms));
    let over = |subscription: &super::Subscription| {
        subscription.expire_at.is_some_and(|at| is_over(at, rules.expired_sub_close_delay_ms))
    };
    if is_stale {
        return session.close(turn.out, DisconnectCode::Stale);
    }
    if is_silent {
        return session.close(turn.out, DisconnectCode::NoPong);
    }
    if is_expired {
        return session.close(turn.out, DisconnectCode::Expired);
    }
    while let Some(index) = session.subscriptions.iter().position(over) {
        if session.subscriptions[index].traits.is_server_side {
            return session.close(turn.out, DisconnectCode::SubscriptionExpired);
        }
        if session.subscriptions[index].joining.is_some() {
            // It was not even answered.
            join::abort(session, turn, index, ErrorCode::Expired);
            continue;
        }
        let channel = join::leave(session, turn, index);
        session.push(turn, channel, PushEvent::from(UnsubscribeCode::Expired));
    }
    if session.timers.ping_at_ms <= now_ms {
        session.timers.handle_pinged(turn.now, rules);
        ping(session, turn);
    }
}

/// Unix milliseconds at which a lifetime that ends at `unix_seconds` is really over.
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
