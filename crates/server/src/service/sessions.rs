//! Orders for sessions: subscribe, unsubscribe, disconnect, refresh.
//!
//! Invariant: an order is sent to the workers of all nodes, without waiting for its effect.

use std::sync::Arc;

use bytes::Bytes;
use engine::broker::{Control, NodeBusRequest, Order, Target};
use engine::claims::SubscriptionGrant;
use wire::limits::CLOSE_REASON_MAX;
use wire::protocol::{Disconnect, DisconnectCode, ErrorCode, StreamPosition};

use super::ServiceContext;
use super::caller::ApiCaller;
use super::error::ApiError;

/// Methods that change sessions: subscribe, unsubscribe, disconnect, refresh.
pub(crate) struct SessionService {
    context: ServiceContext,
}

/// Sessions that a request names.
pub(crate) struct SessionFilter {
    /// Empty selects all anonymous users.
    pub(crate) user: String,
    /// Only this client, unless empty.
    pub(crate) client: String,
    pub(crate) session: String,
    /// Ids of clients that are left out.
    pub(crate) whitelist: Vec<String>,
}

impl SessionFilter {
    /// The selected sessions. `None` if `session` is set: session ids exist only for unidirectional
    /// transports, which are not served.
    pub(crate) fn target(self) -> Option<Target> {
        let SessionFilter { user, client, session, whitelist } = self;
        let target = Target { user, client, except: whitelist, admitted_before: None };
        session.is_empty().then_some(target)
    }
}

/// A server-side subscription to start.
pub(crate) struct ServerSubscription {
    pub(crate) channel: String,
    /// Unix time in seconds; `None` never expires.
    pub(crate) expire_at: Option<i64>,
    pub(crate) grant: SubscriptionGrant,
    /// Position from which to recover; `None` starts at the top.
    pub(crate) recover_since: Option<StreamPosition>,
}

/// What a refresh changes.
pub(crate) struct SessionRefresh {
    /// New connection information; empty leaves it unchanged.
    pub(crate) info: Bytes,
    /// Unix time in seconds; `None` never expires.
    pub(crate) expire_at: Option<i64>,
    /// Whether to close the connection as expired (3005).
    pub(crate) expired: bool,
}

/// Code and reason to close with; without a code it is 3000, after which clients connect again.
///
/// # Errors
/// If the code is not one of 3000 to 4999, or the reason is longer than a close frame can carry.
pub(crate) fn disconnect_advice(code: u16, reason: String) -> Result<Disconnect, ApiError> {
    if code != 0 && !(3000..5000).contains(&code) {
        return Err(ApiError::bad("a disconnect code is 3000 to 4999, or 0 for 3000"));
    }
    if reason.len() > CLOSE_REASON_MAX {
        return Err(ApiError::bad("a disconnect reason has 123 bytes at most"));
    }
    Ok(match (code, reason) {
        (0, reason) if reason.is_empty() => DisconnectCode::ConnectionClosed.into(),
        (0, reason) => {
            let code = DisconnectCode::ConnectionClosed.number();
            Disconnect::Custom { code, reason: reason.into() }
        }
        (code, reason) => Disconnect::Custom { code, reason: reason.into() },
    })
}

/// In all methods, a target of `None` selects no sessions.
impl SessionService {
    pub(super) fn new(context: ServiceContext) -> SessionService {
        SessionService { context }
    }

    pub(crate) fn subscribe(
        &self,
        caller: &ApiCaller,
        target: Option<Target>,
        subscription: ServerSubscription,
    ) -> Result<(), ApiError> {
        let ServerSubscription { channel, expire_at, grant, recover_since } = subscription;
        caller.view(&self.context.node.rules(), &channel)?;
        let now_s = self.context.clock.unix_ms() / 1000;
        if expire_at.is_some_and(|at| at <= now_s) {
            return Err(ErrorCode::Expired.into());
        }
        let grant = SubscriptionGrant { expire_at, ..grant };
        self.send(target, Order::Subscribe { channel, grant, recover_since });
        Ok(())
    }

    /// Ends a subscription, or all subscriptions if the channel is empty.
    pub(crate) fn unsubscribe(
        &self,
        caller: &ApiCaller,
        target: Option<Target>,
        channel: String,
    ) -> Result<(), ApiError> {
        match channel.is_empty() {
            true => caller.check_channel("")?,
            false => drop(caller.view(&self.context.node.rules(), &channel)?),
        }
        self.send(target, Order::Unsubscribe { channel });
        Ok(())
    }

    /// Closes connections; without an advice with `force disconnect` (3503).
    pub(crate) fn disconnect(&self, target: Option<Target>, advice: Option<Disconnect>) {
        let advice = advice.unwrap_or_else(|| DisconnectCode::ForceDisconnect.into());
        self.send(target, Order::Disconnect(advice));
    }

    pub(crate) fn refresh(&self, target: Option<Target>, refresh: SessionRefresh) {
        let SessionRefresh { info, expire_at, expired } = refresh;
        self.send(target, Order::Refresh { info, expire_at, expired });
    }

    fn send(&self, target: Option<Target>, order: Order) {
        if let Some(target) = target {
            let control = Arc::new(Control { target, order });
            self.context.members.service.send(NodeBusRequest::Control(control));
        }
    }
}
