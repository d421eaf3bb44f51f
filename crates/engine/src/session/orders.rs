//! What the server API makes of a session: subscribe, unsubscribe, disconnect, refresh (§3.3).

use std::sync::Arc;

use wire::protocol::{
    DisconnectCode, ErrorCode, PushEvent, StreamPosition, SubscribeRequest, UnsubscribeCode,
};

use super::join::{self, Origin, Plan};
use super::{Phase, Session, connect, refresh};
use crate::broker::{Control, Order, Target};
use crate::channel;
use crate::claims::SubscriptionGrant;
use crate::turn::Turn;

/// Applies an order to a session that it names, now or as soon as the session has been told that it is connected.
pub(crate) fn handle(session: &mut Session, turn: &mut Turn<'_>, control: &Arc<Control>) {
    if !is_meant(session, &control.target) {
        return;
    }
    if matches!(control.order, Order::Disconnect(_)) || !session.defer_order(control) {
        apply(session, turn, control);
    }
}

/// Applies an order to a session that it names.
pub(crate) fn apply(session: &mut Session, turn: &mut Turn<'_>, control: &Control) {
    match &control.order {
        Order::Disconnect(disconnect) => session.doom(turn.out, disconnect.clone()),
        _ if session.phase != Phase::Live => {}
        Order::Subscribe { channel, expire_at, grant, recover_since } => {
            subscribe(session, turn, channel, *expire_at, grant, recover_since.as_ref());
        }
        Order::Unsubscribe { channel } => unsubscribe(session, turn, channel),
        Order::Refresh { expired: true, .. } => session.doom(turn.out, DisconnectCode::Expired),
        Order::Refresh { expire_at: Some(at), .. } if turn.now.seconds_until(*at) <= 0 => {
            session.doom(turn.out, DisconnectCode::Expired);
        }
        Order::Refresh { expire_at, info, .. } => {
            refresh::set_info(session, info);
            session.expire_at = *expire_at;
            let event = PushEvent::Refresh {
                expires: expire_at.is_some(),
                ttl: expire_at.map_or(0, |at| connect::ttl(turn.now, at)),
            };
            session.push(turn, "".into(), event);
        }
    }
}

fn is_meant(session: &Session, target: &Target) -> bool {
    let Some(info) = &session.info else {
        return false;
    };
    let is_named = target.client.is_empty() || target.client == info.client;
    let is_older = target
        .admitted_before
        .as_ref()
        .is_none_or(|(at_ms, client)| (session.admitted_at_ms, &info.client) < (*at_ms, client));
    info.user == target.user && is_named && is_older && !target.except.contains(&info.client)
}

fn subscribe(
    session: &mut Session,
    turn: &mut Turn<'_>,
    name: &str,
    expire_at: Option<i64>,
    grant: &SubscriptionGrant,
    since: Option<&StreamPosition>,
) {
    let rules = turn.rules;
    // The API has checked the name; a session that has the channel already keeps what it has.
    let Ok(view) = channel::view(&rules.channels, name) else {
        return;
    };
    if session.find(name).is_some() {
        return;
    }
    if session.subscriptions.len() >= rules.client.channel_limit {
        return session.doom(turn.out, DisconnectCode::ChannelLimit);
    }
    let wish = since.map(|since| SubscribeRequest {
        recover: true,
        offset: since.offset,
        epoch: since.epoch.clone(),
        ..SubscribeRequest::default()
    });
    let user = session.user();
    let mut plan = Plan::new(rules, view.namespace, user, name, wish.as_ref(), grant.clone());
    plan.origin = Origin::Order;
    plan.traits.is_server_side = true;
    plan.expire_at = expire_at;
    join::begin(session, turn, plan);
}

/// An empty name means all subscriptions of the session.
fn unsubscribe(session: &mut Session, turn: &mut Turn<'_>, name: &str) {
    let is_named = |channel: &str| name.is_empty() || channel == name;
    while let Some(index) = session.subscriptions.iter().position(|one| is_named(&one.channel)) {
        if session.subscriptions[index].joining.is_some() {
            join::abort(session, turn, index, ErrorCode::PermissionDenied);
            continue;
        }
        let channel = join::leave(session, turn, index);
        session.push(turn, channel, PushEvent::from(UnsubscribeCode::Server));
    }
}
