//! The channel tasks of a node, one for each channel in use.
//!
//! Invariant: a channel has at most one task, and an input that meets a task that has just ended
//! starts a new one.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::broker::{BrokerRequest, PresenceRequest};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, mpsc};

use super::channel::ChannelInput;
use super::channel_task::{self, ChannelTaskInput};
use super::detach_guard::DetachGuard;
use super::idle_tasks::IdleTasks;
use super::presence::PresenceStore;
use super::request::QueuedRequest;
use super::subject::ChannelName;
use crate::Endpoint;
use crate::limits::VERIFICATIONS_MAX;

/// See the module.
pub(super) struct ChannelTasks {
    presence: Rc<PresenceStore>,
    /// Those with subscribers are bounded by the sessions, those with requests by
    /// [`crate::limits::REQUESTS_MAX`], and the others by [`crate::limits::IDLE_TASKS_MAX`].
    open: HashMap<Arc<str>, UnboundedSender<Box<ChannelTaskInput>>>,
    idle: Rc<IdleTasks>,
    /// Cloned into every task: the node ends when all are dropped.
    task_guard: mpsc::Sender<()>,
}

impl ChannelTasks {
    pub(super) fn new(presence: Rc<PresenceStore>, task_guard: mpsc::Sender<()>) -> ChannelTasks {
        ChannelTasks { presence, open: HashMap::new(), idle: Rc::default(), task_guard }
    }

    /// Sends a request to the task of its channel. Who is present is noted at once, so that it
    /// survives a failure of the task.
    pub(super) fn send_request(&mut self, channel: &Arc<str>, request: QueuedRequest) {
        let is_needed = match request.what() {
            BrokerRequest::Presence(PresenceRequest::Add { info, .. }) => {
                let name = ChannelName::new(channel.clone());
                self.presence.add(request.endpoint(), &name, info)
            }
            BrokerRequest::Presence(PresenceRequest::Remove { client, .. }) => {
                let name = ChannelName::new(channel.clone());
                self.presence.forget(request.endpoint(), &name, &client.client);
                true
            }
            _ => true,
        };
        if is_needed {
            self.send(channel, ChannelTaskInput::Core(ChannelInput::Request(request)));
        }
    }

    /// Sends an input to a channel's task, which is started if there is none.
    pub(super) fn send(&mut self, channel: &Arc<str>, input: ChannelTaskInput) {
        self.remove_ended();
        let mut input = Box::new(input);
        loop {
            let task = self.open.entry(channel.clone()).or_insert_with(|| {
                let name = ChannelName::new(channel.clone());
                let (presence, idle) = (self.presence.clone(), self.idle.clone());
                channel_task::open(name, (presence, idle), self.task_guard.clone())
            });
            match task.send(input) {
                Ok(()) => break,
                // The task has ended after its idle timeout.
                Err(back) => input = back.0,
            }
            self.open.remove(channel);
        }
        self.count();
    }

    /// Ends the subscriptions of an endpoint. Every channel drops its copy of the guard when it has
    /// handled the requests of the endpoint.
    pub(super) fn detach(&mut self, endpoint: Endpoint, guard: &DetachGuard) {
        let detach = || ChannelTaskInput::Core(ChannelInput::Detach(endpoint, guard.clone()));
        self.open.retain(|_, task| task.send(Box::new(detach())).is_ok());
    }

    /// Removes tasks that have ended.
    pub(super) fn remove_ended(&mut self) {
        while let Some(channel) = self.idle.poll_ended() {
            // Another task may have been started meanwhile.
            if self.open.get(&channel).is_some_and(UnboundedSender::is_closed) {
                self.open.remove(&channel);
            }
        }
        self.count();
    }

    fn count(&self) {
        let count = &self.presence.link.shared.channel_tasks;
        count.store(self.open.len(), Ordering::Relaxed);
    }

    /// The tasks that run now.
    pub(super) fn running(&mut self) -> RunningTasks {
        self.remove_ended();
        RunningTasks(self.open.values().cloned().collect())
    }
}

/// Channel tasks that ran at one time.
pub(super) struct RunningTasks(Vec<UnboundedSender<Box<ChannelTaskInput>>>);

impl RunningTasks {
    /// Verifies all channels, [`VERIFICATIONS_MAX`] at a time.
    pub(super) fn verify(&self) {
        let permits = Arc::new(Semaphore::new(VERIFICATIONS_MAX));
        for task in &self.0 {
            // A task that has ended has no subscribers to verify for.
            let _closed = task.send(Box::new(ChannelTaskInput::Verify(permits.clone())));
        }
    }
}
