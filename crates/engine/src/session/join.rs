//! A subscription from the first request until it is live, and its end (§1.10).
//!
//! The order is: take a seat, so that publications wait here; have the broker's word that the channel is heard and
//! read its stream; enter presence; answer; let go what waited; tell the others.
//! Invariant: the answer precedes every publication of the subscription, and between the position answered and the
//! first publication that follows there is no hole, or the client is told.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{
    ClientInfo, DisconnectCode, ErrorCode, Publication, PushEvent, ReplyBody, StreamPosition,
    SubscribeRequest, SubscribeResult, UnsubscribeCode,
};

use super::{Session, Subscription, SubscriptionTraits, Wait, connect};
use crate::broker::{BrokerError, BrokerRequest, JoinRead, JoinedStream, Membership, RequestId};
use crate::channel::{self, Actor};
use crate::claims::SubscriptionGrant;
use crate::hub::SeatPhase;
use crate::limits::JOIN_BUFFER_MAX;
use crate::recovery::{self, Outcome, Recovery};
use crate::rules::{Namespace, RecoveryMode, Rules};
use crate::turn::{Question, Turn};

/// Everything decided about a subscription before it begins.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) channel: String,
    pub(crate) origin: Origin,
    pub(crate) traits: SubscriptionTraits,
    pub(crate) expire_at: Option<i64>,
    recovery: Recovery,
    recovery_limit: u32,
    meta_ttl_ms: u64,
    rejects_unrecovered: bool,
    chan_info: Bytes,
    data: Bytes,
}

/// Who wanted the subscription, and so who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A subscribe command of this id.
    Command(u32),
    /// The connect command, in whose reply it appears.
    Connect,
    /// The server API.
    Order,
}

/// What a subscription needs until it is live.
#[derive(Debug)]
pub(crate) struct Joining {
    origin: Origin,
    /// The question to the broker whose answer counts.
    request: Option<RequestId>,
    recovery: Recovery,
    rejects_unrecovered: bool,
    data: Bytes,
    held: VecDeque<Held>,
    /// More was published than may wait: the subscription will be told that it has a gap.
    has_overflown: bool,
    /// Known when the stream has been read.
    answered: Option<Answered>,
}

/// What the client has once it has read the answer.
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

/// Bit of the subscribe flag: an error instead of `recovered: false` (§1.10).
const FLAG_REJECT_UNRECOVERED: i64 = 2;

impl Plan {
    /// What the namespace, the grant and the client's wishes come to.
    pub(crate) fn new(
        rules: &Rules,
        namespace: &Namespace,
        user: &str,
        channel: &str,
        wish: Option<&SubscribeRequest>,
        grant: SubscriptionGrant,
    ) -> Plan {
        let actor = Actor { user, is_subscriber: true };
        let may_history = channel::may_read_history(rules, namespace, actor).is_ok();
        let may_presence = channel::may_read_presence(rules, namespace, actor).is_ok();
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
        let tells = overrides.join_leave.unwrap_or(namespace.join_leave);
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
        Plan {
            channel: channel.to_owned(),
            origin: Origin::Order,
            traits: SubscriptionTraits {
                is_server_side: false,
                is_of_token: false,
                is_positioned,
                is_recoverable,
                is_present: overrides.presence.unwrap_or(namespace.presence),
                is_announced: tells,
                wants_membership: tells
                    && (forced || (asked(|wish| wish.join_leave) && may_presence)),
            },
            expire_at: None,
            recovery,
            recovery_limit: rules.client.recovery_max_publication_limit,
            meta_ttl_ms: namespace.history_meta_ttl_ms,
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
                JoinRead::Since { since: since.clone(), limit: self.recovery_limit, meta_ttl_ms }
            }
        }
    }
}

