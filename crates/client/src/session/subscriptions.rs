//! The subscriptions that the application has made.
//!
//! Invariant: a subscribe command is sent only while the subscription is in the state
//! *subscribing*, and only the reply to the last command counts. What ends here while the server
//! may have it, is ended there too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wire::protocol::codes::{UnsubscribeCode, is_resubscribe};
use wire::protocol::{
    ErrorReply, Publication, Request, StreamPosition, SubRefreshRequest, SubscribeRequest,
    SubscribeResult,
};

use super::SubscriptionState;
use super::backoff::{Backoff, has_lived};
use super::credential::{Credential, lifetime};
use super::event::{Event, Failure, Subscribed, SubscriptionOrigin, TokenRequestId, TokenSubject};
use super::options::SubscriptionOptions;
use super::outputs::{PendingReply, SessionOutputs, Timer};
use super::position::Tracker;
use super::reason::{Reason, is_retried, is_token_expired};
use crate::error::{SubscribeError, TokenError};
use crate::limits::SUB_REFRESH_RETRY;

/// Subscriptions of the application, by channel.
#[derive(Debug)]
pub(super) struct Subscriptions {
    channels: BTreeMap<Arc<str>, Subscription>,
    /// Whether the connect command was sent: then subscribe commands may follow.
    is_open: bool,
    backoff: Backoff,
    duplicates: u64,
}

#[derive(Debug)]
struct Subscription {
    options: SubscriptionOptions,
    credential: Credential,
    tracker: Tracker,
    state: SubscriptionState,
    attempts: u32,
    /// When the server last ended it and it was made again at once.
    restarted_at: Option<Instant>,
    /// Id of the subscribe or sub_refresh command without a reply.
    command: Option<u32>,
}

impl Subscriptions {
    pub(super) fn new(backoff: Backoff) -> Subscriptions {
        Subscriptions { channels: BTreeMap::new(), is_open: false, backoff, duplicates: 0 }
    }

    pub(super) fn state(&self, channel: &str) -> Option<SubscriptionState> {
        self.channels.get(channel).map(|subscription| subscription.state)
    }

    pub(super) fn position(&self, channel: &str) -> Option<&StreamPosition> {
        self.channels.get(channel)?.tracker.position()
    }

    pub(super) fn duplicates(&self) -> u64 {
        let all = self.channels.values().map(|subscription| subscription.tracker.duplicates());
        self.duplicates + all.sum::<u64>()
    }

    pub(super) fn subscribe(
        &mut self,
        now: Instant,
        channel: &str,
        options: SubscriptionOptions,
        out: &mut SessionOutputs,
    ) -> Result<(), SubscribeError> {
        let before = self.channels.get(channel);
        if before.is_some_and(|before| before.state != SubscriptionState::Unsubscribed) {
            return Err(SubscribeError::AlreadySubscribed);
        }
        let kept = before.map_or_else(Tracker::default, |before| before.tracker.clone());
        let tracker = match &options.since {
            Some(since) => {
                self.duplicates += kept.duplicates();
                Tracker::at(Some(since.clone()))
            }
            None => kept,
        };
        let channel: Arc<str> = channel.into();
        let subscription = Subscription {
            credential: Credential::new(options.token.clone()),
            options,
            tracker,
            state: SubscriptionState::Subscribing,
            attempts: 0,
            restarted_at: None,
            command: None,
        };
        self.channels.insert(channel.clone(), subscription);
        let reason = Reason::SUBSCRIBE_CALLED;
        out.events.push_back(Event::Subscribing { channel: channel.clone(), reason });
        self.start(now, &channel, out);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, now: Instant, channel: &str, out: &mut SessionOutputs) {
        let Some(subscription) = self.channels.get_mut(channel) else { return };
        if subscription.state != SubscriptionState::Unsubscribed {
            self.leave(now, &channel.into(), Reason::UNSUBSCRIBE_CALLED, out);
        }
    }

    /// Forgets a subscription with its position.
    pub(super) fn remove(&mut self, now: Instant, channel: &str, out: &mut SessionOutputs) {
        self.unsubscribe(now, channel, out);
        if let Some(subscription) = self.channels.remove(channel) {
            self.duplicates += subscription.tracker.duplicates();
        }
    }

