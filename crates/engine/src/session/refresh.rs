//! New tokens for a connection or a subscription that shall live on (§1.11).
//!
//! Invariant: an expired token never prolongs anything.

use std::collections::HashSet;
use std::sync::Arc;

use wire::protocol::{
    ClientInfo, DisconnectCode, ErrorCode, RefreshResult, ReplyBody, SubRefreshRequest,
};

use super::{Refusal, Session, Wait, connect, subscribe};
use crate::claims::{ConnectionClaims, SubscriptionClaims, TokenRefusal};
use crate::turn::{Effect, TokenKind, Turn};

/// The refresh command.
pub(crate) fn begin(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    token: String,
) -> Result<(), Refusal> {
    if token.is_empty() {
        return Err(DisconnectCode::BadRequest.into());
    }
    session.block(Wait::RefreshToken { id });
    let (key, kind) = (session.key, TokenKind::Connection);
    turn.out.effects.push_back(Effect::Verify { key, kind, token });
    Ok(())
}

/// The verdict on the new connection token.
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
        return Err(DisconnectCode::InvalidToken.into());
    }
    if !has_same_channels(session, &claims) {
        return Err(DisconnectCode::InsufficientState.into());
    }
    let expire_at = claims.expire_at.filter(|_| !turn.rules.client.insecure);
    if expire_at.is_some_and(|at| turn.now.seconds_until(at) <= 0) {
        return Err(DisconnectCode::Expired.into());
    }
    session.expire_at = expire_at;
    set_info(session, claims.info);
    let result = RefreshResult {
        client: session.info.as_ref().map(|info| info.client.clone()).unwrap_or_default(),
        version: turn.rules.version.clone(),
        expires: expire_at.is_some(),
        ttl: expire_at.map_or(0, |at| connect::ttl(turn.now, at)),
    };
    session.reply(turn, id, ReplyBody::Refresh(result));
    Ok(())
}

/// Replaces what others see of this connection from now on.
pub(crate) fn set_info(session: &mut Session, conn_info: bytes::Bytes) {
    if let Some(info) = session.info.as_mut().filter(|info| info.conn_info != conn_info) {
        *info = Arc::new(ClientInfo { conn_info, ..(**info).clone() });
    }
}

/// Server-side subscriptions come from the token; a token that names others needs a new connection (3010).
fn has_same_channels(session: &Session, claims: &ConnectionClaims) -> bool {
    let of_token = session.subscriptions.iter().filter(|one| one.traits.is_of_token);
    let held: HashSet<&str> = of_token.map(|one| &*one.channel).collect();
    let named: HashSet<&str> = claims.subscriptions.iter().map(|(name, _)| &**name).collect();
    held == named
}

/// The sub_refresh command.
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
    if kind != 0 || token.is_empty() {
        return Err(ErrorCode::BadRequest.into());
    }
    session.block(Wait::SubRefreshToken { id, channel });
    let (key, kind) = (session.key, TokenKind::Subscription);
    turn.out.effects.push_back(Effect::Verify { key, kind, token });
    Ok(())
}

/// The verdict on the new subscription token.
pub(crate) fn handle_sub_verdict(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    channel: &str,
    verdict: Result<SubscriptionClaims, TokenRefusal>,
) -> Result<(), Refusal> {
    let claims = verdict.map_err(|refusal| match refusal {
        TokenRefusal::Expired => Refusal::Error(ErrorCode::TokenExpired),
        TokenRefusal::Invalid => Refusal::Close(DisconnectCode::InvalidToken),
        TokenRefusal::Unavailable => Refusal::Error(ErrorCode::Internal),
    })?;
    if !subscribe::is_for(session, &claims, channel) {
        return Err(DisconnectCode::InvalidToken.into());
    }
    let index = session.find(channel).ok_or(ErrorCode::PermissionDenied)?;
    let expire_at = claims.expire_at.filter(|_| !turn.rules.client.insecure);
    if expire_at.is_some_and(|at| turn.now.seconds_until(at) <= 0) {
        return Err(ErrorCode::Expired.into());
    }
    session.subscriptions[index].expire_at = expire_at;
    let ttl = expire_at.map_or(0, |at| connect::ttl(turn.now, at));
    session.reply(turn, id, ReplyBody::SubRefresh { expires: expire_at.is_some(), ttl });
    Ok(())
}
