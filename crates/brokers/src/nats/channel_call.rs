//! What the core of a channel requests from NATS, and the answers.
//!
//! Invariant: a core waits for one call at a time, and each call has one answer unless it is
//! abandoned.

use std::sync::Arc;

use bytes::Bytes;
use engine::broker::BrokerError;
use wire::protocol::ClientInfo;

use super::rights::Right;
use super::stored_message::{Ack, StoredMessage};
use crate::Endpoint;

/// A request of a channel's core to NATS.
#[derive(Debug)]
pub(super) enum ChannelCall {
    /// Subscribes to the channel's subject.
    Subscribe,
    /// Hands a message on the channel's subject to the connection.
    Publish(Bytes),
    /// Waits until the server has handled everything that was sent before.
    Echo,
    /// [`ChannelCall::Echo`], which fails if the server has refused this right on the channel's
    /// subject. The refusal arrives before the echo.
    EchoWithRight(Right),
    /// Waits until the history stream has republished everything stored so far.
    Barrier,
    /// Reads the newest message of the channel's stream. Answered with [`CallAnswer::Message`].
    ReadTop,
    /// Reads one message of the history stream. Answered with [`CallAnswer::Message`].
    ReadMessage {
        sequence: u64,
    },
    /// Reads all messages of the channel's stream, at least up to this sequence, oldest first.
    /// Answered with [`CallAnswer::Messages`].
    ReadMessages {
        newest: u64,
    },
    /// Stores a message in the channel's stream if its newest one has the sequence `after`, and no
    /// message with the same identifier (empty for none) was stored of late. Answered with
    /// [`CallAnswer::Stored`].
    Store {
        after: u64,
        identifier: String,
        payload: Bytes,
    },
    /// Removes the channel's messages with a smaller sequence.
    RemoveBefore {
        sequence: u64,
    },
    /// Waits until the store is verified on the current connection.
    AwaitVerifiedStore,
    /// Waits for a permit to verify this channel. It is held until
    /// [`super::channel::ChannelAction::ReleasePermit`].
    AwaitPermit,
    AddPresence(Vec<(Endpoint, Arc<ClientInfo>)>),
    RemovePresence {
        endpoint: Endpoint,
        client: Arc<ClientInfo>,
    },
    /// Reads the clients present in the channel. Answered with [`CallAnswer::Clients`].
    ReadPresence,
}

/// A successful answer.
#[derive(Debug)]
pub(super) enum CallAnswer {
    Done,
    Message(Option<StoredMessage>),
    Messages(Vec<StoredMessage>),
    Stored(Ack),
    Clients(Vec<Arc<ClientInfo>>),
}

pub(super) type CallResult = Result<CallAnswer, BrokerError>;

/// The next step of an operation of several calls.
#[derive(Debug)]
pub(super) enum Step<T> {
    Call(ChannelCall),
    Done(T),
}

impl CallAnswer {
    pub(super) fn message(self) -> Option<StoredMessage> {
        match self {
            CallAnswer::Message(message) => message,
            other => unreachable!("a read of one message is answered with {other:?}"),
        }
    }

    pub(super) fn messages(self) -> Vec<StoredMessage> {
        match self {
            CallAnswer::Messages(messages) => messages,
            other => unreachable!("a read of messages is answered with {other:?}"),
        }
    }

    pub(super) fn ack(self) -> Ack {
        match self {
            CallAnswer::Stored(ack) => ack,
            other => unreachable!("a store is answered with {other:?}"),
        }
    }

    pub(super) fn clients(self) -> Vec<Arc<ClientInfo>> {
        match self {
            CallAnswer::Clients(clients) => clients,
            other => unreachable!("a read of presence is answered with {other:?}"),
        }
    }
}