    /// The connect command is under way: all subscriptions follow it.
    pub(super) fn open(&mut self, now: Instant, out: &mut SessionOutputs) {
        self.is_open = true;
        let channels: Vec<Arc<str>> = self.channels.keys().cloned().collect();
        for channel in channels {
            self.start(now, &channel, out);
        }
    }

    /// The connection has ended: all subscriptions wait for the next one.
    pub(super) fn suspend(&mut self, out: &mut SessionOutputs) {
        self.is_open = false;
        for (channel, subscription) in &mut self.channels {
            subscription.command = None;
            if subscription.state == SubscriptionState::Subscribed {
                subscription.state = SubscriptionState::Subscribing;
                let (channel, reason) = (channel.clone(), Reason::TRANSPORT_CLOSED);
                out.events.push_back(Event::Subscribing { channel, reason });
            }
        }
    }

    /// The server asks to drop tokens and positions of all subscriptions.
    pub(super) fn invalidate(&mut self) {
        self.channels.values_mut().for_each(Subscription::invalidate);
    }

    /// Sends the subscribe command, or asks for a token first.
    fn start(&mut self, now: Instant, channel: &Arc<str>, out: &mut SessionOutputs) {
        let Some(subscription) = self.channels.get_mut(channel) else { return };
        let is_wanted = subscription.state == SubscriptionState::Subscribing
            && subscription.command.is_none()
            && !subscription.credential.is_waiting();
        if !self.is_open || !is_wanted {
            return;
        }
        out.timers.clear(&Timer::Resubscribe(channel.clone()));
        if subscription.credential.is_missing() {
            let request = out.ask_token(TokenSubject::Subscription(channel.clone()));
            subscription.credential.ask(request);
            return;
        }
        let request = Request::Subscribe(Box::new(subscription.request(channel)));
        subscription.command =
            Some(out.command(now, request, PendingReply::Subscribe(channel.clone())));
    }

    fn retry(&mut self, now: Instant, channel: &Arc<str>, out: &mut SessionOutputs) {
        let Some(subscription) = self.channels.get_mut(channel) else { return };
        let delay = self.backoff.delay(subscription.attempts, out.random.next());
        subscription.attempts = subscription.attempts.saturating_add(1);
        if self.is_open {
            out.timers.set(Timer::Resubscribe(channel.clone()), now + delay);
        }
    }

    /// Ends a subscription here and at the server.
    fn leave(
        &mut self,
        now: Instant,
        channel: &Arc<str>,
        reason: Reason,
        out: &mut SessionOutputs,
    ) {
        let Some(subscription) = self.channels.get(channel) else { return };
        let is_known =
            subscription.state == SubscriptionState::Subscribed || subscription.command.is_some();
        if is_known && self.is_open {
            let request = Request::Unsubscribe { channel: channel.to_string() };
            out.command(now, request, PendingReply::Unsubscribe);
        }
        self.end(channel, reason, out);
    }

    /// Ends a subscription that the server does not have.
    fn end(&mut self, channel: &Arc<str>, reason: Reason, out: &mut SessionOutputs) {
        let Some(subscription) = self.channels.get_mut(channel) else { return };
        subscription.state = SubscriptionState::Unsubscribed;
        subscription.command = None;
        subscription.credential.forget_request();
        out.timers.clear(&Timer::Resubscribe(channel.clone()));
        out.timers.clear(&Timer::SubRefresh(channel.clone()));
        out.events.push_back(Event::Unsubscribed { channel: channel.clone(), reason });
    }

    /// Whether the subscription still waits for the reply to this command.
    pub(super) fn is_waiting_for(&self, channel: &str, id: u32) -> bool {
        self.channels.get(channel).is_some_and(|subscription| subscription.command == Some(id))
    }

    pub(super) fn handle_result(
        &mut self,
        now: Instant,
        channel: &Arc<str>,
        result: &SubscribeResult,
        out: &mut SessionOutputs,
    ) {
        let Some(subscription) = self.channels.get_mut(channel) else { return };
        subscription.command = None;
        subscription.attempts = 0;
        subscription.state = SubscriptionState::Subscribed;
        let missed = subscription.tracker.begin(result);
        let subscribed = Box::new(subscribed(SubscriptionOrigin::Client, result, missed.len()));
        out.events.push_back(Event::Subscribed { channel: channel.clone(), subscribed });
        for publication in missed {
            out.events.push_back(Event::Publication { channel: channel.clone(), publication });
        }
        self.set_refresh(now, channel, result.expires.then(|| lifetime(result.ttl)), out);
    }

