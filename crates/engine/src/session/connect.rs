//! Connect: authentication, expiry, and the subscriptions of the connect reply (§1.9).
//!
//! Invariant: the connect reply is the first message of an admitted session; publications of its
//! server-side subscriptions follow it.

use std::sync::Arc;

use wire::protocol::{
    ClientInfo, ConnectRequest, ConnectResult, DisconnectCode, ErrorCode, ReplyBody,
    SubscribeRequest, SubscribeResult,
};

use super::join::{self, JoinOrigin, JoinPlan, JoinRequest};
use super::{Phase, PingStyle, Session, Wait, metering};
use crate::broker::{Control, NodeBusRequest, Order, Target};
use crate::budget::Budget;
use crate::channel::{self, Actor};
use crate::claims::{ConnectionClaims, SubscriptionGrant, TokenRefusal};
use crate::credentials::Credentials;
use crate::lifecycle::{Change, Lifecycle};
use crate::limits::{TTL_SECONDS_MAX, reply_bytes_max};
use crate::personal;
use crate::refusal::Refusal;
use crate::time::Now;
use crate::turn::{Effect, TokenKind, Turn};

/// Handles the connect command.
pub(crate) fn begin(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    mut request: Box<ConnectRequest>,
) -> Result<(), Refusal> {
    if !request.token.is_empty() {
        let token = std::mem::take(&mut request.token);
        session.block(Wait::ConnectToken { id, request });
        let (key, kind) = (session.key, TokenKind::Connection);
        turn.out.effects.push_back(Effect::Verify { key, kind, token });
        return Ok(());
    }
    let claims = match session.proxy_user.take() {
        // No token was issued: the time of the connect command counts.
        Some(user) => ConnectionClaims {
            user: user.into(),
            issued_at: Some(turn.now.unix_ms / 1000),
            ..ConnectionClaims::default()
        },
        None => {
            let rules = &turn.rules.client;
            if !(rules.insecure || rules.allow_anonymous_connect_without_token) {
                return Err(DisconnectCode::BadRequest.into());
            }
            let issued_at = Some(turn.now.unix_ms / 1000);
            ConnectionClaims { issued_at, ..ConnectionClaims::default() }
        }
    };
    admit(session, turn, id, &request, claims)
}

/// Applies the verdict on the connection token.
pub(crate) fn handle_verdict(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    request: &ConnectRequest,
    verdict: Result<ConnectionClaims, TokenRefusal>,
) -> Result<(), Refusal> {
    let claims = verdict.map_err(|refusal| match refusal {
        TokenRefusal::Expired => Refusal::Error(ErrorCode::TokenExpired),
        TokenRefusal::Invalid => Refusal::Close(DisconnectCode::InvalidToken),
        TokenRefusal::Unavailable => Refusal::Error(ErrorCode::Internal),
    })?;
    if claims.user.is_empty() && turn.rules.client.disallow_anonymous_connection_tokens {
        return Err(DisconnectCode::PermissionDenied.into());
    }
    admit(session, turn, id, request, claims)
}

/// Answers the connect command with an error. The connection cannot be used afterwards (§1.8).
pub(crate) fn refuse(session: &mut Session, turn: &mut Turn<'_>, id: u32, refusal: Refusal) {
    if !matches!(refusal, Refusal::Close(_)) {
        session.phase = Phase::Refused;
        session.timers.handle_refused(turn.now, &turn.rules.client);
    }
    session.refuse(turn, id, refusal);
}

fn admit(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    request: &ConnectRequest,
    claims: ConnectionClaims,
) -> Result<(), Refusal> {
    let rules = turn.rules;
    let expire_at = claims.expire_at.filter(|_| !rules.client.insecure);
    if expire_at.is_some_and(|at| turn.now.seconds_until(at) <= 0) {
        return Err(ErrorCode::Expired.into());
    }
    let credentials = Credentials::new(&claims.roles, &claims.token_id);
    let plans = plan_subscriptions(turn, request, &claims, credentials.as_deref())?;
    metering::connect(session, turn, &claims.user)?;
    let info = Arc::new(ClientInfo {
        client: turn.random.uuid(),
        user: claims.user,
        conn_info: claims.info,
        ..ClientInfo::default()
    });
    turn.users.insert(&info.user, session.key.slot);
    let result = ConnectResult {
        client: info.client.clone(),
        version: rules.version.clone(),
        expires: expire_at.is_some(),
        ttl: expire_at.map_or(0, |at| ttl(turn.now, at)),
        ping: match session.ping_style {
            PingStyle::Protocol => seconds(rules.client.ping_interval_ms),
            PingStyle::Frame => 0,
        },
        pong: session.ping_style == PingStyle::Protocol
            && rules.client.ping_interval_ms > 0
            && rules.client.pong_timeout_ms > 0,
        time: if rules.client.connect_include_server_time { turn.now.unix_ms } else { 0 },
        ..ConnectResult::default()
    };
    session.info = Some(info);
    session.credentials = credentials;
    session.issued_at = issued_at(claims.issued_at);
    session.expire_at = expire_at;
    session.admitted_at_ms = turn.now.unix_ms;
    session.timers.handle_admitted();
    let missing = plans.len();
    let budget = Budget::new(reply_bytes_max(rules.client.queue_max_size));
    session.block(Wait::ConnectJoins { id, result: Box::new(result), missing, budget });
    for plan in plans {
        join::begin(session, turn, plan);
    }
    if missing == 0 {
        finish(session, turn);
    }
    Ok(())
}

