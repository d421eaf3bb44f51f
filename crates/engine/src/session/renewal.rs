//! Expired connections and subscriptions about which the server asks a backend by itself: the
//! refresh and sub_refresh proxies (docs/backends.md).
//!
//! Invariant: while the backend is asked, nothing expires; what it does not renew ends as if its
//! client had not refreshed it.

use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{ClientInfo, DisconnectCode, ErrorCode, PushEvent, UnsubscribeCode};

use super::waiting::Wait;
use super::{Session, join, refresh};
use crate::call::{CallRefusal, Renewal, SessionCall, SubRefreshCall};
use crate::channel;
use crate::limits::RENEWAL_RETRY_SECONDS;
use crate::refusal::Refusal;
use crate::rules::Rules;
use crate::turn::Turn;

/// Asks whether the connection continues.
pub(crate) fn begin(session: &mut Session, turn: &mut Turn<'_>) {
    if let Some(caller) = session.caller() {
        session.call(turn, Wait::OwnRefresh, SessionCall::Refresh(caller));
    }
}

/// Applies the backend's answer about the connection.
pub(crate) fn handle_result(
    session: &mut Session,
    turn: &mut Turn<'_>,
    result: Result<Renewal, CallRefusal>,
) -> Result<(), Refusal> {
    let (expire_at, info, meta) = match renewed(turn, result)? {
        Renewal::Expired => return Err(DisconnectCode::Expired.into()),
        Renewal::Until { expire_at, info, meta } => (expire_at, info, meta),
    };
    session.expire_at = expire_at;
    refresh::set_info(session, &info);
    session.set_meta(meta);
    Ok(())
}

/// Returns the proxy that is asked about the channel's expired subscriptions; `None` if clients
/// refresh them.
pub(crate) fn proxy<'r>(rules: &'r Rules, channel: &str) -> Option<&'r Arc<str>> {
    channel::namespace(&rules.channels, channel).ok()?.sub_refresh_proxy.as_ref()
}

/// Asks whether a subscription continues.
pub(crate) fn begin_sub(
    session: &mut Session,
    turn: &mut Turn<'_>,
    channel: Arc<str>,
    proxy: Arc<str>,
) {
    if let Some(caller) = session.caller() {
        let wait = Wait::OwnSubRefresh { channel: channel.clone() };
        let what = SessionCall::SubRefresh(Box::new(SubRefreshCall { caller, proxy, channel }));
        session.call(turn, wait, what);
    }
}

/// Applies the backend's answer about a subscription.
pub(crate) fn handle_sub_result(
    session: &mut Session,
    turn: &mut Turn<'_>,
    channel: &str,
    result: Result<Renewal, CallRefusal>,
) -> Result<(), Refusal> {
    let renewal = renewed(turn, result)?;
    let Some(index) = session.find(channel) else {
        // The server API has ended it.
        return Ok(());
    };
    let subscription = &mut session.subscriptions[index];
    match renewal {
        Renewal::Until { expire_at, info, .. } => {
            subscription.expire_at = expire_at;
            set_chan_info(&mut subscription.info, info);
        }
        Renewal::Expired if subscription.traits.is_server_side => {
            return Err(DisconnectCode::SubscriptionExpired.into());
        }
        // The broker has yet to answer: it never became active.
        Renewal::Expired if subscription.joining.is_some() => {
            join::abort(session, turn, index, ErrorCode::Expired);
        }
        Renewal::Expired => {
            let channel = join::leave(session, turn, index);
            session.push(turn, channel, PushEvent::from(UnsubscribeCode::Expired));
        }
    }
    Ok(())
}

/// Replaces the `chan_info` that others see, unless it is empty or unchanged.
pub(crate) fn set_chan_info(info: &mut Arc<ClientInfo>, chan_info: Bytes) {
    if !chan_info.is_empty() && info.chan_info != chan_info {
        *info = Arc::new(ClientInfo { chan_info, ..(**info).clone() });
    }
}

/// The backend's decision. If it cannot decide, it is asked again after a while.
fn renewed(turn: &Turn<'_>, result: Result<Renewal, CallRefusal>) -> Result<Renewal, Refusal> {
    match result {
        Ok(Renewal::Until { expire_at: Some(at), .. }) if turn.now.seconds_until(at) <= 0 => {
            Ok(Renewal::Expired)
        }
        Ok(renewal) => Ok(renewal),
        Err(CallRefusal::Error(_)) => {
            let expire_at = Some(turn.now.unix_ms / 1000 + RENEWAL_RETRY_SECONDS);
            Ok(Renewal::Until { expire_at, info: Bytes::new(), meta: Bytes::new() })
        }
        Err(refusal) => Err(refusal.into()),
    }
}
