//! What a session waits for, and the commands that wait behind it.
//!
//! Invariant: commands about one channel are handled in the order of their arrival, and a command
//! waits for nothing but calls about its own channel. All commands wait while the session connects,
//! and while it has as many calls or answers in progress as it may.

use std::collections::VecDeque;
use std::mem::take;
use std::sync::Arc;

use wire::protocol::{
    Command, ConnectRequest, ConnectResult, PublishRequest, Request, SubscribeRequest,
};

use crate::broker::Control;
use crate::budget::Budget;
use crate::call::SessionCallId;
use crate::limits::{
    BACKLOG_BYTES_MAX, BACKLOG_BYTES_PAUSE, BACKLOG_COMMANDS_MAX, BACKLOG_COMMANDS_PAUSE,
};

/// What a session waits for. A session that waits for nothing has none.
#[derive(Debug, Default)]
pub(crate) struct SessionWaits {
    lanes: Vec<Lane>,
    /// Commands of lanes that have ended, to be handled next. Those of one lane are in order.
    ready: VecDeque<VecDeque<Command>>,
    /// Commands to be handled after those, in the order of their arrival.
    queue: VecDeque<Command>,
    /// Number and bytes of all commands above.
    count: usize,
    bytes: usize,
    /// Whether the commands wait for replies of the broker, because too many are in progress.
    awaits_answers: bool,
    /// Orders of the server API to apply after the connect reply.
    orders: Vec<Arc<Control>>,
}

/// One thing that the session waits for, and the commands about the same subject.
#[derive(Debug)]
struct Lane {
    wait: Wait,
    /// The call whose result it waits for, if it is one.
    call: Option<SessionCallId>,
    commands: VecDeque<Command>,
}

/// A result that a session waits for.
#[derive(Debug)]
pub(crate) enum Wait {
    /// The verdict on a connection token, or the answer of the connect proxy.
    Connect(Box<Connecting>),
    /// The server-side subscriptions of the connect reply.
    ConnectJoins(Box<ConnectJoins>),
    /// The verdict on a subscription token, or the answer of a subscribe proxy.
    Subscribe { id: u32, request: Box<SubscribeRequest> },
    /// The answer of a publish proxy.
    Publish { id: u32, request: Box<PublishRequest> },
    /// The answer of an rpc proxy.
    Rpc { id: u32 },
    /// The verdict on a new connection token.
    Refresh { id: u32 },
    /// The answer of the refresh proxy, which no command has asked for.
    OwnRefresh,
    /// The verdict on a new subscription token.
    SubRefresh { id: u32, channel: String },
    /// The answer of a sub_refresh proxy, which no command has asked for.
    OwnSubRefresh { channel: Arc<str> },
    /// The reply to a subscription that the client already leaves.
    Leave { id: u32, channel: String },
}

/// A connect command that waits for a call.
#[derive(Debug)]
pub(crate) struct Connecting {
    pub(crate) id: u32,
    /// Only with the headers that calls pass on.
    pub(crate) request: Box<ConnectRequest>,
    /// The client id, if the connect proxy was told one.
    pub(crate) client: Option<String>,
}

/// A connect reply that waits for its server-side subscriptions.
#[derive(Debug)]
pub(crate) struct ConnectJoins {
    /// Id of the connect command.
    pub(crate) id: u32,
    pub(crate) result: ConnectResult,
    /// Number of subscriptions without a result.
    pub(crate) missing: usize,
    /// Room for their recovered publications.
    pub(crate) budget: Budget,
}

/// What commands and waits are about. Those about the same subject keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject<'a> {
    Connection,
    Channel(&'a str),
    /// Commands that may be handled in any order.
    Nothing,
}

/// A peer has sent so many commands while others wait that it floods.
#[derive(Debug)]
pub(crate) struct BacklogFull;

impl SessionWaits {
    /// Begins to wait, with no commands behind.
    pub(crate) fn begin(&mut self, wait: Wait, call: Option<SessionCallId>) {
        self.lanes.push(Lane { wait, call, commands: VecDeque::new() });
    }

    /// Ends the wait for a call.
    pub(crate) fn end_call(&mut self, call: SessionCallId) -> Option<Wait> {
        self.end(|lane| lane.call == Some(call))
    }

    /// Ends the wait for the server-side subscriptions of the connect reply.
    pub(crate) fn end_joins(&mut self) -> Option<Box<ConnectJoins>> {
        match self.end(|lane| matches!(lane.wait, Wait::ConnectJoins(_)))? {
            Wait::ConnectJoins(joins) => Some(joins),
            _ => None,
        }
    }

    /// Ends the wait of an unsubscribe command. Returns the command's id.
    pub(crate) fn end_leave(&mut self, channel: &str) -> Option<u32> {
        match self.end(|lane| lane.leaves(channel))? {
            Wait::Leave { id, .. } => Some(id),
            _ => None,
        }
    }

