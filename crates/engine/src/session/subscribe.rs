//! The subscribe and unsubscribe commands. They check arguments and permissions, then start
//! [`super::join`].

use std::sync::Arc;

use wire::protocol::{DisconnectCode, ErrorCode, ReplyBody, SubscribeRequest};

use super::join::{self, JoinOrigin, JoinPlan, JoinRequest};
use super::waiting::Wait;
use super::{Session, metering};
use crate::call::{SessionCall, SubscribeCall};
use crate::channel;
use crate::claims::{SubscriptionClaims, SubscriptionGrant, TokenRefusal};
use crate::counters::CommandKind;
use crate::refusal::Refusal;
use crate::turn::{TokenClaim, TokenKind, TokenMismatch, Turn};

/// Who decides on a subscribe command whose other checks have passed.
enum Authority {
    /// Its token.
    Token,
    /// A backend.
    Proxy(Arc<str>),
    /// The rules have allowed it.
    Rules,
}

/// Handles the subscribe command.
pub(crate) fn begin(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    mut request: Box<SubscribeRequest>,
) -> Result<(), Refusal> {
    let checked = check(session, turn, &request).and_then(|authority| {
        metering::subscribe(session, turn, &request.channel)?;
        Ok(authority)
    });
    let authority = checked.map_err(|refusal| {
        turn.out.note(session.key, CommandKind::Subscribe, &request.channel, refusal)
    })?;
    let what = match (authority, session.caller()) {
        (Authority::Rules, _) => {
            return start(session, turn, id, &request, SubscriptionGrant::default());
        }
        (Authority::Proxy(proxy), Some(caller)) => {
            let (channel, data) = (request.channel.clone(), std::mem::take(&mut request.data));
            SessionCall::Subscribe(Box::new(SubscribeCall { caller, proxy, channel, data }))
        }
        (Authority::Proxy(_), None) => return Err(ErrorCode::Internal.into()),
        (Authority::Token, _) => {
            let token = std::mem::take(&mut request.token);
            SessionCall::Verify { kind: TokenKind::Subscription, token }
        }
    };
    session.call(turn, Wait::Subscribe { id, request }, what);
    Ok(())
}

/// Checks everything that depends neither on a token nor on a backend.
fn check(
    session: &Session,
    turn: &Turn<'_>,
    request: &SubscribeRequest,
) -> Result<Authority, Refusal> {
    let rules = turn.rules;
    if request.channel.is_empty() {
        return Err(DisconnectCode::BadRequest.into());
    }
    if request.channel.len() > rules.channels.max_length {
        return Err(ErrorCode::BadRequest.into());
    }
    check_room(session, turn, &request.channel)?;
    let subscribing = session.waiting().map_or(0, |waiting| waiting.subscribing());
    if session.subscriptions.len() + subscribing >= rules.client.channel_limit {
        return Err(ErrorCode::LimitExceeded.into());
    }
    if !matches!(&*request.delta, "" | DELTA_FOSSIL) {
        return Err(DisconnectCode::BadRequest.into());
    }
    let view = channel::view(&rules.channels, &request.channel)?;
    if request.kind != 0 {
        // Map and shared-poll subscriptions.
        return Err(ErrorCode::NotAvailable.into());
    }
    if !request.token.is_empty() {
        return Ok(Authority::Token);
    }
    if let Some(proxy) = channel::subscribe_proxy(rules, &view) {
        return Ok(Authority::Proxy(proxy.clone()));
    }
    channel::may_subscribe(rules, &view, session.any_actor())?;
    Ok(Authority::Rules)
}

fn check_room(session: &Session, turn: &Turn<'_>, channel: &str) -> Result<(), ErrorCode> {
    if session.find(channel).is_some() {
        return Err(ErrorCode::AlreadySubscribed);
    }
    if session.subscriptions.len() >= turn.rules.client.channel_limit {
        return Err(ErrorCode::LimitExceeded);
    }
    Ok(())
}

/// Applies the verdict on the subscription token.
pub(crate) fn handle_verdict(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    request: &SubscribeRequest,
    verdict: Result<SubscriptionClaims, TokenRefusal>,
) -> Result<(), Refusal> {
    let claims = verdict.map_err(|refusal| {
        let code = match refusal {
            TokenRefusal::Expired => ErrorCode::TokenExpired,
            TokenRefusal::Invalid => ErrorCode::PermissionDenied,
            TokenRefusal::Unavailable => ErrorCode::Internal,
        };
        turn.out.note(session.key, CommandKind::Subscribe, &request.channel, code.into())
    })?;
    check_owner(session, turn, &claims, &request.channel)?;
    start(session, turn, id, request, claims.grant)
}

/// Checks that the claims name this session and this channel. A mismatch is reported to the
/// operator.
pub(crate) fn check_owner(
    session: &Session,
    turn: &mut Turn<'_>,
    claims: &SubscriptionClaims,
    channel: &str,
) -> Result<(), Refusal> {
    let client = session.info.as_ref().map_or("", |info| &info.client);
    let (claim, found) = if claims.channel != channel {
        (TokenClaim::Channel, &claims.channel)
    } else if claims.user != session.user() {
        (TokenClaim::User, &claims.user)
    } else if !claims.client.is_empty() && claims.client != client {
        (TokenClaim::Client, &claims.client)
    } else {
        return Ok(());
    };
    let mismatch = TokenMismatch { kind: TokenKind::Subscription, claim, found };
    turn.out.note_mismatch(session.key, channel, mismatch);
    Err(DisconnectCode::InvalidToken.into())
}

/// Starts a subscription that its authority allows.
pub(crate) fn start(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    request: &SubscribeRequest,
    grant: SubscriptionGrant,
) -> Result<(), Refusal> {
    let expire_at = grant.expire_at.filter(|_| !turn.rules.client.insecure);
    if expire_at.is_some_and(|at| turn.now.seconds_until(at) <= 0) {
        return Err(ErrorCode::Expired.into());
    }
    if request.tags_filter {
        return Err(ErrorCode::BadRequest.into());
    }
    // Checked again, because the server API may have subscribed it meanwhile.
    check_room(session, turn, &request.channel)?;
    let rules = turn.rules;
    let view = channel::view(&rules.channels, &request.channel)?;
    let join_request = JoinRequest { channel: &request.channel, wish: Some(request), grant };
    let mut plan = JoinPlan::new(rules, view.namespace, session.any_actor(), join_request);
    plan.origin = JoinOrigin::Command(id);
    plan.expire_at = expire_at;
    join::begin(session, turn, plan);
    Ok(())
}

/// Handles the unsubscribe command. It succeeds if there is no such subscription.
pub(crate) fn end(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    channel: &str,
) -> Result<(), Refusal> {
    if channel.is_empty() {
        return Err(DisconnectCode::BadRequest.into());
    }
    match session.find(channel) {
        None => session.reply(turn, id, ReplyBody::Unsubscribe),
        // Ends once it is active. Commands after this one may subscribe to the channel again.
        Some(index) if session.subscriptions[index].joining.is_some() => {
            session.wait(Wait::Leave { id, channel: channel.to_owned() });
        }
        Some(index) => {
            join::leave(session, turn, index);
            session.reply(turn, id, ReplyBody::Unsubscribe);
        }
    }
    Ok(())
}

/// The only delta algorithm of the protocol. A client may request it; the reply states that it is
/// not used.
const DELTA_FOSSIL: &str = "fossil";