/// Takes a seat and asks the broker. The caller has checked everything that the plan does not know.
pub(crate) fn begin(session: &mut Session, turn: &mut Turn<'_>, plan: Plan) {
    let Some(session_info) = &session.info else {
        return;
    };
    let info = if plan.chan_info.is_empty() {
        session_info.clone()
    } else {
        Arc::new(ClientInfo { chan_info: plan.chan_info.clone(), ..(**session_info).clone() })
    };
    let seat = turn.hub.enter(&plan.channel, session.key.slot);
    let channel = turn.hub.channel(seat);
    let (name, is_heard) = (channel.name.clone(), channel.is_heard);
    let read = plan.read();
    let request = (!is_heard || read != JoinRead::Nothing)
        .then(|| turn.out.expect(session.key, Question::Join));
    session.subscriptions.reserve_exact(1);
    session.subscriptions.push(Subscription {
        channel: name.clone(),
        seat,
        info,
        expire_at: plan.expire_at,
        traits: plan.traits,
        joining: Some(Box::new(Joining {
            origin: plan.origin,
            request,
            recovery: plan.recovery,
            rejects_unrecovered: plan.rejects_unrecovered,
            data: plan.data,
            held: VecDeque::new(),
            has_overflown: false,
            answered: None,
        })),
    });
    match request {
        Some(id) => turn.out.submit(BrokerRequest::Subscribe { id, channel: name, read }),
        None => handle_read(session, turn, request, Ok(JoinedStream::default())),
    }
}

/// The broker hears the channel and has read its stream, or could not.
pub(crate) fn handle_read(
    session: &mut Session,
    turn: &mut Turn<'_>,
    request: Option<RequestId>,
    result: Result<JoinedStream, BrokerError>,
) {
    let is_waiting = |subscription: &Subscription| {
        let joining = subscription.joining.as_ref();
        joining.is_some_and(|joining| joining.answered.is_none() && joining.request == request)
    };
    let Some(index) = session.subscriptions.iter().position(is_waiting) else {
        return;
    };
    let Ok(stream) = result else {
        return abort(session, turn, index, ErrorCode::Internal);
    };
    let subscription = &mut session.subscriptions[index];
    let (seat, traits) = (subscription.seat, subscription.traits);
    let Some(joining) = &mut subscription.joining else {
        return;
    };
    let top = stream.top.clone();
    let outcome =
        recovery::decide(std::mem::replace(&mut joining.recovery, Recovery::None), stream);
    if outcome.was_recovering {
        let counters = &mut turn.out.counters;
        counters.recoveries_whole += u64::from(outcome.recovered);
        counters.recoveries_refused += u64::from(!outcome.recovered);
        counters.recovered_publications += outcome.publications.len() as u64;
    }
    if outcome.was_recovering && !outcome.recovered && joining.rejects_unrecovered {
        return abort(session, turn, index, ErrorCode::UnrecoverablePosition);
    }
    joining.answered = Some(Answered { last: outcome.last, epoch: top.epoch.clone() });
    if traits.is_positioned {
        note_epoch(session, turn, index, &top.epoch);
    }
    turn.hub.channel_mut(seat).is_heard = true;
    let subscription = &session.subscriptions[index];
    if traits.is_present {
        let (channel, info) = (subscription.channel.clone(), subscription.info.clone());
        turn.out.submit(BrokerRequest::AddPresence { channel, info });
    }
    answer(session, turn, index, outcome, top);
}

/// A channel whose stream began a new life: those who hold a position of the old one have a gap.
fn note_epoch(session: &Session, turn: &mut Turn<'_>, index: usize, epoch: &str) {
    let seat = session.subscriptions[index].seat;
    let channel = turn.hub.channel_mut(seat);
    channel.proven_at_ms = turn.now.monotonic_ms;
    if &*channel.epoch != epoch {
        let was_known = !channel.epoch.is_empty();
        channel.epoch = epoch.into();
        if was_known {
            turn.out.gaps.extend(channel.positioned_seats(seat.channel));
        }
    }
}