    pub(super) fn handle_error(
        &mut self,
        now: Instant,
        channel: &Arc<str>,
        error: &ErrorReply,
        out: &mut SessionOutputs,
    ) {
        let Some(subscription) = self.channels.get_mut(channel) else { return };
        subscription.command = None;
        if !is_retried(error) {
            return self.end(channel, Reason::of_server(error.code, &error.message), out);
        }
        if is_token_expired(error) {
            subscription.credential.expire();
            if subscription.credential.is_exhausted() {
                return self.end(channel, Reason::of_server(error.code, &error.message), out);
            }
        }
        let (channel, error) = (channel.clone(), error.clone());
        self.retry(now, &channel, out);
        out.events.push_back(Event::Failed(Failure::Subscribe { channel, error }));
    }

    pub(super) fn handle_resubscribe(
        &mut self,
        now: Instant,
        channel: &Arc<str>,
        out: &mut SessionOutputs,
    ) {
        self.start(now, channel, out);
    }

    /// A token is there, or is not, for the subscription that asked for it.
    pub(super) fn handle_token(
        &mut self,
        now: Instant,
        request: TokenRequestId,
        token: Result<String, TokenError>,
        out: &mut SessionOutputs,
    ) {
        let asked = self.channels.iter_mut().find_map(|(channel, subscription)| {
            subscription.credential.take_request(request).then_some((channel, subscription))
        });
        let Some((channel, subscription)) = asked else { return };
        let (channel, state) = (channel.clone(), subscription.state);
        let error = match token {
            Ok(token) if !token.is_empty() => {
                subscription.credential.renew(token);
                match state {
                    SubscriptionState::Subscribed => self.refresh(now, &channel, out),
                    _ => self.start(now, &channel, out),
                }
                return;
            }
            Ok(_) | Err(TokenError::Unauthorized) => {
                return self.leave(now, &channel, Reason::UNAUTHORIZED, out);
            }
            Err(error) => error,
        };
        match state {
            SubscriptionState::Subscribed => self.retry_refresh(now, &channel, out),
            _ => self.retry(now, &channel, out),
        }
        let subject = TokenSubject::Subscription(channel);
        out.events.push_back(Event::Failed(Failure::Token { subject, error }));
    }

    /// The subscription expires: gets another token.
    pub(super) fn handle_refresh_due(&mut self, channel: &Arc<str>, out: &mut SessionOutputs) {
        let Some(subscription) = self.channels.get_mut(channel) else { return };
        let is_live = subscription.state == SubscriptionState::Subscribed;
        if is_live && !subscription.credential.is_waiting() {
            let request = out.ask_token(TokenSubject::Subscription(channel.clone()));
            subscription.credential.ask(request);
        }
    }

    fn refresh(&mut self, now: Instant, channel: &Arc<str>, out: &mut SessionOutputs) {
        let Some(subscription) = self.channels.get_mut(channel) else { return };
        let token = subscription.credential.token().to_owned();
        let request = SubRefreshRequest { channel: channel.to_string(), token, kind: 0 };
        let pending = PendingReply::SubRefresh(channel.clone());
        subscription.command = Some(out.command(now, Request::SubRefresh(request), pending));
    }

    pub(super) fn retry_refresh(
        &mut self,
        now: Instant,
        channel: &Arc<str>,
        out: &mut SessionOutputs,
    ) {
        let delay = out.delay(SUB_REFRESH_RETRY);
        self.set_refresh(now, channel, Some(delay), out);
    }

    /// The server has prolonged the subscription. Sets the time of the next refresh.
    pub(super) fn set_refresh(
        &mut self,
        now: Instant,
        channel: &Arc<str>,
        after: Option<Duration>,
        out: &mut SessionOutputs,
    ) {
        let Some(subscription) = self.channels.get_mut(channel) else { return };
        let is_live = subscription.state == SubscriptionState::Subscribed;
        subscription.command = None;
        let timer = Timer::SubRefresh(channel.clone());
        match after.filter(|_| is_live && subscription.credential.is_asked()) {
            Some(after) => out.timers.set(timer, now + after),
            None => out.timers.clear(&timer),
        }
    }

