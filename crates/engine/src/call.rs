//! Calls: questions of a session that its driver passes on, and their results.
//!
//! Invariant: a result is applied to the command that waits for this call, and to no other. The
//! result of a call that no session waits for any more changes nothing.

use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{ClientInfo, Codec, Disconnect, DisconnectCode, ErrorReply};

use crate::claims::{ConnectionClaims, SubscriptionClaims, SubscriptionGrant, TokenRefusal};
use crate::turn::TokenKind;

/// Identifies a call of a worker, for the worker's lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionCallId(u64);

/// A question of a session. The driver returns the result by
/// [`crate::worker::Worker::handle_call_result`], within a time that it bounds.
#[derive(Debug)]
pub enum SessionCall {
    /// Verify this token. The result is [`CallOutcome::Connection`] or
    /// [`CallOutcome::Subscription`].
    Verify {
        /// Kind of token.
        kind: TokenKind,
        /// The token. Must never be logged.
        token: String,
    },
    /// Ask the backend who this client is. The result is [`CallOutcome::Connect`].
    Connect(Box<ConnectCall>),
    /// Ask the backend whether an expired connection continues. The result is
    /// [`CallOutcome::Refresh`].
    Refresh(Caller),
    /// Ask a backend whether the client may subscribe. The result is [`CallOutcome::Subscribe`].
    Subscribe(Box<SubscribeCall>),
    /// Ask a backend whether the client may publish. The result is [`CallOutcome::Publish`].
    Publish(Box<PublishCall>),
    /// Ask a backend whether an expired subscription continues. The result is
    /// [`CallOutcome::SubRefresh`].
    SubRefresh(Box<SubRefreshCall>),
    /// Call a method of a backend. The result is [`CallOutcome::Rpc`].
    Rpc(Box<RpcCall>),
}

/// The admitted client for which a backend is asked.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Client id, user id and `conn_info`.
    pub info: Arc<ClientInfo>,
    /// Codec of the client's messages.
    pub codec: Codec,
    /// What else is passed on for this client; `None` for nothing.
    pub context: Option<Arc<CallContext>>,
}

/// What a session stores for calls only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallContext {
    /// JSON that token or backend attached to the connection, never sent to the client. Empty for
    /// none.
    pub meta: Bytes,
    /// Those headers of the connect command that rules name, with names in lower case.
    pub headers: Vec<(String, String)>,
}

/// A connect command without a token.
#[derive(Debug)]
pub struct ConnectCall {
    /// Client id that the session will have.
    pub client: String,
    /// Codec of the client's messages.
    pub codec: Codec,
    /// See [`CallContext::headers`].
    pub headers: Vec<(String, String)>,
    /// Data of the command.
    pub data: Bytes,
    /// Name of the client library.
    pub name: String,
    /// Version of the client library.
    pub version: String,
    /// Channels requested in the connect command.
    pub channels: Vec<String>,
}

/// A subscribe command.
#[derive(Debug)]
pub struct SubscribeCall {
    /// Client that subscribes.
    pub caller: Caller,
    /// Name of the proxy to ask.
    pub proxy: Arc<str>,
    /// Channel to subscribe to.
    pub channel: String,
    /// Data of the command.
    pub data: Bytes,
}

/// A publish command.
#[derive(Debug)]
pub struct PublishCall {
    /// Client that publishes.
    pub caller: Caller,
    /// Name of the proxy to ask.
    pub proxy: Arc<str>,
    /// Channel to publish to.
    pub channel: String,
    /// Data of the publication.
    pub data: Bytes,
}

/// An expired subscription.
#[derive(Debug)]
pub struct SubRefreshCall {
    /// Client that is subscribed.
    pub caller: Caller,
    /// Name of the proxy to ask.
    pub proxy: Arc<str>,
    /// Channel of the subscription.
    pub channel: Arc<str>,
}

/// An RPC command.
#[derive(Debug)]
pub struct RpcCall {
    /// Client that calls.
    pub caller: Caller,
    /// Name of the proxy to ask.
    pub proxy: Arc<str>,
    /// Name of the method.
    pub method: String,
    /// Argument of the method.
    pub data: Bytes,
}

/// The result of a [`SessionCall`].
#[derive(Debug)]
pub enum CallOutcome {
    /// Result for a connection token.
    Connection(Result<ConnectionClaims, TokenRefusal>),
    /// Result for a subscription token.
    Subscription(Result<SubscriptionClaims, TokenRefusal>),
    /// Result of [`SessionCall::Connect`]; `None` if the backend does not know the client.
    Connect(Result<Option<Box<ConnectionClaims>>, CallRefusal>),
    /// Result of [`SessionCall::Refresh`].
    Refresh(Result<Renewal, CallRefusal>),
    /// Result of [`SessionCall::Subscribe`].
    Subscribe(Result<SubscriptionGrant, CallRefusal>),
    /// Result of [`SessionCall::Publish`].
    Publish(Result<Box<PublishGrant>, CallRefusal>),
    /// Result of [`SessionCall::SubRefresh`].
    SubRefresh(Result<Renewal, CallRefusal>),
    /// Result of [`SessionCall::Rpc`].
    Rpc(Result<Bytes, CallRefusal>),
    /// The call has succeeded, but the server closes the connection for another reason.
    Close(DisconnectCode),
}

/// Why a backend refuses, or why it cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallRefusal {
    /// The command is answered with this error.
    Error(ErrorReply),
    /// The connection is closed.
    Disconnect(Disconnect),
}

/// Whether an expired connection or subscription continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It ends.
    Expired,
    /// It is renewed.
    Until {
        /// Unix time in seconds at which it expires again; `None` never expires.
        expire_at: Option<i64>,
        /// New information that other clients see; empty leaves it unchanged.
        info: Bytes,
        /// New [`CallContext::meta`]; empty leaves it unchanged. Of no effect for a subscription.
        meta: Bytes,
    },
}

/// How a client's publication is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishGrant {
    /// Data in place of the client's.
    pub data: Option<Bytes>,
    /// Whether the publication is not retained.
    pub skip_history: bool,
    /// Tags as key and value.
    pub tags: Vec<(String, String)>,
    /// See [`crate::broker::PublishOptions::idempotency_key`].
    pub idempotency_key: String,
    /// See [`crate::broker::PublishOptions::version`].
    pub version: u64,
    /// See [`crate::broker::PublishOptions::version_epoch`].
    pub version_epoch: String,
}

/// The source of call ids.
#[derive(Debug, Default)]
pub(crate) struct CallIds {
    last: u64,
}

impl CallIds {
    pub(crate) fn next(&mut self) -> SessionCallId {
        self.last += 1;
        SessionCallId(self.last)
    }
}
