//! Connect: authentication, expiry, and the subscriptions of the connect reply.
//!
//! Invariant: the connect reply is the first message of an admitted session; publications of its
//! server-side subscriptions follow it.

use std::sync::Arc;

use wire::protocol::{
    ClientInfo, ConnectRequest, ConnectResult, DisconnectCode, ErrorCode, ReplyBody,
    SubscribeRequest, SubscribeResult,
};

use super::join::{self, JoinOrigin, JoinPlan, JoinRequest};
use super::waiting::{ConnectJoins, Connecting, Wait};
use super::{Phase, PingStyle, Session, metering};
use crate::broker::{Control, NodeBusRequest, Order, Target};
use crate::budget::Budget;
use crate::call::{CallContext, CallRefusal, ConnectCall, SessionCall};
use crate::channel::{self, Actor};
use crate::claims::{ConnectionClaims, SubscriptionGrant, TokenRefusal};
use crate::credentials::Credentials;
use crate::lifecycle::Change;
use crate::limits::{TTL_SECONDS_MAX, reply_bytes_max};
use crate::personal;
use crate::refusal::Refusal;
use crate::time::Now;
use crate::turn::{TokenKind, Turn};

/// How channels are treated that the connect command requests and the credentials do not grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestedChannels {
    /// The client is subscribed to those that it may subscribe to.
    Subscribe,
    /// The backend decides: they are ignored.
    Ignore,
}

/// Handles the connect command.
pub(crate) fn begin(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    mut request: Box<ConnectRequest>,
) -> Result<(), Refusal> {
    keep_headers(&mut request, &turn.rules.client.emulated_headers);
    let mut connecting = Connecting { id, request, client: None };
    let what = if !connecting.request.token.is_empty() {
        let token = std::mem::take(&mut connecting.request.token);
        SessionCall::Verify { kind: TokenKind::Connection, token }
    } else if turn.rules.client.connect_proxy {
        let client = turn.random.uuid();
        connecting.client = Some(client.clone());
        let request = &mut connecting.request;
        SessionCall::Connect(Box::new(ConnectCall {
            client,
            codec: session.encoding.codec,
            headers: request.headers.clone(),
            data: std::mem::take(&mut request.data),
            name: std::mem::take(&mut request.name),
            version: std::mem::take(&mut request.version),
            channels: request.subs.iter().map(|(channel, _)| channel.clone()).collect(),
        }))
    } else {
        return admit_without_token(session, turn, connecting);
    };
    session.call(turn, Wait::Connect(Box::new(connecting)), what);
    Ok(())
}

/// Keeps those headers that calls pass on, with their names in lower case.
fn keep_headers(request: &mut ConnectRequest, names: &[String]) {
    request.headers.retain_mut(|(name, _)| {
        name.make_ascii_lowercase();
        names.contains(name)
    });
}

/// Admits a client that has neither a token nor a backend that knows it, if that is allowed.
fn admit_without_token(
    session: &mut Session,
    turn: &mut Turn<'_>,
    connecting: Connecting,
) -> Result<(), Refusal> {
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
    admit(session, turn, connecting, claims, RequestedChannels::Subscribe)
}

/// Applies the answer of the connect proxy.
pub(crate) fn handle_result(
    session: &mut Session,
    turn: &mut Turn<'_>,
    connecting: Connecting,
    result: Result<Option<Box<ConnectionClaims>>, CallRefusal>,
) -> Result<(), Refusal> {
    match result? {
        Some(claims) => admit(session, turn, connecting, *claims, RequestedChannels::Ignore),
        None => admit_without_token(session, turn, connecting),
    }
}

/// Applies the verdict on the connection token.
pub(crate) fn handle_verdict(
    session: &mut Session,
    turn: &mut Turn<'_>,
    connecting: Connecting,
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
    admit(session, turn, connecting, claims, RequestedChannels::Subscribe)
}

/// Answers the connect command with an error. The connection cannot be used afterwards.
pub(crate) fn refuse(session: &mut Session, turn: &mut Turn<'_>, id: u32, refusal: Refusal) {
    if !refusal.closes() {
        session.phase = Phase::Refused;
        session.timers.handle_refused(turn.now, &turn.rules.client);
    }
    session.refuse(turn, id, refusal);
}

