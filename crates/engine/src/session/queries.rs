//! Commands that the broker answers: publish, presence, presence stats, history (§1.11).

use std::sync::Arc;

use wire::protocol::{ErrorCode, HistoryRequest, Publication, PublishRequest, Reply, ReplyBody};

use super::{Phase, SentPart, Session, Wait, metering, skipped};
use crate::broker::{
    BrokerError, BrokerReply, BrokerRequest, HistoryQuery, PublishOptions, RequestId,
};
use crate::channel::{self, ChannelView};
use crate::counters::CommandKind;
use crate::history::fitting_count;
use crate::limits::{HEAVY_QUESTIONS_MAX, PENDING_MAX, QUESTIONS_MAX, reply_bytes_max};
use crate::refusal::Refusal;
use crate::rules::{Namespace, Rules};
use crate::turn::{PendingCommand, PendingQuestion, Turn};

/// Cost of a request whose reply has a few bytes.
const LIGHT: u16 = 1;

/// Cost of a request whose reply may be as large as a reply can be.
const HEAVY: u16 = QUESTIONS_MAX / HEAVY_QUESTIONS_MAX;

/// Handles the publish command.
pub(crate) fn publish(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    request: PublishRequest,
) -> Result<(), Refusal> {
    let namespace = may_publish(session, turn, &request).map_err(|code| {
        turn.out.note(session.key, CommandKind::Publish, &request.channel, code.into())
    })?;
    metering::publish(session, turn, &request.channel).map_err(|refusal| {
        turn.out.note(session.key, CommandKind::Publish, &request.channel, refusal)
    })?;
    let subscribed = session.find(&request.channel).map(|index| &session.subscriptions[index]);
    let (channel, info) = match subscribed {
        Some(subscription) => (subscription.channel.clone(), Some(&subscription.info)),
        None => (request.channel.as_str().into(), session.info.as_ref()),
    };
    let publication = Publication {
        data: request.data,
        info: info.map(|info| (**info).clone()),
        time: turn.now.unix_ms,
        ..Publication::default()
    };
    let options = namespace.publish_options();
    let request = ask(session, turn, id, LIGHT)?;
    turn.out.submit(BrokerRequest::Publish { id: request, channel, publication, options });
    Ok(())
}

fn may_publish<'r>(
    session: &Session,
    turn: &Turn<'r>,
    request: &PublishRequest,
) -> Result<&'r Namespace, ErrorCode> {
    let rules = turn.rules;
    let namespace = view(session, rules, &request.channel)?.namespace;
    if request.kind != 0 {
        return Err(ErrorCode::NotAvailable);
    }
    channel::check_data(namespace.publication_data_format, &request.data)?;
    channel::may_publish(rules, namespace, session.actor(&request.channel))?;
    Ok(namespace)
}

/// Handles the presence command.
pub(crate) fn presence(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    channel: &str,
) -> Result<(), Refusal> {
    may_read_presence(session, turn, channel)
        .map_err(|code| turn.out.note(session.key, CommandKind::Presence, channel, code.into()))?;
    let (id, channel) = (ask(session, turn, id, HEAVY)?, channel.into());
    turn.out.submit(BrokerRequest::Presence { id, channel });
    Ok(())
}

/// Handles the presence stats command.
pub(crate) fn presence_stats(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    channel: &str,
) -> Result<(), Refusal> {
    may_read_presence(session, turn, channel).map_err(|code| {
        turn.out.note(session.key, CommandKind::PresenceStats, channel, code.into())
    })?;
    let (id, channel) = (ask(session, turn, id, LIGHT)?, channel.into());
    turn.out.submit(BrokerRequest::PresenceStats { id, channel });
    Ok(())
}

fn may_read_presence(session: &Session, turn: &Turn<'_>, channel: &str) -> Result<(), ErrorCode> {
    let view = view(session, turn.rules, channel)?;
    channel::may_read_presence(turn.rules, view.namespace, session.actor(channel))?;
    channel::may_read_personal(turn.rules, &view, session.actor(channel))
}

/// Parses a channel name of a client. The name of an active subscription is accepted whatever its
/// form, because the server may have chosen it.
fn view<'r, 'n>(
    session: &Session,
    rules: &'r Rules,
    name: &'n str,
) -> Result<ChannelView<'r, 'n>, ErrorCode> {
    match session.find(name) {
        Some(_) => channel::server_view(&rules.channels, name),
        None => channel::view(&rules.channels, name),
    }
}

