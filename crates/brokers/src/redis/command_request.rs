//! Requests that are one command of Redis each, and those which the core carries out otherwise.
//!
//! Invariant: a request that is not sent as a command cannot be queued, sent or repeated as one.

use std::sync::Arc;

use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerReply, BrokerRequest, ChannelTtl, Control, HistoryQuery, HistoryRemoved,
    JoinRead, JoinedStream, Membership, NodeBusRequest, PresenceRequest, PublicationsRequest,
    PublishOptions, RegistryRequest, RequestId, Survey, Ticket,
};
use engine::lifecycle::Lifecycle;
use engine::revocation::{Revocation, RevokeOutcome, Subject};
use wire::protocol::{ClientInfo, HistoryResult, Publication, StreamPosition};

use crate::limits::BATCH_BYTES_MAX;

/// A request by how it is carried out.
#[expect(
    clippy::large_enum_variant,
    reason = "a command is the usual request, and a box would cost it an allocation"
)]
pub(super) enum RedisRequest {
    /// One command with one reply.
    Command(CommandRequest),
    /// A change of subscriptions, which Redis answers with pushes.
    Unsubscribe { channel: Arc<str> },
    /// A lifecycle event, which waits to be sent together with others.
    Lifecycle(Lifecycle),
    /// A question to all nodes.
    Survey { id: RequestId<Survey>, question: Bytes },
    /// A read of all revocations, in parts.
    ReadRevocations { id: RequestId<Vec<Arc<Revocation>>> },
}

/// A request that is one command with one reply. The variants are those of [`BrokerRequest`].
#[derive(Debug)]
pub(super) enum CommandRequest {
    Subscribe {
        id: RequestId<JoinedStream>,
        channel: Arc<str>,
        read: JoinRead,
    },
    Publish(PublishCommand),
    Announce {
        channel: Arc<str>,
        info: Arc<ClientInfo>,
        change: Membership,
    },
    History {
        id: RequestId<HistoryResult>,
        channel: Arc<str>,
        query: HistoryQuery,
        meta_ttl_ms: u64,
    },
    RemoveHistory {
        id: RequestId<HistoryRemoved>,
        channel: Arc<str>,
    },
    LimitTtl {
        channel: Arc<str>,
        ttl_ms: u64,
    },
    ChannelTtl {
        id: RequestId<Option<ChannelTtl>>,
        channel: Arc<str>,
    },
    Presence(PresenceRequest),
    Control(Arc<Control>),
    Answer {
        ticket: Ticket,
        answer: Bytes,
    },
    Revoke {
        id: RequestId<RevokeOutcome>,
        revocation: Arc<Revocation>,
    },
    FindRevocation {
        id: RequestId<Option<Arc<Revocation>>>,
        subject: Subject,
    },
}

/// A publication, and how it is stored.
#[derive(Debug)]
pub(super) struct PublishCommand {
    pub(super) id: RequestId<StreamPosition>,
    pub(super) channel: Arc<str>,
    pub(super) publication: Publication,
    pub(super) options: PublishOptions,
}

impl PublishCommand {
    /// Whether the publication is stored or compared with what is stored; any other is only sent to
    /// the subscribers.
    pub(super) fn needs_script(&self) -> bool {
        let PublishOptions { history_size, version, idempotency_key, .. } = &self.options;
        *history_size > 0 || *version != 0 || !idempotency_key.is_empty()
    }

    /// Whether the publication may share a command with others.
    pub(super) fn is_small(&self) -> bool {
        self.publication.weight() <= BATCH_BYTES_MAX
    }
}

impl CommandRequest {
    /// Bytes of what it carries.
    pub(super) fn payload_length(&self) -> usize {
        let info = |info: &ClientInfo| {
            info.client.len() + info.user.len() + info.conn_info.len() + info.chan_info.len()
        };
        let payload = match self {
            CommandRequest::Publish(publish) => publish.publication.weight(),
            CommandRequest::Announce { info: client, .. }
            | CommandRequest::Presence(
                PresenceRequest::Add { info: client, .. } | PresenceRequest::Remove { client, .. },
            ) => info(client),
            CommandRequest::Control(order) => crate::control::encode(order).len(),
            CommandRequest::Answer { answer, .. } => answer.len(),
            CommandRequest::Presence(
                PresenceRequest::Clients { .. } | PresenceRequest::Stats { .. },
            )
            | CommandRequest::Subscribe { .. }
            | CommandRequest::History { .. }
            | CommandRequest::RemoveHistory { .. }
            | CommandRequest::LimitTtl { .. }
            | CommandRequest::ChannelTtl { .. }
            | CommandRequest::Revoke { .. }
            | CommandRequest::FindRevocation { .. } => 0,
        };
        payload + self.channel().map_or(0, |channel| channel.len())
    }