fn admit(
    session: &mut Session,
    turn: &mut Turn<'_>,
    connecting: Connecting,
    claims: ConnectionClaims,
    requested: RequestedChannels,
) -> Result<(), Refusal> {
    let rules = turn.rules;
    let Connecting { id, mut request, client } = connecting;
    let expire_at = claims.expire_at.filter(|_| !rules.client.insecure);
    if expire_at.is_some_and(|at| turn.now.seconds_until(at) <= 0) {
        return Err(ErrorCode::Expired.into());
    }
    let context = CallContext::new(claims.meta.clone(), std::mem::take(&mut request.headers));
    let credentials = Credentials::new(&claims.roles, &claims.token_id, context);
    let plans = plan_subscriptions(turn, &request, &claims, credentials.as_deref(), requested)?;
    metering::connect(session, turn, &claims.user)?;
    let info = Arc::new(ClientInfo {
        client: client.unwrap_or_else(|| turn.random.uuid()),
        user: claims.user,
        conn_info: claims.info,
        ..ClientInfo::default()
    });
    turn.users.insert(&info.user, session.key.slot);
    // What the server refreshes does not expire for the client.
    let told_expiry = expire_at.filter(|_| !rules.client.refresh_proxy);
    let result = ConnectResult {
        client: info.client.clone(),
        version: rules.version.clone(),
        expires: told_expiry.is_some(),
        ttl: told_expiry.map_or(0, |at| ttl(turn.now, at)),
        data: claims.data,
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
    session.wait(Wait::ConnectJoins(Box::new(ConnectJoins { id, result, missing, budget })));
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
    let Some(joins) = session.waiting_mut().and_then(|waiting| waiting.joins_mut()) else {
        return;
    };
    joins.result.subs.push((channel.to_owned(), joined));
    joins.missing -= 1;
    if joins.missing == 0 {
        finish(session, turn);
    }
}

/// Handles a server-side subscription that failed.
pub(crate) fn handle_join_failed(session: &mut Session, turn: &mut Turn<'_>, code: ErrorCode) {
    let Some(joins) = session.waiting_mut().and_then(|waiting| waiting.end_joins()) else {
        return;
    };
    while !session.subscriptions.is_empty() {
        join::leave(session, turn, 0);
    }
    refuse(session, turn, joins.id, code.into());
}

/// Sends the connect reply, and then publications held back by its subscriptions.
fn finish(session: &mut Session, turn: &mut Turn<'_>) {
    let Some(joins) = session.waiting_mut().and_then(|waiting| waiting.end_joins()) else {
        return;
    };
    let ConnectJoins { id, result, .. } = *joins;
    session.phase = Phase::Live;
    turn.out.counters.sessions_connected += 1;
    session.timers.handle_connected(turn.now, &turn.rules.client, turn.random);
    send_online(session, turn);
    session.reply(turn, id, ReplyBody::Connect(Box::new(result)));
    for index in (0..session.subscriptions.len()).rev() {
        join::release(session, turn, index);
    }
    end_other_connections(session, turn);
}

fn send_online(session: &mut Session, turn: &mut Turn<'_>) {
    if let Some(info) = &session.info {
        session.is_online = true;
        let subject = (info, session.admitted_at_ms);
        turn.out.report_client(&turn.rules.client, subject, Change::Online);
    }
}

/// Lists the server-side subscriptions of the connection: those of the token, the personal channel,
/// and those that the client requests and may subscribe to.
fn plan_subscriptions(
    turn: &Turn<'_>,
    request: &ConnectRequest,
    claims: &ConnectionClaims,
    credentials: Option<&Credentials>,
    requested: RequestedChannels,
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
        let grant: SubscriptionGrant = grant;
        let expire_at = grant.expire_at.filter(|_| !rules.client.insecure);
        if expire_at.is_some_and(|at| turn.now.seconds_until(at) <= 0) {
            return Err(ErrorCode::Expired.into());
        }
        let mut plan = JoinPlan::new(rules, namespace, actor, JoinRequest { channel, wish, grant });
        plan.origin = JoinOrigin::Connect;
        plan.expire_at = expire_at;
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
    let wished = Some(&request.subs).filter(|_| requested == RequestedChannels::Subscribe);
    for (channel, wish) in wished.into_iter().flatten() {
        match channel::view(&rules.channels, channel) {
            Err(ErrorCode::UnknownChannel) => return Err(DisconnectCode::BadRequest.into()),
            Ok(view) if channel::subscribe_proxy(rules, &view).is_some() => {}
            Ok(view) if channel::may_subscribe(rules, &view, actor).is_ok() => {
                add(channel, Some(wish), SubscriptionGrant::default(), false)?;
            }
            // A requested channel that is not permitted is not an error.
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
