//! Charges messages and commands to the rate limits of the connection and its user.
//!
//! Invariant: a refused command has changed nothing but buckets. Every command takes a token of
//! `commands`, even if another bucket refuses it. A bucket that refuses loses no tokens.

use wire::protocol::{DisconnectCode, ErrorCode, ErrorReply, Request};

use super::Session;
use crate::rates::{Bucket, Limited};
use crate::refusal::Refusal;
use crate::turn::Turn;

/// Charges a message of this length.
pub(crate) fn message(
    session: &mut Session,
    turn: &mut Turn<'_>,
    bytes: usize,
) -> Result<(), Refusal> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    take(session, turn, Bucket::ConnectionBytes, bytes)
}

/// Returns whether a command is never charged: pongs, and unsubscribing from a channel that was
/// charged on subscribe.
pub(crate) fn is_free(session: &Session, request: &Request) -> bool {
    match request {
        Request::Pong => true,
        Request::Unsubscribe { channel } => session.find(channel).is_some(),
        _ => false,
    }
}

/// Charges a command that is about to be handled.
pub(crate) fn command(
    session: &mut Session,
    turn: &mut Turn<'_>,
    request: &Request,
) -> Result<(), Refusal> {
    if is_free(session, request) {
        return Ok(());
    }
    take(session, turn, Bucket::ConnectionCommands, 1)?;
    take_of_user(session, turn, Bucket::UserCommands)
}

/// Charges a permitted publication.
pub(crate) fn publish(
    session: &mut Session,
    turn: &mut Turn<'_>,
    channel: &str,
) -> Result<(), Refusal> {
    take(session, turn, Bucket::ConnectionPublishes, 1)?;
    new_channel(session, turn, channel)?;
    take_of_user(session, turn, Bucket::UserPublishes)
}

/// Charges a permitted subscription, before its token is verified.
pub(crate) fn subscribe(
    session: &mut Session,
    turn: &mut Turn<'_>,
    channel: &str,
) -> Result<(), Refusal> {
    take(session, turn, Bucket::ConnectionSubscribes, 1)?;
    new_channel(session, turn, channel)?;
    take_of_user(session, turn, Bucket::UserSubscribes)
}

/// Charges a read of a channel's stream, because a read creates the stream.
pub(crate) fn history(
    session: &mut Session,
    turn: &mut Turn<'_>,
    channel: &str,
) -> Result<(), Refusal> {
    new_channel(session, turn, channel)
}

/// Charges the admission of a user.
pub(crate) fn connect(
    session: &mut Session,
    turn: &mut Turn<'_>,
    user: &str,
) -> Result<(), Refusal> {
    take_for(session, turn, Bucket::UserConnects, user)
}

fn new_channel(session: &mut Session, turn: &mut Turn<'_>, channel: &str) -> Result<(), Refusal> {
    let bucket = Bucket::ConnectionNewChannels;
    if turn.rules.rates.of(bucket).is_none()
        || turn.hub.find(channel).is_some()
        || turn.recent.has(channel)
    {
        return Ok(());
    }
    take(session, turn, bucket, 1)?;
    turn.recent.add(channel);
    Ok(())
}

fn take(
    session: &mut Session,
    turn: &mut Turn<'_>,
    bucket: Bucket,
    tokens: u32,
) -> Result<(), Refusal> {
    let now_ms = turn.now.monotonic_ms;
    let taken = session.buckets.take(now_ms, &turn.rules.rates, bucket, tokens);
    taken.map_err(|limited| refuse(session, turn, limited))
}

fn take_of_user(session: &mut Session, turn: &mut Turn<'_>, bucket: Bucket) -> Result<(), Refusal> {
    match &session.info {
        Some(info) if turn.rules.rates.of(bucket).is_some() => {
            let info = info.clone();
            take_for(session, turn, bucket, &info.user)
        }
        _ => Ok(()),
    }
}

/// Anonymous users are many clients and share no bucket.
fn take_for(
    session: &mut Session,
    turn: &mut Turn<'_>,
    bucket: Bucket,
    user: &str,
) -> Result<(), Refusal> {
    let (Some(rate), Some(shared)) = (turn.rules.rates.of(bucket), turn.shared) else {
        return Ok(());
    };
    if user.is_empty() {
        return Ok(());
    }
    let taken = shared.take(turn.now.monotonic_ms, rate, bucket, user.as_bytes());
    taken.map_err(|limited| refuse(session, turn, limited))
}

/// Counts a refusal. Too many of them close the connection as a flood.
fn refuse(session: &mut Session, turn: &mut Turn<'_>, limited: Limited) -> Refusal {
    turn.out.counters.limited[limited.bucket as usize] += 1;
    let (now_ms, bucket) = (turn.now.monotonic_ms, Bucket::ConnectionRefusals);
    if session.buckets.take(now_ms, &turn.rules.rates, bucket, 1).is_err() {
        turn.out.counters.limited[bucket as usize] += 1;
        return DisconnectCode::TooManyRequests.into();
    }
    Refusal::Limited(limited)
}

/// The error sent to the client; the text's format is part of the protocol (docs/limits.md).
impl From<Limited> for ErrorReply {
    fn from(limited: Limited) -> ErrorReply {
        let code = ErrorCode::TooManyRequests;
        let message = format!("{}; retry after {} ms", code.message(), limited.retry_after_ms);
        ErrorReply { code: code.number(), message, temporary: code.is_temporary() }
    }
}