/// Handles the history command.
pub(crate) fn history(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    request: HistoryRequest,
) -> Result<(), Refusal> {
    let rules = turn.rules;
    let namespace = may_read_history(session, turn, &request.channel).map_err(|code| {
        turn.out.note(session.key, CommandKind::History, &request.channel, code.into())
    })?;
    if request.reverse && request.since.as_ref().is_some_and(|since| since.offset == 0) {
        return Err(ErrorCode::BadRequest.into());
    }
    metering::history(session, turn, &request.channel)?;
    let most = rules.client.history_max_publication_limit;
    let query = HistoryQuery {
        // A negative limit requests all publications.
        limit: Some(u32::try_from(request.limit).map_or(most, |limit| limit.min(most))),
        since: request.since,
        reverse: request.reverse,
        bytes_max: Some(reply_bytes_max(rules.client.queue_max_size)),
    };
    let meta_ttl_ms = namespace.history_meta_ttl_ms;
    let (id, channel) = (ask(session, turn, id, HEAVY)?, request.channel.into());
    turn.out.submit(BrokerRequest::History { id, channel, query, meta_ttl_ms });
    Ok(())
}

fn may_read_history<'r>(
    session: &Session,
    turn: &Turn<'r>,
    channel: &str,
) -> Result<&'r Namespace, ErrorCode> {
    let view = view(session, turn.rules, channel)?;
    channel::may_read_history(turn.rules, view.namespace, session.actor(channel))?;
    channel::may_read_personal(turn.rules, &view, session.actor(channel))?;
    Ok(view.namespace)
}

/// Handles the broker's reply to one of the commands above.
pub(crate) fn handle_answer(
    session: &mut Session,
    turn: &mut Turn<'_>,
    PendingCommand { id, cost }: PendingCommand,
    result: Result<BrokerReply, BrokerError>,
) {
    session.questions = session.questions.saturating_sub(cost);
    if session.phase == Phase::Closed {
        return;
    }
    send_answer(session, turn, id, result);
    let waits_for_answers = matches!(session.wait_mut(), Some(Wait::Answers));
    if waits_for_answers
        && session.questions <= QUESTIONS_MAX / 2
        && let Some((_, backlog)) = session.unblock()
    {
        session.resume(turn, backlog);
    }
}

fn send_answer(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    result: Result<BrokerReply, BrokerError>,
) {
    let body = match result {
        Ok(BrokerReply::Published(_)) => ReplyBody::Publish,
        Ok(BrokerReply::Presence(clients)) => {
            let weight: usize = clients.iter().map(|info| info.weight() + info.client.len()).sum();
            if weight > turn.rules.client.queue_max_size {
                // Presence has no pages; presence stats return the counts instead.
                return session.reply_error(turn, id, ErrorCode::LimitExceeded);
            }
            let entry =
                |info: &Arc<wire::protocol::ClientInfo>| (info.client.clone(), (**info).clone());
            ReplyBody::Presence(clients.iter().map(entry).collect())
        }
        Ok(BrokerReply::PresenceStats(stats)) => ReplyBody::PresenceStats(stats),
        Ok(BrokerReply::History(mut history)) => {
            let most = reply_bytes_max(turn.rules.client.queue_max_size);
            history.publications.truncate(fitting_count(&history.publications, most));
            ReplyBody::History(history)
        }
        // Replies to requests that sessions do not submit.
        Ok(
            BrokerReply::Subscribed(_)
            | BrokerReply::HistoryRemoved
            | BrokerReply::ChannelTtl(_)
            | BrokerReply::Survey(_)
            | BrokerReply::Revoked(_)
            | BrokerReply::Revocation(_)
            | BrokerReply::Revocations(_),
        ) => return,
        Err(error) => return session.reply_error(turn, id, code(error)),
    };
    if session.send_or_part(turn, &Reply { id, body }) == SentPart::InPart {
        skipped::notify(session, turn.out, &turn.rules.client, &"".into());
    }
}

/// Returns the error that a client receives for a broker's error.
#[must_use]
pub fn code(error: BrokerError) -> ErrorCode {
    match error {
        BrokerError::Unavailable => ErrorCode::Internal,
        BrokerError::Overloaded | BrokerError::Full => ErrorCode::TooManyRequests,
        BrokerError::UnrecoverablePosition => ErrorCode::UnrecoverablePosition,
        BrokerError::NameTooLong | BrokerError::TooLarge => ErrorCode::BadRequest,
        BrokerError::NotSupported => ErrorCode::NotAvailable,
    }
}

/// Submits a request. A session with too many requests in progress is blocked.
fn ask(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    cost: u16,
) -> Result<RequestId, ErrorCode> {
    if turn.out.pending.len() >= PENDING_MAX {
        return Err(ErrorCode::TooManyRequests);
    }
    session.questions += cost;
    if session.questions >= QUESTIONS_MAX {
        session.block(Wait::Answers);
    }
    Ok(turn.out.expect(session.key, PendingQuestion::Command(PendingCommand { id, cost })))
}

impl Namespace {
    /// Options for publications in this namespace.
    #[must_use]
    pub fn publish_options(&self) -> PublishOptions {
        if !self.has_history() {
            return PublishOptions::default();
        }
        PublishOptions {
            history_size: self.history_size,
            history_ttl_ms: self.history_ttl_ms,
            history_meta_ttl_ms: self.history_meta_ttl_ms,
            ..PublishOptions::default()
        }
    }
}