    fn end(&mut self, is_meant: impl FnMut(&Lane) -> bool) -> Option<Wait> {
        let index = self.lanes.iter().position(is_meant)?;
        let lane = self.lanes.swap_remove(index);
        if !lane.commands.is_empty() {
            self.ready.push_back(lane.commands);
        }
        Some(lane.wait)
    }

    /// What the connect reply waits for.
    pub(crate) fn joins_mut(&mut self) -> Option<&mut ConnectJoins> {
        self.lanes.iter_mut().find_map(|lane| match &mut lane.wait {
            Wait::ConnectJoins(joins) => Some(&mut **joins),
            _ => None,
        })
    }

    /// Whether an unsubscribe command waits until this subscription is active.
    pub(crate) fn leaves(&self, channel: &str) -> bool {
        self.lanes.iter().any(|lane| lane.leaves(channel))
    }

    /// The channel that this call is about; empty if it is about the connection.
    pub(crate) fn channel_of(&self, call: SessionCallId) -> &str {
        let lane = self.lanes.iter().find(|lane| lane.call == Some(call));
        match lane.map(|lane| lane.wait.subject()) {
            Some(Subject::Channel(channel)) => channel,
            _ => "",
        }
    }

    /// Whether the server asks if the expired connection continues.
    pub(crate) fn refreshes(&self) -> bool {
        self.lanes.iter().any(|lane| matches!(lane.wait, Wait::OwnRefresh))
    }

    /// Whether the server asks if this expired subscription continues.
    pub(crate) fn refreshes_channel(&self, name: &str) -> bool {
        let is_meant = |lane: &Lane| matches!(&lane.wait, Wait::OwnSubRefresh { channel } if **channel == *name);
        self.lanes.iter().any(is_meant)
    }

    /// Number of subscriptions that wait for a call.
    pub(crate) fn subscribing(&self) -> usize {
        let waits = self.lanes.iter().map(|lane| &lane.wait);
        waits.filter(|wait| matches!(wait, Wait::Subscribe { .. })).count()
    }

    /// Returns whether commands wait, whatever they are about, given the maximum number of calls.
    pub(crate) fn is_full(&self, calls_max: usize) -> bool {
        self.awaits_answers
            || self.lanes.iter().filter(|lane| lane.call.is_some()).count() >= calls_max
    }

    /// Whether commands wait for replies of the broker.
    pub(crate) fn awaits_answers(&self) -> bool {
        self.awaits_answers
    }

    pub(crate) fn await_answers(&mut self) {
        self.awaits_answers = true;
    }

    pub(crate) fn end_answers(&mut self) {
        self.awaits_answers = false;
    }

    /// Returns whether commands wait only for their own subjects.
    pub(crate) fn has_queue(&self) -> bool {
        !self.queue.is_empty() || !self.ready.is_empty()
    }

    /// Returns whether a command waits for another one about its subject.
    pub(crate) fn holds(&self, request: &Request) -> bool {
        let subject = subject(request);
        let is_meant = |lane: &Lane| lane.wait.subject() == subject;
        subject != Subject::Nothing && self.lanes.iter().any(is_meant)
    }

    fn lane_mut(&mut self, subject: Subject<'_>) -> Option<&mut Lane> {
        let is_meant = |lane: &&mut Lane| lane.wait.subject() == subject;
        self.lanes.iter_mut().find(is_meant).filter(|_| subject != Subject::Nothing)
    }

    /// Adds a command behind those about its subject.
    pub(crate) fn put_in_lane(&mut self, command: Command) -> Result<(), BacklogFull> {
        self.note_put(&command);
        match self.lane_mut(subject(&command.request)) {
            Some(lane) => lane.commands.push_back(command),
            None => self.queue.push_back(command),
        }
        self.check()
    }

    /// Adds a command behind all others.
    pub(crate) fn put_in_queue(&mut self, command: Command) -> Result<(), BacklogFull> {
        self.note_put(&command);
        self.queue.push_back(command);
        self.check()
    }

    /// The next command that waits for nothing of its subject.
    pub(crate) fn next(&mut self) -> Option<Command> {
        loop {
            let command = match self.ready.front_mut() {
                None => match self.queue.pop_front()? {
                    command if self.holds(&command.request) => {
                        if let Some(lane) = self.lane_mut(subject(&command.request)) {
                            lane.commands.push_back(command);
                        }
                        continue;
                    }
                    command => command,
                },
                Some(batch) => match batch.pop_front() {
                    None => {
                        self.ready.pop_front();
                        continue;
                    }
                    Some(command) if self.holds(&command.request) => {
                        self.return_batch(command);
                        continue;
                    }
                    Some(command) => command,
                },
            };
            self.count -= 1;
            self.bytes -= weight(&command.request);
            return Some(command);
        }
    }

