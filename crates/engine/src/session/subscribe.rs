//! The subscribe and unsubscribe commands. They check in the order of §1.10 and §5.3, then start
//! [`super::join`].

use wire::protocol::{DisconnectCode, ErrorCode, ReplyBody, SubscribeRequest};

use super::join::{self, JoinOrigin, JoinPlan, JoinRequest};
use super::{Session, Wait, metering};
use crate::channel;
use crate::claims::{SubscriptionClaims, SubscriptionGrant, TokenRefusal};
use crate::counters::CommandKind;
use crate::refusal::Refusal;
use crate::turn::{Effect, TokenClaim, TokenKind, Turn};

/// What a token, or its absence, grants.
#[derive(Default)]
struct Authorization {
    grant: SubscriptionGrant,
    expire_at: Option<i64>,
}

/// Handles the subscribe command.
pub(crate) fn begin(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    mut request: Box<SubscribeRequest>,
) -> Result<(), Refusal> {
    if let Err(refusal) = check(session, turn, &request)
        .and_then(|()| metering::subscribe(session, turn, &request.channel))
    {
        return Err(turn.out.note(session.key, CommandKind::Subscribe, &request.channel, refusal));
    }
    if !request.token.is_empty() {
        let token = std::mem::take(&mut request.token);
        session.block(Wait::SubscribeToken { id, request });
        let (key, kind) = (session.key, TokenKind::Subscription);
        turn.out.effects.push_back(Effect::Verify { key, kind, token });
        return Ok(());
    }
    start(session, turn, id, &request, Authorization::default())
}

/// Checks everything that does not depend on a token.
fn check(session: &Session, turn: &Turn<'_>, request: &SubscribeRequest) -> Result<(), Refusal> {
    let rules = turn.rules;
    if request.channel.is_empty() {
        return Err(DisconnectCode::BadRequest.into());
    }
    if request.channel.len() > rules.channels.max_length {
        return Err(ErrorCode::BadRequest.into());
    }
    check_room(session, turn, &request.channel)?;
    if !matches!(&*request.delta, "" | DELTA_FOSSIL) {
        return Err(DisconnectCode::BadRequest.into());
    }
    let view = channel::view(&rules.channels, &request.channel)?;
    if request.kind != 0 {
        // Map and shared-poll subscriptions (§1.14, §1.15).
        return Err(ErrorCode::NotAvailable.into());
    }
    if request.token.is_empty() {
        channel::may_subscribe(rules, &view, session.any_actor())?;
    }
    Ok(())
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
    let expire_at = claims.expire_at.filter(|_| !turn.rules.client.insecure);
    if expire_at.is_some_and(|at| turn.now.seconds_until(at) <= 0) {
        return Err(ErrorCode::Expired.into());
    }
    start(session, turn, id, request, Authorization { grant: claims.grant, expire_at })
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
    let mismatch = if claims.channel != channel {
        (TokenClaim::Channel, &claims.channel)
    } else if claims.user != session.user() {
        (TokenClaim::User, &claims.user)
    } else if !claims.client.is_empty() && claims.client != client {
        (TokenClaim::Client, &claims.client)
    } else {
        return Ok(());
    };
    let (claim, found) = mismatch;
    turn.out.note_mismatch(session.key, TokenKind::Subscription, channel, (claim, found));
    Err(DisconnectCode::InvalidToken.into())
}

fn start(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    request: &SubscribeRequest,
    authorization: Authorization,
) -> Result<(), Refusal> {
    if request.tags_filter {
        return Err(ErrorCode::BadRequest.into());
    }
    // Checked again, because the server API may have subscribed it while its token was verified.
    check_room(session, turn, &request.channel)?;
    let rules = turn.rules;
    let view = channel::view(&rules.channels, &request.channel)?;
    let (channel, grant) = (&request.channel, authorization.grant);
    let join_request = JoinRequest { channel, wish: Some(request), grant };
    let mut plan = JoinPlan::new(rules, view.namespace, session.any_actor(), join_request);
    plan.origin = JoinOrigin::Command(id);
    plan.expire_at = authorization.expire_at;
    join::begin(session, turn, plan);
    Ok(())
}

/// Handles the unsubscribe command. It succeeds if there is no such subscription (§1.11).
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
            session.block(Wait::Leave { id, channel: channel.to_owned() });
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
