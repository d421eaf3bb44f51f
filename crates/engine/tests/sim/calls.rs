//! The backends of a worker: they verify tokens and decide on commands, sometimes slowly, always
//! out of order, and some answer twice.
//!
//! Invariant: every call is answered, and a session has no more calls in progress than it may.

use bytes::Bytes;
use engine::call::{CallRefusal, PublishGrant, Renewal};
use engine::claims::{ConnectionClaims, SubscriptionClaims, SubscriptionGrant, TokenRefusal};
use engine::random::Random;
use engine::time::Now;
use engine::{CallOutcome, SessionCall, SessionCallId, SessionKey, TokenKind};
use wire::protocol::ErrorCode;

use super::channels::CONCURRENCY;
use super::oracle::{Oracle, Violation};
use super::token::Token;

/// Seconds for which a backend allows a subscription.
const LIFETIME: i64 = 6;

/// A call without an answer yet, or one that is answered again.
pub(crate) struct PendingCall {
    pub(crate) key: SessionKey,
    pub(crate) call: SessionCallId,
    what: SessionCall,
    due_ms: u64,
    is_repeat: bool,
}

/// See the module.
pub(crate) struct Backends {
    pending: Vec<PendingCall>,
    random: Random,
    slow_until_ms: u64,
    /// Number of calls that will fail.
    failing: usize,
}

impl Backends {
    pub(crate) fn new(seed: u64) -> Backends {
        Backends { pending: Vec::new(), random: Random::new(seed), slow_until_ms: 0, failing: 0 }
    }

    /// Takes a session's call.
    pub(crate) fn ask(
        &mut self,
        now_ms: u64,
        (key, call): (SessionKey, SessionCallId),
        what: SessionCall,
    ) -> Result<(), Violation> {
        let delays = [0, 0, 0, 0, 100, 300];
        let delay_ms = delays[self.random.below(6) as usize];
        let is_slow = now_ms < self.slow_until_ms;
        let due_ms = now_ms + if is_slow { self.random.below(4_000) } else { delay_ms };
        self.pending.push(PendingCall { key, call, what, due_ms, is_repeat: false });
        let of_session = self.pending.iter().filter(|one| one.key == key && one.is_of_client());
        let count = of_session.count();
        Oracle::Bound.check(count <= CONCURRENCY, || format!("{key:?} has {count} calls"))
    }

    /// Calls take long until then.
    pub(crate) fn slow_down(&mut self, until_ms: u64) {
        self.slow_until_ms = until_ms;
    }

    /// Makes calls fail.
    pub(crate) fn fail(&mut self, count: usize) {
        self.failing += count;
    }

    /// Ends all faults.
    pub(crate) fn repair(&mut self) {
        (self.slow_until_ms, self.failing) = (0, 0);
        self.pending.iter_mut().for_each(|call| call.due_ms = 0);
    }

