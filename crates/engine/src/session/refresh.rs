//! Refreshing tokens of connections and subscriptions.
//!
//! Invariant: an expired token never extends anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{
    ClientInfo, DisconnectCode, ErrorCode, PushEvent, RefreshResult, ReplyBody, SubRefreshRequest,
    UnsubscribeCode,
};

use super::waiting::Wait;
use super::{Session, connect, join, renewal, subscribe};
use crate::call::{CallContext, SessionCall};
use crate::claims::{ConnectionClaims, SubscriptionClaims, TokenRefusal};
use crate::credentials::Credentials;
use crate::refusal::Refusal;
use crate::turn::{TokenClaim, TokenKind, TokenMismatch, Turn};

/// Handles the refresh command.
pub(crate) fn begin(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    token: String,
) -> Result<(), Refusal> {
    if token.is_empty() || turn.rules.client.refresh_proxy {
        return Err(DisconnectCode::BadRequest.into());
    }
    let what = SessionCall::Verify { kind: TokenKind::Connection, token };
    session.call(turn, Wait::Refresh { id }, what);
    Ok(())
}

/// Applies the verdict on the new connection token.
pub(crate) fn handle_verdict(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    verdict: Result<ConnectionClaims, TokenRefusal>,
) -> Result<(), Refusal> {
    let claims = verdict.map_err(|refusal| match refusal {
        TokenRefusal::Expired => Refusal::Close(DisconnectCode::Expired),
        TokenRefusal::Invalid => Refusal::Close(DisconnectCode::InvalidToken),
        TokenRefusal::Unavailable => Refusal::Error(ErrorCode::Internal),
    })?;
    if claims.user != session.user() {
        let (kind, claim) = (TokenKind::Connection, TokenClaim::User);
        let mismatch = TokenMismatch { kind, claim, found: &claims.user };
        turn.out.note_mismatch(session.key, "", mismatch);
        return Err(DisconnectCode::InvalidToken.into());
    }
    if !has_same_channels(session, &claims) {
        let (kind, claim) = (TokenKind::Connection, TokenClaim::Channels);
        turn.out.note_mismatch(session.key, "", TokenMismatch { kind, claim, found: "" });
        return Err(DisconnectCode::InsufficientState.into());
    }
    let expire_at = claims.expire_at.filter(|_| !turn.rules.client.insecure);
    if expire_at.is_some_and(|at| turn.now.seconds_until(at) <= 0) {
        return Err(DisconnectCode::Expired.into());
    }
    session.expire_at = expire_at;
    session.issued_at = connect::issued_at(claims.issued_at);
    let context = session.credentials.take().and_then(|credentials| credentials.context);
    let context = CallContext::with_meta(context, claims.meta);
    session.credentials = Credentials::new(&claims.roles, &claims.token_id, context);
    set_info(session, &claims.info);
    let result = RefreshResult {
        client: session.info.as_ref().map(|info| info.client.clone()).unwrap_or_default(),
        version: turn.rules.version.clone(),
        expires: expire_at.is_some(),
        ttl: expire_at.map_or(0, |at| connect::ttl(turn.now, at)),
    };
    session.reply(turn, id, ReplyBody::Refresh(result));
    Ok(())
}

/// Replaces the `conn_info` that others see, unless it is empty or unchanged.
pub(crate) fn set_info(session: &mut Session, conn_info: &Bytes) {
    let is_new = |info: &Arc<ClientInfo>| !conn_info.is_empty() && info.conn_info != conn_info;
    let of_channels = session.subscriptions.iter_mut().map(|subscription| &mut subscription.info);
    for info in session.info.iter_mut().chain(of_channels).filter(|info| is_new(info)) {
        *info = Arc::new(ClientInfo { conn_info: conn_info.clone(), ..(**info).clone() });
    }
}

/// Returns whether the token names the current server-side subscriptions. A token that names others
/// requires a new connection (3010).
fn has_same_channels(session: &Session, claims: &ConnectionClaims) -> bool {
    let of_token = session.subscriptions.iter().filter(|one| one.traits.is_of_token);
    let held: BTreeSet<&str> = of_token.map(|one| &*one.channel).collect();
    let named: BTreeSet<&str> = claims.subscriptions.iter().map(|(name, _)| &**name).collect();
    held == named
}

/// Handles the sub_refresh command.
pub(crate) fn begin_sub(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    request: SubRefreshRequest,
) -> Result<(), Refusal> {
    let SubRefreshRequest { channel, token, kind } = request;
    if channel.is_empty() {
        return Err(DisconnectCode::BadRequest.into());
    }
    if session.find(&channel).is_none() {
        return Err(ErrorCode::PermissionDenied.into());
    }
    if renewal::proxy(turn.rules, &channel).is_some() {
        return Err(DisconnectCode::BadRequest.into());
    }
    if kind != 0 || token.is_empty() {
        return Err(ErrorCode::BadRequest.into());
    }
    let what = SessionCall::Verify { kind: TokenKind::Subscription, token };
    session.call(turn, Wait::SubRefresh { id, channel }, what);
    Ok(())
}

/// Applies the verdict on the new subscription token.
pub(crate) fn handle_sub_verdict(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    channel: &str,
    verdict: Result<SubscriptionClaims, TokenRefusal>,
) -> Result<(), Refusal> {
    let claims = match verdict {
        Ok(claims) => claims,
        Err(TokenRefusal::Expired) => {
            // On error 109 alone an SDK would give up the subscription. After an unsubscribe push
            // it subscribes with a new token.
            if let Some(index) = session.find(channel).filter(|index| is_of_client(session, *index))
            {
                let channel = join::leave(session, turn, index);
                session.push(turn, channel, PushEvent::from(UnsubscribeCode::Expired));
            }
            return Err(ErrorCode::TokenExpired.into());
        }
        Err(TokenRefusal::Invalid) => return Err(DisconnectCode::InvalidToken.into()),
        Err(TokenRefusal::Unavailable) => return Err(ErrorCode::Internal.into()),
    };
    subscribe::check_owner(session, turn, &claims, channel)?;
    let index = session.find(channel).ok_or(ErrorCode::PermissionDenied)?;
    let expire_at = claims.grant.expire_at.filter(|_| !turn.rules.client.insecure);
    if expire_at.is_some_and(|at| turn.now.seconds_until(at) <= 0) {
        return Err(ErrorCode::Expired.into());
    }
    let subscription = &mut session.subscriptions[index];
    subscription.expire_at = expire_at;
    renewal::set_chan_info(&mut subscription.info, claims.grant.info);
    let ttl = expire_at.map_or(0, |at| connect::ttl(turn.now, at));
    session.reply(turn, id, ReplyBody::SubRefresh { expires: expire_at.is_some(), ttl });
    Ok(())
}

/// Returns whether the subscription is active and was started by the client.
fn is_of_client(session: &Session, index: usize) -> bool {
    let subscription = &session.subscriptions[index];
    subscription.joining.is_none() && !subscription.traits.is_server_side
}
