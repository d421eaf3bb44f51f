//! Commands that the broker answers: publish, presence, presence stats, history.

use std::sync::Arc;

use wire::protocol::{
    ClientInfo, ErrorCode, HistoryRequest, HistoryResult, PresenceStats, Publication,
    PublishRequest, Reply, ReplyBody, StreamPosition,
};

use super::waiting::Wait;
use super::{Phase, SentPart, Session, metering, skipped};
use crate::broker::{
    BrokerError, HistoryQuery, PresenceRequest, PublicationsRequest, PublishOptions, RequestId,
};
use crate::call::{PublishCall, PublishGrant, SessionCall};
use crate::channel::{self, ChannelView};
use crate::counters::CommandKind;
use crate::history::fitting_count;
use crate::limits::{
    PENDING_COMMANDS_MAX, PENDING_HEAVY_COMMANDS_MAX, PENDING_MAX, reply_bytes_max,
};
use crate::pending::PendingCommand;
use crate::refusal::Refusal;
use crate::rules::{Namespace, Rules};
use crate::turn::Turn;

/// Cost of a request whose reply has a few bytes.
const LIGHT: u16 = 1;

/// Cost of a request whose reply may be as large as a reply can be.
const HEAVY: u16 = PENDING_COMMANDS_MAX / PENDING_HEAVY_COMMANDS_MAX;

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
    if let (Some(proxy), Some(caller)) = (&namespace.publish_proxy, session.caller()) {
        let PublishRequest { channel, data, .. } = request.clone();
        let what = PublishCall { caller, proxy: proxy.clone(), channel, data };
        let wait = Wait::Publish { id, request: Box::new(request) };
        session.call(turn, wait, SessionCall::Publish(Box::new(what)));
        return Ok(());
    }
    publish_as(session, turn, id, request, PublishGrant::default())
}

/// Publishes what the rules or a backend have permitted.
pub(crate) fn publish_as(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    request: PublishRequest,
    grant: PublishGrant,
) -> Result<(), Refusal> {
    let namespace = view(session, turn.rules, &request.channel)?.namespace;
    if let Some(data) = &grant.data {
        // What a backend makes of it must not harm subscribers either.
        channel::check_data(namespace.publication_data_format, data)
            .map_err(|_| ErrorCode::Internal)?;
    }
    let subscribed = session.find(&request.channel).map(|index| &session.subscriptions[index]);
    let (channel, info) = match subscribed {
        Some(subscription) => (subscription.channel.clone(), Some(&subscription.info)),
        None => (request.channel.as_str().into(), session.info.as_ref()),
    };
    let publication = Publication {
        data: grant.data.unwrap_or(request.data),
        info: info.map(|info| (**info).clone()),
        tags: grant.tags,
        time: turn.now.unix_ms,
        ..Publication::default()
    };
    let options = match grant.skip_history {
        true => PublishOptions::default(),
        false => namespace.publish_options(),
    };
    let options = PublishOptions {
        idempotency_key: grant.idempotency_key,
        version: grant.version,
        version_epoch: grant.version_epoch,
        ..options
    };
    let request = ask(session, turn, id, LIGHT)?;
    turn.out.submit(PublicationsRequest::Publish { id: request, channel, publication, options });
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
    if namespace.publish_proxy.is_none() {
        channel::may_publish(rules, namespace, session.actor(&request.channel))?;
    }
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
    turn.out.submit(PresenceRequest::Clients { id, channel });
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
    turn.out.submit(PresenceRequest::Stats { id, channel });
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
    turn.out.submit(PublicationsRequest::History { id, channel, query, meta_ttl_ms });
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

/// The result of a command, for the client.
pub(crate) type CommandResult = Result<ReplyBody, ErrorCode>;

/// Converts the reply to the request of a publish command.
pub(crate) fn published(result: Result<StreamPosition, BrokerError>) -> CommandResult {
    result.map(|_| ReplyBody::Publish).map_err(code)
}

/// Converts the reply to the request of a presence command. Presence has no pages; if it is larger
/// than `queue_max` bytes, clients must use presence stats instead.
pub(crate) fn clients(
    result: Result<Vec<Arc<ClientInfo>>, BrokerError>,
    queue_max: usize,
) -> CommandResult {
    let clients = result.map_err(code)?;
    let weight: usize = clients.iter().map(|info| info.weight() + info.client.len()).sum();
    if weight > queue_max {
        return Err(ErrorCode::LimitExceeded);
    }
    let entry = |info: &Arc<ClientInfo>| (info.client.clone(), (**info).clone());
    Ok(ReplyBody::Presence(clients.iter().map(entry).collect()))
}

/// Converts the reply to the request of a presence stats command.
pub(crate) fn stats(result: Result<PresenceStats, BrokerError>) -> CommandResult {
    result.map(ReplyBody::PresenceStats).map_err(code)
}

/// Converts the reply to the request of a history command: the publications that fit into an outbox
/// of `queue_max` bytes.
pub(crate) fn publications(
    result: Result<HistoryResult, BrokerError>,
    queue_max: usize,
) -> CommandResult {
    let mut history = result.map_err(code)?;
    let most = reply_bytes_max(queue_max);
    history.publications.truncate(fitting_count(&history.publications, most));
    Ok(ReplyBody::History(history))
}

/// Sends the result of one of the commands above.
pub(crate) fn handle_result(
    session: &mut Session,
    turn: &mut Turn<'_>,
    PendingCommand { id, cost, .. }: PendingCommand,
    result: CommandResult,
) {
    session.questions = session.questions.saturating_sub(cost);
    if session.phase == Phase::Closed {
        return;
    }
    match result {
        Ok(body) => {
            if session.send_or_part(turn, &Reply { id, body }) == SentPart::InPart {
                skipped::notify(session, turn.out, &turn.rules.client, &"".into());
            }
        }
        Err(code) => session.reply_error(turn, id, code),
    }
    let has_room = session.questions <= PENDING_COMMANDS_MAX / 2;
    if let Some(waiting) = session.waiting_mut().filter(|one| has_room && one.awaits_answers()) {
        waiting.end_answers();
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

/// Submits a request. A session with too many requests in progress
/// handles no further commands.
fn ask<T>(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    cost: u16,
) -> Result<RequestId<T>, ErrorCode> {
    if turn.out.pending.len() >= PENDING_MAX {
        return Err(ErrorCode::TooManyRequests);
    }
    session.questions += cost;
    if session.questions >= PENDING_COMMANDS_MAX {
        session.await_answers();
    }
    Ok(turn.out.pending.expect_command(PendingCommand { session: session.key, id, cost }))
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
