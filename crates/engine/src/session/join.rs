//! A subscription from its request until it is active, and its end.
//!
//! Steps: add a subscriber to the hub, so that publications are held here; request the broker to
//! subscribe and read the stream; add the client to presence, so that the next command finds it; on
//! the broker's reply, send the reply; release the held publications; announce the join.
//!
//! Invariant: the reply precedes every publication of the subscription. No publication is missing
//! between the position in the reply and the first publication that follows, or the client is
//! notified of a gap.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{
    ClientInfo, DisconnectCode, ErrorCode, Publication, PushEvent, Reply, ReplyBody,
    StreamPosition, SubscribeRequest, SubscribeResult, UnsubscribeCode,
};

use super::{
    SentPart, Session, Subscription, SubscriptionTraits, connect, queries, renewal, skipped,
};
use crate::broker::{
    BrokerError, JoinRead, JoinedStream, Membership, PresenceRequest, PublicationsRequest,
    RequestId,
};
use crate::budget::Budget;
use crate::capacity::{Kept, shrink_vec};
use crate::channel::{self, Actor};
use crate::checks::CheckDelay;
use crate::claims::SubscriptionGrant;
use crate::hub::SubscriberKey;
use crate::limits::{FRAME_COST, reply_bytes_max};
use crate::pending::PendingRead;
use crate::recovery::{self, RecoveredStream, Recovery};
use crate::rules::{Namespace, RecoveryMode, Rules};
use crate::session_event::SessionChange;
use crate::subscribers::SubscriberPhase;
use crate::turn::{Effect, Outputs, SessionNotice, Turn};

/// A subscription with all decisions made before it begins.
#[derive(Debug)]
pub(crate) struct JoinPlan {
    pub(crate) channel: String,
    pub(crate) origin: JoinOrigin,
    pub(crate) traits: SubscriptionTraits,
    pub(crate) expire_at: Option<i64>,
    recovery: Recovery,
    /// Whether the client requests recovery, permitted or not.
    asks_to_recover: bool,
    recovery_limit: u32,
    recovery_bytes: usize,
    meta_ttl_ms: u64,
    /// Milliseconds after which the channel expires; 0 never expires.
    channel_ttl_ms: u64,
    rejects_unrecovered: bool,
    chan_info: Bytes,
    data: Bytes,
}

/// A requested subscription: what a command, a token or the server API asks for.
#[derive(Debug)]
pub(crate) struct JoinRequest<'r> {
    pub(crate) channel: &'r str,
    /// The client's options; `None` if no client requests it.
    pub(crate) wish: Option<&'r SubscribeRequest>,
    pub(crate) grant: SubscriptionGrant,
}

/// What started the subscription, and so receives the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinOrigin {
    /// A subscribe command with this id.
    Command(u32),
    /// The connect command; its reply contains the subscription.
    Connect,
    /// The server API.
    Order,
}

/// State of a subscription until it is active.
#[derive(Debug)]
pub(crate) struct Joining {
    origin: JoinOrigin,
    /// The request to the broker whose reply counts; `None` if no request was needed.
    request: Option<RequestId<JoinedStream>>,
    recovery: Recovery,
    asks_to_recover: bool,
    rejects_unrecovered: bool,
    pub(crate) data: Bytes,
    held: VecDeque<Held>,
    /// Bytes that the held publications will add to the outbox.
    held_weight: usize,
    /// Whether publications were dropped because too many were held. The client is notified of a
    /// gap.
    has_overflown: bool,
    /// Position in the reply; `None` until the stream was read.
    answered: Option<Answered>,
}

/// The position that the client holds once it has read the reply.
#[derive(Clone, Debug)]
struct Answered {
    last: u64,
    epoch: String,
}

#[derive(Debug)]
struct Held {
    publication: Arc<Publication>,
    epoch: Arc<str>,
}

