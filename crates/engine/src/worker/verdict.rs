//! Verdicts on tokens, and how a session that waits for one continues.
//!
//! Invariant: a verdict is applied to the command that the session waits for, and to no other.

use wire::protocol::DisconnectCode;

use crate::claims::{ConnectionClaims, SubscriptionClaims, TokenRefusal};
use crate::refusal::Refusal;
use crate::session::{Session, Wait, connect, refresh, subscribe};
use crate::turn::Turn;

/// The result of [`crate::turn::Effect::Verify`].
#[derive(Debug)]
pub enum Verdict {
    /// Result for a connection token.
    Connection(Result<ConnectionClaims, TokenRefusal>),
    /// Result for a subscription token.
    Subscription(Result<SubscriptionClaims, TokenRefusal>),
    /// The token is valid, but the server closes the connection for another reason.
    Close(DisconnectCode),
}

/// Continues the command that waits for the verdict.
pub(super) fn apply(
    session: &mut Session,
    turn: &mut Turn<'_>,
    wait: Wait,
    verdict: Verdict,
) -> Result<(), Refusal> {
    match (wait, verdict) {
        (_, Verdict::Close(code)) => Err(code.into()),
        (Wait::ConnectToken { id, request }, Verdict::Connection(result)) => {
            connect::handle_verdict(session, turn, id, &request, result)
        }
        (Wait::SubscribeToken { id, request }, Verdict::Subscription(result)) => {
            subscribe::handle_verdict(session, turn, id, &request, result)
        }
        (Wait::RefreshToken { id }, Verdict::Connection(result)) => {
            refresh::handle_verdict(session, turn, id, result)
        }
        (Wait::SubRefreshToken { id, channel }, Verdict::Subscription(result)) => {
            refresh::handle_sub_verdict(session, turn, id, &channel, result)
        }
        (_, Verdict::Connection(_) | Verdict::Subscription(_)) => {
            unreachable!("a driver answers with the kind of verdict that was asked for")
        }
    }
}