    /// The channel of the request; `None` for requests about nodes and revocations.
    pub(super) fn channel(&self) -> Option<&Arc<str>> {
        match self {
            CommandRequest::Subscribe { channel, .. }
            | CommandRequest::Publish(PublishCommand { channel, .. })
            | CommandRequest::Announce { channel, .. }
            | CommandRequest::History { channel, .. }
            | CommandRequest::RemoveHistory { channel, .. }
            | CommandRequest::LimitTtl { channel, .. }
            | CommandRequest::ChannelTtl { channel, .. } => Some(channel),
            CommandRequest::Presence(request) => Some(request.channel()),
            CommandRequest::Control(_)
            | CommandRequest::Answer { .. }
            | CommandRequest::Revoke { .. }
            | CommandRequest::FindRevocation { .. } => None,
        }
    }

    /// The reply that refuses the request; `None` for a request without a reply.
    pub(super) fn refuse(&self, error: BrokerError) -> Option<BrokerReply> {
        match self {
            CommandRequest::Subscribe { id, .. } => Some(id.answer(Err(error))),
            CommandRequest::Publish(PublishCommand { id, .. }) => Some(id.answer(Err(error))),
            CommandRequest::History { id, .. } => Some(id.answer(Err(error))),
            CommandRequest::RemoveHistory { id, .. } => Some(id.answer(Err(error))),
            CommandRequest::ChannelTtl { id, .. } => Some(id.answer(Err(error))),
            CommandRequest::Presence(PresenceRequest::Clients { id, .. }) => {
                Some(id.answer(Err(error)))
            }
            CommandRequest::Presence(PresenceRequest::Stats { id, .. }) => {
                Some(id.answer(Err(error)))
            }
            CommandRequest::Revoke { id, .. } => Some(id.answer(Err(error))),
            CommandRequest::FindRevocation { id, .. } => Some(id.answer(Err(error))),
            CommandRequest::Announce { .. }
            | CommandRequest::LimitTtl { .. }
            | CommandRequest::Presence(
                PresenceRequest::Add { .. } | PresenceRequest::Remove { .. },
            )
            | CommandRequest::Control(_)
            | CommandRequest::Answer { .. } => None,
        }
    }
}

impl From<BrokerRequest> for RedisRequest {
    fn from(request: BrokerRequest) -> RedisRequest {
        RedisRequest::Command(match request {
            BrokerRequest::Publications(request) => return request.into(),
            BrokerRequest::Presence(request) => CommandRequest::Presence(request),
            BrokerRequest::NodeBus(request) => match request {
                NodeBusRequest::Control(control) => CommandRequest::Control(control),
                NodeBusRequest::Answer { ticket, answer } => {
                    CommandRequest::Answer { ticket, answer }
                }
                NodeBusRequest::Lifecycle(event) => return RedisRequest::Lifecycle(event),
                NodeBusRequest::Survey { id, question } => {
                    return RedisRequest::Survey { id, question };
                }
            },
            BrokerRequest::Registry(request) => match request {
                RegistryRequest::Revoke { id, revocation } => {
                    CommandRequest::Revoke { id, revocation }
                }
                RegistryRequest::Find { id, subject } => {
                    CommandRequest::FindRevocation { id, subject }
                }
                RegistryRequest::Read { id } => return RedisRequest::ReadRevocations { id },
            },
        })
    }
}

impl From<PublicationsRequest> for RedisRequest {
    fn from(request: PublicationsRequest) -> RedisRequest {
        RedisRequest::Command(match request {
            PublicationsRequest::Subscribe { id, channel, read } => {
                CommandRequest::Subscribe { id, channel, read }
            }
            PublicationsRequest::Unsubscribe { channel } => {
                return RedisRequest::Unsubscribe { channel };
            }
            PublicationsRequest::Publish { id, channel, publication, options } => {
                CommandRequest::Publish(PublishCommand { id, channel, publication, options })
            }
            PublicationsRequest::Announce { channel, info, change } => {
                CommandRequest::Announce { channel, info, change }
            }
            PublicationsRequest::History { id, channel, query, meta_ttl_ms } => {
                CommandRequest::History { id, channel, query, meta_ttl_ms }
            }
            PublicationsRequest::RemoveHistory { id, channel } => {
                CommandRequest::RemoveHistory { id, channel }
            }
            PublicationsRequest::LimitTtl { channel, ttl_ms } => {
                CommandRequest::LimitTtl { channel, ttl_ms }
            }
            PublicationsRequest::ChannelTtl { id, channel } => {
                CommandRequest::ChannelTtl { id, channel }
            }
        })
    }
}