/// Bit of the subscribe flag that requests an error instead of `recovered: false`.
const FLAG_REJECT_UNRECOVERED: i64 = 2;

impl JoinPlan {
    /// Combines the namespace's options, the grant and the client's request.
    pub(crate) fn new(
        rules: &Rules,
        namespace: &Namespace,
        actor: Actor<'_>,
        request: JoinRequest<'_>,
    ) -> JoinPlan {
        let JoinRequest { channel, wish, grant } = request;
        let actor = Actor { is_subscriber: true, ..actor };
        let may_history = channel::may_read_history(rules, namespace, actor).is_ok();
        let may_receive_membership = channel::may_receive_membership(rules, namespace, actor);
        let asked = |field: fn(&SubscribeRequest) -> bool| wish.is_some_and(field);
        let overrides = grant.overrides;
        let is_recoverable = namespace.has_history()
            && (overrides.force_recovery.unwrap_or(namespace.force_recovery)
                || (asked(|wish| wish.recoverable) && (namespace.allow_recovery || may_history)));
        let is_positioned = is_recoverable
            || (namespace.has_history()
                && (overrides.force_positioning.unwrap_or(namespace.force_positioning)
                    || (asked(|wish| wish.positioned)
                        && (namespace.allow_positioning || may_history))));
        let announces = overrides.join_leave.unwrap_or(namespace.join_leave);
        let forced = overrides.force_push_join_leave.unwrap_or(namespace.force_push_join_leave);
        let recovery = match wish.filter(|_| is_recoverable) {
            Some(wish) if wish.recover => {
                let since = StreamPosition { offset: wish.offset, epoch: wish.epoch.clone() };
                match namespace.recovery_mode {
                    RecoveryMode::Stream => Recovery::Stream(since),
                    RecoveryMode::Cache => Recovery::Cache(since),
                }
            }
            _ if is_recoverable && namespace.auto_cache_recover => {
                Recovery::Cache(StreamPosition::default())
            }
            _ => Recovery::None,
        };
        JoinPlan {
            channel: channel.to_owned(),
            origin: JoinOrigin::Order,
            traits: SubscriptionTraits {
                is_server_side: false,
                is_of_token: false,
                is_positioned,
                is_recoverable,
                is_present: overrides.presence.unwrap_or(namespace.presence),
                is_announced: announces,
                wants_membership: announces
                    && (forced || (asked(|wish| wish.join_leave) && may_receive_membership)),
                was_notified_of_skip: false,
            },
            expire_at: None,
            recovery,
            asks_to_recover: asked(|wish| wish.recover),
            recovery_limit: rules.client.recovery_max_publication_limit,
            recovery_bytes: reply_bytes_max(rules.client.queue_max_size),
            meta_ttl_ms: namespace.history_meta_ttl_ms,
            channel_ttl_ms: namespace.channel_ttl_ms,
            rejects_unrecovered: wish.is_some_and(|wish| wish.flag & FLAG_REJECT_UNRECOVERED != 0),
            chan_info: grant.info,
            data: grant.data,
        }
    }

    fn read(&self) -> JoinRead {
        let meta_ttl_ms = self.meta_ttl_ms;
        match &self.recovery {
            _ if !self.traits.is_positioned => JoinRead::Nothing,
            Recovery::None => JoinRead::Position { meta_ttl_ms },
            Recovery::Cache(_) => JoinRead::Newest { meta_ttl_ms },
            Recovery::Stream(since) => {
                let (since, limit) = (since.clone(), self.recovery_limit);
                JoinRead::Since { since, limit, bytes_max: Some(self.recovery_bytes), meta_ttl_ms }
            }
        }
    }
}

