//! Orders of the server API for a session: subscribe, unsubscribe, disconnect, refresh.

use std::sync::Arc;

use wire::protocol::{
    ClientInfo, DisconnectCode, ErrorCode, PushEvent, StreamPosition, SubscribeRequest,
    UnsubscribeCode,
};

use super::join::{self, JoinOrigin, JoinPlan, JoinRequest};
use super::{Phase, Session, connect, refresh};
use crate::broker::{Control, Order, PresenceRequest, Target};
use crate::channel;
use crate::claims::SubscriptionGrant;
use crate::turn::Turn;

/// Applies an order if its target includes the session, at once or after the connect reply.
pub(crate) fn handle(session: &mut Session, turn: &mut Turn<'_>, control: &Arc<Control>) {
    if !is_meant(session, &control.target) {
        return;
    }
    if matches!(control.order, Order::Disconnect(_)) || !session.defer_order(control) {
        apply(session, turn, control);
    }
}

/// Applies an order to a session that its target includes.
pub(crate) fn apply(session: &mut Session, turn: &mut Turn<'_>, control: &Control) {
    match &control.order {
        Order::Disconnect(disconnect) => session.close(turn.out, disconnect.clone()),
        _ if session.phase != Phase::Live => {}
        Order::Subscribe { channel, grant, recover_since } => {
            let since = recover_since.as_ref();
            subscribe(session, turn, OrderedSubscription { name: channel, grant, since });
        }
        Order::Unsubscribe { channel } => unsubscribe(session, turn, channel),
        Order::Refresh { expired: true, .. } => session.close(turn.out, DisconnectCode::Expired),
        Order::Refresh { expire_at: Some(at), .. } if turn.now.seconds_until(*at) <= 0 => {
            session.close(turn.out, DisconnectCode::Expired);
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

/// The fields of [`Order::Subscribe`].
#[derive(Clone, Copy)]
struct OrderedSubscription<'o> {
    name: &'o str,
    grant: &'o SubscriptionGrant,
    since: Option<&'o StreamPosition>,
}

fn subscribe(session: &mut Session, turn: &mut Turn<'_>, ordered: OrderedSubscription<'_>) {
    let OrderedSubscription { name, grant, since } = ordered;
    let rules = turn.rules;
    // The API has validated the name.
    let Ok(view) = channel::server_view(&rules.channels, name) else {
        return;
    };
    // It may have expired by this node's clock only: the connection must not close.
    if grant.expire_at.is_some_and(|at| turn.now.seconds_until(at) <= 0) {
        return;
    }
    if let Some(index) = session.find(name) {
        return renew(session, turn, index, grant);
    }
    if session.subscriptions.len() >= rules.client.channel_limit {
        return session.close(turn.out, DisconnectCode::ChannelLimit);
    }
    let wish = since.map(|since| SubscribeRequest {
        recover: true,
        offset: since.offset,
        epoch: since.epoch.clone(),
        ..SubscribeRequest::default()
    });
    let actor = session.any_actor();
    let request = JoinRequest { channel: name, wish: wish.as_ref(), grant: grant.clone() };
    let mut plan = JoinPlan::new(rules, view.namespace, actor, request);
    plan.origin = JoinOrigin::Order;
    plan.traits.is_server_side = true;
    plan.expire_at = grant.expire_at;
    join::begin(session, turn, plan);
}

/// Updates a server-side subscription that is ordered again: expiry, data and `chan_info` are
/// replaced. Position and options stay, so that no publication is missed. Subscriptions of the
/// client itself do not change.
fn renew(session: &mut Session, turn: &mut Turn<'_>, index: usize, grant: &SubscriptionGrant) {
    let subscription = &mut session.subscriptions[index];
    if !subscription.traits.is_server_side {
        return;
    }
    subscription.expire_at = grant.expire_at;
    if subscription.info.chan_info != grant.info {
        let chan_info = grant.info.clone();
        subscription.info = Arc::new(ClientInfo { chan_info, ..(*subscription.info).clone() });
        if subscription.traits.is_present {
            let (channel, info) = (subscription.channel.clone(), subscription.info.clone());
            let announces = subscription.traits.is_announced;
            turn.out.submit(PresenceRequest::Add { channel, info, announces });
        }
    }
    // A subscription that is not active yet is announced once, with the new data.
    if let Some(joining) = &mut subscription.joining {
        joining.data = grant.data.clone();
        return;
    }
    let (channel, subscriber_key, traits) =
        (subscription.channel.clone(), subscription.subscriber_key, subscription.traits);
    let position = match traits.is_positioned {
        true => StreamPosition {
            offset: turn.hub.subscriber_mut(subscriber_key).offset,
            epoch: turn.hub.channel(subscriber_key).epoch.to_string(),
        },
        false => StreamPosition::default(),
    };
    let event = PushEvent::Subscribe {
        recoverable: traits.is_recoverable,
        positioned: traits.is_positioned,
        position,
        data: grant.data.clone(),
    };
    session.push(turn, channel, event);
}

/// Ends one subscription, or all if the name is empty.
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