    /// The server has refused to prolong it.
    pub(super) fn handle_refresh_error(
        &mut self,
        now: Instant,
        channel: &Arc<str>,
        error: &ErrorReply,
        out: &mut SessionOutputs,
    ) {
        if !is_retried(error) {
            let reason = Reason::of_server(error.code, &error.message);
            return self.leave(now, channel, reason, out);
        }
        self.retry_refresh(now, channel, out);
        let subject = TokenSubject::Subscription(channel.clone());
        out.events.push_back(Event::Failed(Failure::Refresh { subject, error: error.clone() }));
    }

    /// The server has ended a subscription; `false` when it is none of these.
    pub(super) fn handle_unsubscribed(
        &mut self,
        now: Instant,
        channel: &Arc<str>,
        reason: Reason,
        out: &mut SessionOutputs,
    ) -> bool {
        let Some(subscription) = self.channels.get_mut(channel) else { return false };
        if subscription.state == SubscriptionState::Unsubscribed {
            return true;
        }
        if !is_resubscribe(reason.code) {
            self.end(channel, reason, out);
            return true;
        }
        if reason.code == UnsubscribeCode::StateInvalidated.number() {
            subscription.invalidate();
        }
        // A subscribe command, a request for a token or a delay is under way.
        if subscription.state == SubscriptionState::Subscribing {
            return true;
        }
        subscription.command = None;
        out.timers.clear(&Timer::SubRefresh(channel.clone()));
        subscription.credential.forget_request();
        subscription.state = SubscriptionState::Subscribing;
        out.events.push_back(Event::Subscribing { channel: channel.clone(), reason });
        let before = subscription.restarted_at;
        if before.is_none() || has_lived(before, now) {
            subscription.restarted_at = Some(now);
            self.start(now, channel, out);
        } else {
            self.retry(now, channel, out);
        }
        true
    }

    /// `false` when the channel has no live subscription here.
    pub(super) fn handle_publication(
        &mut self,
        channel: &Arc<str>,
        publication: &Arc<Publication>,
        out: &mut SessionOutputs,
    ) -> bool {
        let Some(subscription) = self.live(channel) else { return false };
        if subscription.tracker.accept(publication) {
            let (channel, publication) = (channel.clone(), publication.clone());
            out.events.push_back(Event::Publication { channel, publication });
        }
        true
    }

    pub(super) fn is_live(&self, channel: &str) -> bool {
        self.state(channel) == Some(SubscriptionState::Subscribed)
    }

    fn live(&mut self, channel: &str) -> Option<&mut Subscription> {
        let subscription = self.channels.get_mut(channel)?;
        (subscription.state == SubscriptionState::Subscribed).then_some(subscription)
    }
}

impl Subscription {
    fn request(&self, channel: &str) -> SubscribeRequest {
        let position = self.tracker.position().cloned();
        let recover = position.is_some();
        let StreamPosition { offset, epoch } = position.unwrap_or_default();
        SubscribeRequest {
            channel: channel.to_owned(),
            token: self.credential.token().to_owned(),
            recover,
            epoch,
            offset,
            data: self.options.data.clone(),
            positioned: self.options.positioned,
            recoverable: self.options.recoverable,
            join_leave: self.options.join_leave,
            ..SubscribeRequest::default()
        }
    }

    fn invalidate(&mut self) {
        self.credential.invalidate();
        self.tracker.invalidate();
    }
}

/// What the server said about a subscription.
pub(super) fn subscribed(
    origin: SubscriptionOrigin,
    result: &SubscribeResult,
    missed: usize,
) -> Subscribed {
    Subscribed {
        origin,
        recoverable: result.recoverable,
        positioned: result.positioned,
        was_recovering: result.was_recovering,
        recovered: result.recovered,
        missed,
        position: StreamPosition { offset: result.offset, epoch: result.epoch.clone() },
        data: result.data.clone(),
    }
}