/// Adds a completed server-side subscription to the connect reply.
pub(crate) fn handle_joined(
    session: &mut Session,
    turn: &mut Turn<'_>,
    channel: &str,
    joined: SubscribeResult,
) {
    let Some(Wait::ConnectJoins { result, missing, .. }) = session.wait_mut() else {
        return;
    };
    result.subs.push((channel.to_owned(), joined));
    *missing -= 1;
    if *missing == 0 {
        finish(session, turn);
    }
}

/// Handles a server-side subscription that failed.
pub(crate) fn handle_join_failed(session: &mut Session, turn: &mut Turn<'_>, code: ErrorCode) {
    let Some((Wait::ConnectJoins { id, .. }, _)) = session.unblock() else {
        return;
    };
    while !session.subscriptions.is_empty() {
        join::leave(session, turn, 0);
    }
    refuse(session, turn, id, code.into());
}

/// Sends the connect reply, and then publications held back by its subscriptions.
fn finish(session: &mut Session, turn: &mut Turn<'_>) {
    let Some((Wait::ConnectJoins { id, result, .. }, backlog)) = session.unblock() else {
        return;
    };
    session.phase = Phase::Live;
    turn.out.counters.sessions_connected += 1;
    session.timers.handle_connected(turn.now, &turn.rules.client, turn.random);
    send_online(session, turn);
    session.reply(turn, id, ReplyBody::Connect(result));
    for index in (0..session.subscriptions.len()).rev() {
        join::release(session, turn, index);
    }
    end_other_connections(session, turn);
    session.resume(turn, backlog);
}

fn send_online(session: &mut Session, turn: &mut Turn<'_>) {
    if let Some(info) = session.info.clone().filter(|_| turn.rules.client.sends_lifecycle) {
        session.is_online = true;
        let (change, at_ms) = (Change::Online, session.admitted_at_ms);
        turn.out.submit(NodeBusRequest::Lifecycle(Lifecycle { info, change, at_ms }));
    }
}

/// Lists the server-side subscriptions of the connection: those of the token, the personal channel,
/// and those that the client requests and may subscribe to.
fn plan_subscriptions(
    turn: &Turn<'_>,
    request: &ConnectRequest,
    claims: &ConnectionClaims,
    credentials: Option<&Credentials>,
) -> Result<Vec<JoinPlan>, Refusal> {
    let rules = turn.rules;
    let roles = credentials.map_or(&[][..], |credentials| &credentials.roles);
    let actor = Actor { user: &claims.user, roles, is_subscriber: false };
    let wish = |channel: &str| {
        let mut subs = request.subs.iter();
        subs.find(|(name, _)| name == channel).map(|(_, wish)| wish)
    };
    let mut plans: Vec<JoinPlan> = Vec::new();
    let mut add = |channel: &str, wish: Option<&SubscribeRequest>, grant, is_of_token| {
        if plans.iter().any(|plan| plan.channel == channel) {
            return Ok(());
        }
        if plans.len() >= rules.client.channel_limit {
            // Checked first, so that the work for a token or a client is bounded.
            return Err(Refusal::Close(DisconnectCode::ChannelLimit));
        }
        let namespace = channel::server_view(&rules.channels, channel)?.namespace;
        let mut plan = JoinPlan::new(rules, namespace, actor, JoinRequest { channel, wish, grant });
        plan.origin = JoinOrigin::Connect;
        plan.traits.is_server_side = true;
        plan.traits.is_of_token = is_of_token;
        plans.push(plan);
        Ok(())
    };
    for (channel, grant) in &claims.subscriptions {
        add(channel, wish(channel), grant.clone(), true)?;
    }
    if let Some(channel) = personal::name(rules, &claims.user)? {
        add(&channel, wish(&channel), SubscriptionGrant::default(), false)?;
    }
    for (channel, wish) in &request.subs {
        match channel::view(&rules.channels, channel) {
            Err(ErrorCode::UnknownChannel) => return Err(DisconnectCode::BadRequest.into()),
            Ok(view) if channel::may_subscribe(rules, &view, actor).is_ok() => {
                add(channel, Some(wish), SubscriptionGrant::default(), false)?;
            }
            // A requested channel that is not permitted is not an error (§1.9).
            _ => {}
        }
    }
    Ok(plans)
}

/// With `single_connection`, closes the user's other connections.
fn end_other_connections(session: &Session, turn: &mut Turn<'_>) {
    let personal = turn.rules.client.personal_channel.as_ref();
    let Some(info) = session.info.as_ref().filter(|info| !info.user.is_empty()) else {
        return;
    };
    if personal.is_some_and(|personal| personal.single_connection) {
        let target = Target {
            user: info.user.clone(),
            except: vec![info.client.clone()],
            // Of two connections opened at once, on two workers, the later one stays.
            admitted_before: Some((session.admitted_at_ms, info.client.clone())),
            ..Target::default()
        };
        let order = Order::Disconnect(DisconnectCode::ConnectionLimit.into());
        turn.out.submit(NodeBusRequest::Control(Arc::new(Control { target, order })));
    }
}

/// Converts claim `iat` to a session's form: 0 if absent, which is before any time.
pub(crate) fn issued_at(claim: Option<i64>) -> u32 {
    u32::try_from(claim.unwrap_or(0).max(0)).unwrap_or(u32::MAX)
}

/// Seconds until expiry, as reported to a client.
pub(crate) fn ttl(now: Now, expire_at: i64) -> u32 {
    u32::try_from(now.seconds_until(expire_at).clamp(0, TTL_SECONDS_MAX)).unwrap_or(0)
}

fn seconds(ms: u64) -> u32 {
    u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX)
}