    /// Takes any of the calls that are due.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<PendingCall> {
        let due = (0..self.pending.len()).filter(|index| self.pending[*index].due_ms <= now_ms);
        let due: Vec<usize> = due.collect();
        let chosen = self.random.below(due.len().max(1) as u64) as usize;
        due.get(chosen).map(|index| self.pending.swap_remove(*index))
    }

    /// Every third call is answered again later, when its session has gone on.
    pub(crate) fn repeat(&mut self, now_ms: u64, mut call: PendingCall) {
        if !call.is_repeat && self.random.below(3) == 0 {
            call.is_repeat = true;
            call.due_ms = now_ms + self.random.below(1_000);
            self.pending.push(call);
        }
    }

    /// What a call is answered.
    pub(crate) fn outcome(&mut self, now: Now, call: &PendingCall) -> CallOutcome {
        let fails = self.failing > 0 && !call.is_repeat;
        self.failing -= usize::from(fails);
        let is_refused = self.random.below(8) == 0;
        let refusal = match (fails, is_refused) {
            (true, _) => Some(ErrorCode::Internal),
            (false, true) => Some(ErrorCode::PermissionDenied),
            (false, false) => None,
        };
        let refusal = refusal.map(|code| CallRefusal::Error(code.into()));
        let unavailable = fails.then(|| CallRefusal::Error(ErrorCode::Internal.into()));
        let expire_at = Some(now.unix_ms / 1000 + LIFETIME);
        match &call.what {
            SessionCall::Verify { kind, token } => verdict(now, *kind, &Token::parse(token), fails),
            SessionCall::Connect(connect) => {
                let data = quoted(&connect.client);
                let claims = ConnectionClaims { data, ..ConnectionClaims::default() };
                let claims = (!is_refused).then(|| Box::new(claims));
                CallOutcome::Connect(unavailable.map_or(Ok(claims), Err))
            }
            SessionCall::Subscribe(subscribe) => {
                let data = granted_to(&subscribe.caller.info.client, &subscribe.channel);
                let grant = SubscriptionGrant { data, expire_at, ..SubscriptionGrant::default() };
                CallOutcome::Subscribe(refusal.map_or(Ok(grant), Err))
            }
            SessionCall::Publish(_) => {
                let grant = Ok(Box::new(PublishGrant::default()));
                CallOutcome::Publish(refusal.map_or(grant, Err))
            }
            SessionCall::SubRefresh(_) if is_refused => {
                CallOutcome::SubRefresh(Ok(Renewal::Expired))
            }
            SessionCall::SubRefresh(_) => {
                let until = Renewal::Until { expire_at, info: Bytes::new(), meta: Bytes::new() };
                CallOutcome::SubRefresh(unavailable.map_or(Ok(until), Err))
            }
            SessionCall::Rpc(rpc) => {
                CallOutcome::Rpc(unavailable.map_or(Ok(rpc.data.clone()), Err))
            }
            SessionCall::Refresh(_) => unreachable!("the rules have no refresh proxy"),
        }
    }
}

impl PendingCall {
    /// Whether a client's command waits for it.
    fn is_of_client(&self) -> bool {
        !self.is_repeat && !matches!(self.what, SessionCall::SubRefresh(_))
    }

    /// The expiry of the connection, if the call was answered with one.
    pub(crate) fn lifetime(&self, outcome: &CallOutcome) -> Option<Option<i64>> {
        match outcome {
            CallOutcome::Connection(Ok(claims)) if !self.is_repeat => Some(claims.expire_at),
            _ => None,
        }
    }
}

/// Data that a subscribe proxy gives to this client in this channel, and to no other.
pub(crate) fn granted_to(client: &str, channel: &str) -> Bytes {
    quoted(&format!("{client} {channel}"))
}

/// A JSON text without escapes.
pub(crate) fn quoted(text: &str) -> Bytes {
    format!("\"{text}\"").into()
}

fn verdict(now: Now, kind: TokenKind, token: &Token, fails: bool) -> CallOutcome {
    let refusal = match token.refusal {
        None if token.expire_at.is_some_and(|at| at * 1000 <= now.unix_ms) => {
            Some(TokenRefusal::Expired)
        }
        refusal => refusal.or(fails.then_some(TokenRefusal::Unavailable)),
    };
    let (user, expire_at) = (token.user.clone(), token.expire_at);
    match kind {
        TokenKind::Subscription => {
            let grant = SubscriptionGrant { expire_at, ..SubscriptionGrant::default() };
            let channel = token.channel.clone();
            let claims =
                SubscriptionClaims { user, channel, grant, ..SubscriptionClaims::default() };
            CallOutcome::Subscription(refusal.map_or(Ok(claims), Err))
        }
        TokenKind::Connection => {
            let subscriptions = token.server_side.clone();
            let claims =
                ConnectionClaims { user, expire_at, subscriptions, ..ConnectionClaims::default() };
            CallOutcome::Connection(refusal.map_or(Ok(claims), Err))
        }
    }
}