/// Starts a subscription. The caller has checked permissions and limits.
pub(crate) fn begin(session: &mut Session, turn: &mut Turn<'_>, plan: JoinPlan) {
    let Some(session_info) = &session.info else {
        return;
    };
    let info = if plan.chan_info.is_empty() {
        session_info.clone()
    } else {
        Arc::new(ClientInfo { chan_info: plan.chan_info.clone(), ..(**session_info).clone() })
    };
    let subscriber_key = turn.hub.enter(&plan.channel, session.key.slot);
    let channel = turn.hub.channel(subscriber_key);
    let (name, is_subscribed) = (channel.name.clone(), channel.is_subscribed);
    let read = plan.read();
    let request = (!is_subscribed || read != JoinRead::Nothing)
        .then(|| turn.out.pending.expect_read(PendingRead::Join(session.key)));
    if !is_subscribed && plan.channel_ttl_ms > 0 {
        // Before the read, so that the read finds nothing of an expired channel.
        let (channel, ttl_ms) = (name.clone(), plan.channel_ttl_ms);
        turn.out.submit(PublicationsRequest::LimitTtl { channel, ttl_ms });
    }
    if let Some(id) = request {
        let channel = name.clone();
        turn.out.submit(PublicationsRequest::Subscribe { id, channel, read });
    }
    if !is_subscribed && plan.channel_ttl_ms > 0 {
        // And after it, so that this worker is notified of the expiry even if the channel has just
        // expired.
        let (channel, ttl_ms) = (name.clone(), plan.channel_ttl_ms);
        turn.out.submit(PublicationsRequest::LimitTtl { channel, ttl_ms });
    }
    if plan.traits.is_present {
        let (channel, info) = (name.clone(), info.clone());
        let announces = plan.traits.is_announced;
        turn.out.submit(PresenceRequest::Add { channel, info, announces });
    }
    session.subscriptions.reserve_exact(1);
    session.subscriptions.push(Subscription {
        channel: name,
        subscriber_key,
        info,
        expire_at: plan.expire_at,
        traits: plan.traits,
        joining: Some(Box::new(Joining {
            origin: plan.origin,
            request,
            recovery: plan.recovery,
            asks_to_recover: plan.asks_to_recover,
            rejects_unrecovered: plan.rejects_unrecovered,
            data: plan.data,
            held: VecDeque::new(),
            held_weight: 0,
            has_overflown: false,
            answered: None,
        })),
    });
    if request.is_none() {
        handle_read(session, turn, request, Ok(JoinedStream::default()));
    }
}

/// Applies the broker's reply to the subscribe request.
pub(crate) fn handle_read(
    session: &mut Session,
    turn: &mut Turn<'_>,
    request: Option<RequestId<JoinedStream>>,
    result: Result<JoinedStream, BrokerError>,
) {
    let is_waiting = |subscription: &Subscription| {
        let joining = subscription.joining.as_ref();
        joining.is_some_and(|joining| joining.answered.is_none() && joining.request == request)
    };
    let Some(index) = session.subscriptions.iter().position(is_waiting) else {
        return;
    };
    let stream = match result {
        Ok(stream) => stream,
        Err(error) => return abort(session, turn, index, queries::code(error)),
    };
    let subscription = &mut session.subscriptions[index];
    let (subscriber_key, traits) = (subscription.subscriber_key, subscription.traits);
    let Some(joining) = &mut subscription.joining else {
        return;
    };
    let top = stream.top.clone();
    let recovery = std::mem::replace(&mut joining.recovery, Recovery::None);
    // In a connect reply, one subscription must not fail the connection. In cache mode a recovery
    // is never complete.
    let may_reject =
        matches!(recovery, Recovery::Stream(_)) && joining.origin != JoinOrigin::Connect;
    let rejects = joining.rejects_unrecovered && may_reject;
    let (origin, asked) = (joining.origin, joining.asks_to_recover);
    let mut outcome = recovery::decide(recovery, stream);
    if !has_room(session, turn.rules, origin, &outcome.publications) {
        outcome = outcome.refused();
    }
    if outcome.was_recovering {
        let counters = &mut turn.out.counters;
        counters.recoveries_whole += u64::from(outcome.recovered);
        counters.recoveries_refused += u64::from(!outcome.recovered);
        counters.recovered_publications += outcome.publications.len() as u64;
    }
    if outcome.was_recovering && !outcome.recovered && rejects {
        return abort(session, turn, index, ErrorCode::UnrecoverablePosition);
    }
    outcome.was_recovering |= asked;
    let answered = Answered { last: outcome.last, epoch: top.epoch.clone() };
    if let Some(joining) = &mut session.subscriptions[index].joining {
        joining.answered = Some(answered);
    }
    if traits.is_positioned {
        let gaps = &mut turn.out.gaps;
        let channel = turn.hub.channel_mut(subscriber_key);
        channel.handle_position(turn.now.monotonic_ms, subscriber_key.channel, &top, gaps);
    }
    turn.hub.channel_mut(subscriber_key).is_subscribed = true;
    answer(session, turn, index, outcome, top);
}

