//! The clients of this node in channels, and the leaves of those that are gone.
//!
//! Invariant: the table of present clients changes before the request is sent, so that a renewal
//! never adds a client that has left.

use std::sync::Arc;

use engine::broker::{Membership, PresenceRequest, PublicationsRequest};
use wire::protocol::ClientInfo;

use super::super::clock::MonotonicTime;
use super::super::open_request::OpenRequest;
use super::super::outputs::{CoreOutput, EndpointStates};
use super::super::presence::PresentClient;
use super::super::settings::RedisParts;
use super::RedisCore;
use crate::Endpoint;

impl RedisCore {
    pub(super) fn accept_presence(
        &mut self,
        partition: usize,
        endpoint: Endpoint,
        request: &PresenceRequest,
    ) {
        match request {
            PresenceRequest::Add { channel, info, announces } => {
                let client = PresentClient { info: info.clone(), endpoint, announces: *announces };
                self.present.add(partition, channel, client);
            }
            PresenceRequest::Remove { channel, client } => {
                self.present.remove(partition, channel, &client.client);
            }
            PresenceRequest::Clients { .. } | PresenceRequest::Stats { .. } => {}
        }
    }

    pub(super) fn announce_leave(
        &mut self,
        now: MonotonicTime,
        endpoint: Endpoint,
        (channel, info): (Arc<str>, Arc<ClientInfo>),
        endpoints: &dyn EndpointStates,
    ) {
        match self.parts {
            RedisParts::Presence => self.outputs.add(CoreOutput::Leave(channel, info)),
            RedisParts::All => {
                let change = Membership::Leave;
                let announcement = PublicationsRequest::Announce { channel, info, change }.into();
                let deadline = now + self.io_timeout;
                self.accept(now, OpenRequest::new(endpoint, announcement, deadline), endpoints);
            }
        }
    }
}