fn answer(
    session: &mut Session,
    turn: &mut Turn<'_>,
    index: usize,
    outcome: Outcome,
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
    let expire_at = subscription.expire_at;
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
        Origin::Command(id) => {
            session.reply(turn, id, ReplyBody::Subscribe(Box::new(result)));
            release(session, turn, index);
        }
        // It is released with all others when the connect reply has been said.
        Origin::Connect => connect::handle_joined(session, turn, &channel, result),
        Origin::Order => {
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

/// The answer is said: let go what waited, and go live.
pub(crate) fn release(session: &mut Session, turn: &mut Turn<'_>, index: usize) {
    let subscription = &mut session.subscriptions[index];
    let Some(joining) = subscription.joining.take_if(|joining| joining.answered.is_some()) else {
        return;
    };
    let Some(Answered { mut last, epoch }) = joining.answered else {
        return;
    };
    let (channel, seat) = (subscription.channel.clone(), subscription.seat);
    let (traits, info) = (subscription.traits, subscription.info.clone());
    turn.out.counters.subscriptions_joined += 1;
    let mut has_gap = joining.has_overflown;
    // The stream may have begun a new life since, while the connect reply waited for other channels.
    has_gap |= traits.is_positioned && *turn.hub.channel(seat).epoch != *epoch;
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
    let seated = turn.hub.seated(seat);
    seated.phase = SeatPhase::Live;
    seated.is_positioned = traits.is_positioned;
    seated.wants_membership = traits.wants_membership;
    seated.offset = last;
    if traits.is_announced {
        let change = Membership::Join;
        let channel = channel.clone();
        turn.out.submit(BrokerRequest::Announce { channel, info, change });
    }
    if has_gap && !wants_to_leave(session, &channel) {
        turn.out.gaps.push((session.key.slot, seat));
    }
    leave_if_wanted(session, turn, &channel);
}

/// Keeps a publication that came before the subscription was answered.
pub(crate) fn hold(
    subscription: &mut Subscription,
    publication: &Arc<Publication>,
    epoch: &Arc<str>,
) {
    let Some(joining) = &mut subscription.joining else {
        return;
    };
    if joining.held.len() >= JOIN_BUFFER_MAX || joining.has_overflown {
        joining.has_overflown = true;
        joining.held = VecDeque::new();
    } else {
        joining.held.push_back(Held { publication: publication.clone(), epoch: epoch.clone() });
    }
}

fn wants_to_leave(session: &mut Session, channel: &str) -> bool {
    matches!(session.wait_mut(), Some(Wait::Leave { channel: leaving, .. }) if leaving == channel)
}

/// The client may have said that it leaves before it was answered.
fn leave_if_wanted(session: &mut Session, turn: &mut Turn<'_>, channel: &str) {
    if !wants_to_leave(session, channel) {
        return;
    }
    let Some((Wait::Leave { id, channel }, backlog)) = session.unblock() else { return };
    if let Some(index) = session.find(&channel) {
        leave(session, turn, index);
    }
    session.reply(turn, id, ReplyBody::Unsubscribe);
    session.resume(turn, backlog);
}

/// A subscription that does not come about.
pub(crate) fn abort(session: &mut Session, turn: &mut Turn<'_>, index: usize, code: ErrorCode) {
    let subscription = &mut session.subscriptions[index];
    let Some(joining) = &subscription.joining else {
        return;
    };
    let origin = joining.origin;
    let channel = leave(session, turn, index);
    match origin {
        Origin::Command(id) => session.reply_error(turn, id, code),
        Origin::Connect => connect::handle_join_failed(session, turn, code),
        Origin::Order => {}
    }
    leave_if_wanted(session, turn, &channel);
}

/// Ends a subscription on our side and returns its channel's name.
pub(crate) fn leave(session: &mut Session, turn: &mut Turn<'_>, index: usize) -> Arc<str> {
    let subscription = session.subscriptions.swap_remove(index);
    if session.subscriptions.is_empty() {
        session.subscriptions = Vec::new();
    }
    let channel = subscription.channel;
    let (has_entered, is_live) = match &subscription.joining {
        None => (true, true),
        Some(joining) => (joining.answered.is_some(), false),
    };
    if subscription.traits.is_present && has_entered {
        let client = subscription.info.clone();
        turn.out.submit(BrokerRequest::RemovePresence { channel: channel.clone(), client });
    }
    if subscription.traits.is_announced && is_live {
        let (channel, info) = (channel.clone(), subscription.info);
        let change = Membership::Leave;
        turn.out.submit(BrokerRequest::Announce { channel, info, change });
    }
    if let Some(channel) = turn.hub.leave(subscription.seat) {
        turn.out.submit(BrokerRequest::Unsubscribe { channel });
    }
    channel
}

/// The subscription missed something: say so (2500), or end the connection when the client could not ask for the
/// subscription again by itself (3010).
pub(crate) fn handle_gap(session: &mut Session, turn: &mut Turn<'_>, index: usize) {
    turn.out.counters.gaps_told += 1;
    if session.subscriptions[index].traits.is_server_side {
        return session.doom(turn.out, DisconnectCode::InsufficientState);
    }
    let channel = leave(session, turn, index);
    session.push(turn, channel, PushEvent::from(UnsubscribeCode::InsufficientState));
}