/// Takes room for these publications in their reply. Returns `false` if they do not fit. All
/// recoveries of a connect reply share one budget.
fn has_room(
    session: &mut Session,
    rules: &Rules,
    origin: JoinOrigin,
    publications: &[Arc<Publication>],
) -> bool {
    match (origin, session.waiting_mut().and_then(|waiting| waiting.joins_mut())) {
        (JoinOrigin::Connect, Some(joins)) => joins.budget.take(publications),
        _ => Budget::new(reply_bytes_max(rules.client.queue_max_size)).take(publications),
    }
}

fn answer(
    session: &mut Session,
    turn: &mut Turn<'_>,
    index: usize,
    outcome: RecoveredStream,
    top: StreamPosition,
) {
    let subscription = &mut session.subscriptions[index];
    let (channel, traits) = (subscription.channel.clone(), subscription.traits);
    let Some(joining) = &mut subscription.joining else {
        return;
    };
    let (origin, data) = (joining.origin, std::mem::take(&mut joining.data));
    let position = if traits.is_positioned {
        StreamPosition { offset: outcome.offset, epoch: top.epoch }
    } else {
        StreamPosition::default()
    };
    // What the server refreshes does not expire for the client.
    let expire_at =
        subscription.expire_at.filter(|_| renewal::proxy(turn.rules, &channel).is_none());
    let result = SubscribeResult {
        expires: expire_at.is_some(),
        ttl: expire_at.map_or(0, |at| connect::ttl(turn.now, at)),
        recoverable: traits.is_recoverable,
        epoch: position.epoch,
        publications: outcome.publications,
        recovered: outcome.recovered,
        offset: position.offset,
        positioned: traits.is_positioned,
        data,
        was_recovering: outcome.was_recovering,
    };
    match origin {
        JoinOrigin::Command(id) => {
            let body = ReplyBody::Subscribe(Box::new(result));
            if session.send_or_part(turn, &Reply { id, body }) == SentPart::InPart {
                skipped::notify(session, turn.out, &turn.rules.client, &channel);
            }
            release(session, turn, index);
        }
        // Released with all others after the connect reply.
        JoinOrigin::Connect => connect::handle_joined(session, turn, &channel, result),
        JoinOrigin::Order => {
            let event = PushEvent::Subscribe {
                recoverable: result.recoverable,
                positioned: result.positioned,
                position: StreamPosition { offset: result.offset, epoch: result.epoch },
                data: result.data,
            };
            session.push(turn, channel.clone(), event);
            for publication in result.publications {
                session.push(turn, channel.clone(), PushEvent::Publication(publication));
            }
            release(session, turn, index);
        }
    }
}

