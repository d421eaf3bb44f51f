//! What a client's messages and commands cost the buckets of its connection and of its user.
//!
//! Invariant: what is refused here has changed nothing but buckets. Every command costs a token of
//! `commands`, also when another bucket refuses it; a bucket that refuses gives nothing away.

use wire::protocol::{DisconnectCode, ErrorCode, ErrorReply, Request};

use super::{Refusal, Session};
use crate::rates::{Bucket, Limited};
use crate::turn::Turn;

/// A message of so many bytes has come.
pub(crate) fn message(
    session: &mut Session,
    turn: &mut Turn<'_>,
    bytes: usize,
) -> Result<(), Refusal> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    take(session, turn, Bucket::ConnectionBytes, bytes)
}

/// Whether a command costs nothing and is never refused: pongs answer the server, and whoever
/// leaves a channel gives back what it has paid for.
pub(crate) fn is_free(session: &Session, request: &Request) -> bool {
    match request {
        Request::Pong => true,
        Request::Unsubscribe { channel } => session.find(channel).is_some(),
        _ => false,
    }
}

/// A command is about to be handled.
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

/// A publication that is allowed is about to be made.
pub(crate) fn publish(
    session: &mut Session,
    turn: &mut Turn<'_>,
    channel: &str,
) -> Result<(), Refusal> {
    take(session, turn, Bucket::ConnectionPublishes, 1)?;
    new_channel(session, turn, channel)?;
    take_of_user(session, turn, Bucket::UserPublishes)
}

/// A subscription that may be had is about to begin, or its token to be verified.
pub(crate) fn subscribe(
    session: &mut Session,
    turn: &mut Turn<'_>,
    channel: &str,
) -> Result<(), Refusal> {
    take(session, turn, Bucket::ConnectionSubscribes, 1)?;
    new_channel(session, turn, channel)?;
    take_of_user(session, turn, Bucket::UserSubscribes)
}

/// Something is about to be asked of a channel's stream, which begins it where there is none.
pub(crate) fn history(
    session: &mut Session,
    turn: &mut Turn<'_>,
    channel: &str,
) -> Result<(), Refusal> {
    new_channel(session, turn, channel)
}

/// A user is about to be admitted.
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

/// Anonymous users are many, and not counted as one.
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

/// Counts the refusal. Whoever goes on after many of them floods.
fn refuse(session: &mut Session, turn: &mut Turn<'_>, limited: Limited) -> Refusal {
    turn.out.counters.limited[limited.bucket as usize] += 1;
    let (now_ms, bucket) = (turn.now.monotonic_ms, Bucket::ConnectionRefusals);
    if session.buckets.take(now_ms, &turn.rules.rates, bucket, 1).is_err() {
        turn.out.counters.limited[bucket as usize] += 1;
        return DisconnectCode::TooManyRequests.into();
    }
    Refusal::Limited(limited)
}

/// What a client is told; the form of the text is part of the protocol (docs/limits.md).
impl From<Limited> for ErrorReply {
    fn from(limited: Limited) -> ErrorReply {
        let code = ErrorCode::TooManyRequests;
        let message = format!("{}; retry after {} ms", code.message(), limited.retry_after_ms);
        ErrorReply { code: code.number(), message, temporary: code.is_temporary() }
    }
}