    /// Returns the first of the ready commands, and those after it, to the lane of their subject.
    fn return_batch(&mut self, command: Command) {
        let mut batch = self.ready.pop_front().unwrap_or_default();
        if let Some(lane) = self.lane_mut(subject(&command.request)) {
            // Nothing has come between: the lane was made by the command before.
            batch.push_front(command);
            lane.commands = batch;
        }
    }

    /// Queues an order of the server API until the connect reply is sent.
    pub(crate) fn defer(&mut self, control: &Arc<Control>) {
        if self.orders.len() < BACKLOG_COMMANDS_MAX {
            self.orders.push(control.clone());
        }
    }

    /// Takes the queued orders.
    pub(crate) fn take_orders(&mut self) -> Vec<Arc<Control>> {
        take(&mut self.orders)
    }

    /// Returns whether it has become useless.
    pub(crate) fn is_over(&self) -> bool {
        self.lanes.is_empty() && self.count == 0 && !self.awaits_answers && self.orders.is_empty()
    }

    /// Returns whether reading from the peer must stop because too much is queued.
    pub(crate) fn is_congested(&self) -> bool {
        self.bytes >= BACKLOG_BYTES_PAUSE || self.count >= BACKLOG_COMMANDS_PAUSE
    }

    fn note_put(&mut self, command: &Command) {
        self.count += 1;
        self.bytes += weight(&command.request);
    }

    fn check(&self) -> Result<(), BacklogFull> {
        let is_flood = self.count > BACKLOG_COMMANDS_MAX || self.bytes > BACKLOG_BYTES_MAX;
        if is_flood { Err(BacklogFull) } else { Ok(()) }
    }
}

impl Lane {
    fn leaves(&self, channel: &str) -> bool {
        matches!(&self.wait, Wait::Leave { channel: leaving, .. } if leaving == channel)
    }
}

impl Wait {
    fn subject(&self) -> Subject<'_> {
        match self {
            Wait::Connect(_) | Wait::ConnectJoins(_) | Wait::Refresh { .. } | Wait::OwnRefresh => {
                Subject::Connection
            }
            Wait::Subscribe { request, .. } => Subject::Channel(&request.channel),
            Wait::Publish { request, .. } => Subject::Channel(&request.channel),
            Wait::SubRefresh { channel, .. } | Wait::Leave { channel, .. } => {
                Subject::Channel(channel)
            }
            Wait::OwnSubRefresh { channel } => Subject::Channel(channel),
            Wait::Rpc { .. } => Subject::Nothing,
        }
    }
}

fn subject(request: &Request) -> Subject<'_> {
    match request {
        Request::Connect(_) | Request::Refresh { .. } => Subject::Connection,
        Request::Subscribe(request) => Subject::Channel(&request.channel),
        Request::Publish(request) => Subject::Channel(&request.channel),
        Request::History(request) => Subject::Channel(&request.channel),
        Request::SubRefresh(request) => Subject::Channel(&request.channel),
        Request::Unsubscribe { channel }
        | Request::Presence { channel }
        | Request::PresenceStats { channel } => Subject::Channel(channel),
        Request::Ping
        | Request::Rpc { .. }
        | Request::Send { .. }
        | Request::Pong
        | Request::Missing => Subject::Nothing,
    }
}

/// Bytes of texts and payloads that a queued request holds.
fn weight(request: &Request) -> usize {
    match request {
        Request::Connect(request) => {
            let headers = request.headers.iter().map(|(name, value)| name.len() + value.len());
            let subs = request.subs.iter().map(|(name, sub)| name.len() + subscribe_weight(sub));
            let texts = request.token.len() + request.name.len() + request.version.len();
            texts + request.data.len() + headers.sum::<usize>() + subs.sum::<usize>()
        }
        Request::Subscribe(request) => subscribe_weight(request),
        Request::Publish(request) => request.channel.len() + request.data.len(),
        Request::History(request) => {
            let epoch = request.since.as_ref().map_or(0, |since| since.epoch.len());
            request.channel.len() + epoch
        }
        Request::SubRefresh(request) => request.channel.len() + request.token.len(),
        Request::Unsubscribe { channel }
        | Request::Presence { channel }
        | Request::PresenceStats { channel } => channel.len(),
        Request::Rpc { method, data } => method.len() + data.len(),
        Request::Send { data } => data.len(),
        Request::Refresh { token } => token.len(),
        Request::Ping | Request::Pong | Request::Missing => 0,
    }
}

fn subscribe_weight(request: &SubscribeRequest) -> usize {
    let texts = request.channel.len() + request.token.len() + request.epoch.len();
    texts + request.delta.len() + request.data.len()
}