/// Releases the held publications after the reply, and activates the subscription.
pub(crate) fn release(session: &mut Session, turn: &mut Turn<'_>, index: usize) {
    let subscription = &mut session.subscriptions[index];
    let Some(joining) = subscription.joining.take_if(|joining| joining.answered.is_some()) else {
        return;
    };
    let Some(Answered { mut last, epoch }) = joining.answered else {
        return;
    };
    let (channel, subscriber_key) = (subscription.channel.clone(), subscription.subscriber_key);
    let (traits, info) = (subscription.traits, subscription.info.clone());
    turn.out.counters.subscriptions_joined += 1;
    let subject = (&info, turn.now.unix_ms);
    let what = || SessionChange::Subscribed(channel.clone());
    turn.out.report_subscription(&turn.rules.client, subject, what);
    let mut has_gap = joining.has_overflown;
    // The stream may have changed its epoch while the connect reply waited for other channels.
    has_gap |= traits.is_positioned && *turn.hub.channel(subscriber_key).epoch != *epoch;
    for held in joining.held {
        let offset = held.publication.offset;
        if traits.is_positioned && offset > 0 {
            has_gap |= *held.epoch != *epoch || offset > last + 1;
            if has_gap || offset <= last {
                continue;
            }
            last = offset;
        }
        session.push(turn, channel.clone(), PushEvent::Publication(held.publication));
    }
    if traits.is_positioned {
        let delay_ms = turn.rules.client.position_check_delay_ms;
        let delay = CheckDelay { delay_ms, random: &mut *turn.random };
        let channel = turn.hub.channel_mut(subscriber_key);
        turn.checks.watch(turn.now.monotonic_ms, subscriber_key.channel, channel, delay);
    }
    let subscriber = turn.hub.subscriber_mut(subscriber_key);
    subscriber.phase = SubscriberPhase::Live;
    subscriber.is_positioned = traits.is_positioned;
    subscriber.wants_membership = traits.wants_membership;
    subscriber.offset = last;
    if traits.is_announced {
        let change = Membership::Join;
        let channel = channel.clone();
        turn.out.submit(PublicationsRequest::Announce { channel, info, change });
    }
    if has_gap && !wants_to_leave(session, &channel) {
        turn.out.gaps.push((session.key.slot, subscriber_key));
    }
    leave_if_wanted(session, turn, &channel);
}

/// Holds a publication that arrived before the reply. All subscriptions of a session together hold
/// no more than the outbox's bound, because a connect reply releases them all at once.
pub(crate) fn hold(
    session: &mut Session,
    subscriber_key: SubscriberKey,
    publication: &Arc<Publication>,
    (epoch, queue_max_size): (&Arc<str>, usize),
) {
    let joining = session.subscriptions.iter().filter_map(|one| one.joining.as_ref());
    let held: usize = joining.map(|joining| joining.held_weight).sum();
    let Some(index) = session.find_subscription(subscriber_key) else { return };
    let Some(joining) = &mut session.subscriptions[index].joining else {
        return;
    };
    let weight = publication.weight() + FRAME_COST;
    if held + weight > queue_max_size || joining.has_overflown {
        joining.has_overflown = true;
        (joining.held, joining.held_weight) = (VecDeque::new(), 0);
    } else {
        joining.held_weight += weight;
        joining.held.push_back(Held { publication: publication.clone(), epoch: epoch.clone() });
    }
}

fn wants_to_leave(session: &Session, channel: &str) -> bool {
    session.waiting().is_some_and(|waiting| waiting.leaves(channel))
}

/// Ends the subscription if an unsubscribe command waits for it.
fn leave_if_wanted(session: &mut Session, turn: &mut Turn<'_>, channel: &str) {
    let Some(id) = session.waiting_mut().and_then(|waiting| waiting.end_leave(channel)) else {
        return;
    };
    if let Some(index) = session.find(channel) {
        leave(session, turn, index);
    }
    session.reply(turn, id, ReplyBody::Unsubscribe);
}

