//! The channel tasks of a node, one for each channel in use.
//!
//! Invariant: a channel has at most one task, and an input that meets a task that has just ended
//! starts a new one.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use engine::broker::{BrokerRequest, PresenceRequest};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, mpsc};

use super::channel::ChannelInput;
use super::channel_task::{self, ChannelTaskInput};
use super::detach_guard::DetachGuard;
use super::presence::PresenceStore;
use super::request::QueuedRequest;
use super::subject::ChannelName;
use crate::Endpoint;
use crate::limits::VERIFICATIONS_MAX;

/// See the module.
pub(super) struct ChannelTasks {
    presence: Rc<PresenceStore>,
    open: HashMap<Arc<str>, UnboundedSender<ChannelTaskInput>>,
    /// Cloned into every task: the node ends when all are dropped.
    task_guard: mpsc::Sender<()>,
}

impl ChannelTasks {
    pub(super) fn new(presence: Rc<PresenceStore>, task_guard: mpsc::Sender<()>) -> ChannelTasks {
        ChannelTasks { presence, open: HashMap::new(), task_guard }
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
    pub(super) fn send(&mut self, channel: &Arc<str>, mut input: ChannelTaskInput) {
        loop {
            let task = self.open.entry(channel.clone()).or_insert_with(|| {
                let name = ChannelName::new(channel.clone());
                channel_task::open(name, self.presence.clone(), self.task_guard.clone())
            });
            match task.send(input) {
                Ok(()) => return,
                // The task has ended after its idle timeout.
                Err(back) => input = back.0,
            }
            self.open.remove(channel);
        }
    }

    /// Ends the subscriptions of an endpoint. Every channel drops its copy of the guard when it has
    /// handled the requests of the endpoint.
    pub(super) fn detach(&mut self, endpoint: Endpoint, guard: &DetachGuard) {
        let detach = || ChannelTaskInput::Core(ChannelInput::Detach(endpoint, guard.clone()));
        self.open.retain(|_, task| task.send(detach()).is_ok());
    }

    /// Removes tasks that have ended.
    pub(super) fn remove_ended(&mut self) {
        self.open.retain(|_, task| !task.is_closed());
    }

    /// The tasks that run now.
    pub(super) fn running(&mut self) -> RunningTasks {
        self.remove_ended();
        RunningTasks(self.open.values().cloned().collect())
    }
}

/// Channel tasks that ran at one time.
pub(super) struct RunningTasks(Vec<UnboundedSender<ChannelTaskInput>>);

impl RunningTasks {
    /// Verifies all channels, [`VERIFICATIONS_MAX`] at a time.
    pub(super) fn verify(&self) {
        let permits = Arc::new(Semaphore::new(VERIFICATIONS_MAX));
        for task in &self.0 {
            // A task that has ended has no subscribers to verify for.
            let _closed = task.send(ChannelTaskInput::Verify(permits.clone()));
        }
    }
}