/// Ends a subscription that did not become active.
pub(crate) fn abort(session: &mut Session, turn: &mut Turn<'_>, index: usize, code: ErrorCode) {
    let subscription = &mut session.subscriptions[index];
    let Some(joining) = &subscription.joining else {
        return;
    };
    let origin = joining.origin;
    let channel = leave(session, turn, index);
    match origin {
        JoinOrigin::Command(id) => session.reply_error(turn, id, code),
        JoinOrigin::Connect => connect::handle_join_failed(session, turn, code),
        JoinOrigin::Order => {}
    }
    leave_if_wanted(session, turn, &channel);
}

/// The messages to other clients about a subscription that has ended.
#[derive(Debug)]
pub(crate) struct LeaveMessages {
    channel: Arc<str>,
    info: Arc<ClientInfo>,
    was_present: bool,
    was_announced: bool,
}

impl LeaveMessages {
    /// Returns whether there is a message to send.
    pub(crate) fn matters(&self) -> bool {
        self.was_present || self.was_announced
    }

    /// Sends the messages.
    pub(crate) fn publish(self, out: &mut Outputs) {
        let LeaveMessages { channel, info, was_present, was_announced } = self;
        if was_present {
            let (channel, client) = (channel.clone(), info.clone());
            out.submit(PresenceRequest::Remove { channel, client });
        }
        if was_announced {
            let change = Membership::Leave;
            out.submit(PublicationsRequest::Announce { channel, info, change });
        }
    }
}

/// Ends a subscription, announces the leave and returns the channel's name.
pub(crate) fn leave(session: &mut Session, turn: &mut Turn<'_>, index: usize) -> Arc<str> {
    let leave = end_subscription(session, turn, index);
    let channel = leave.channel.clone();
    leave.publish(turn.out);
    channel
}

/// Ends a subscription. The caller publishes the returned messages.
pub(crate) fn end_subscription(
    session: &mut Session,
    turn: &mut Turn<'_>,
    index: usize,
) -> LeaveMessages {
    let subscription = session.subscriptions.swap_remove(index);
    if session.subscriptions.is_empty() {
        session.subscriptions = Vec::new();
    }
    shrink_vec(&mut session.subscriptions, Kept::OfMany);
    let (channel, key) = (subscription.channel, subscription.subscriber_key);
    if subscription.joining.is_none() {
        let subject = (&subscription.info, turn.now.unix_ms);
        let what = || SessionChange::Unsubscribed(channel.clone());
        turn.out.report_subscription(&turn.rules.client, subject, what);
    }
    // The key may be reused; a pending gap must not reach the new subscriber.
    turn.out.gaps.retain(|(_, gap)| *gap != key);
    if let Some(channel) = turn.hub.leave(key) {
        turn.out.submit(PublicationsRequest::Unsubscribe { channel });
    }
    LeaveMessages {
        channel,
        info: subscription.info,
        was_present: subscription.traits.is_present,
        was_announced: subscription.traits.is_announced && subscription.joining.is_none(),
    }
}

/// Ends a subscription to an expired channel.
pub(crate) fn handle_expired(session: &mut Session, turn: &mut Turn<'_>, index: usize) {
    if session.subscriptions[index].joining.is_some() {
        return abort(session, turn, index, ErrorCode::Internal);
    }
    let channel = leave(session, turn, index);
    session.push(turn, channel, PushEvent::from(UnsubscribeCode::ChannelExpired));
}

/// Handles a gap: ends the subscription (2500), or closes the connection (3010) if the client could
/// not request the subscription again by itself.
pub(crate) fn handle_gap(session: &mut Session, turn: &mut Turn<'_>, index: usize) {
    turn.out.counters.gaps_reported += 1;
    let (key, channel) = (session.key, session.subscriptions[index].channel.clone());
    turn.out.effects.push_back(Effect::Note { key, channel, cause: SessionNotice::Gap });
    if session.subscriptions[index].traits.is_server_side {
        return session.close(turn.out, DisconnectCode::InsufficientState);
    }
    let channel = leave(session, turn, index);
    session.push(turn, channel, PushEvent::from(UnsubscribeCode::InsufficientState));
}
