//! What a backend is asked.
//!
//! Invariant: a request contains what the session knows. What belongs to the client's HTTP request
//! is in `headers`.

use bytes::Bytes;

/// A request to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyRequest {
    /// Id of the client.
    pub client: String,
    /// Name of its transport, such as `websocket`.
    pub transport: &'static str,
    /// `json` or `protobuf`.
    pub protocol: &'static str,
    /// Id of the user; empty for an anonymous one, and in a connect request.
    pub user: String,
    /// Meta of the connection as JSON; empty if it has none.
    pub meta: Bytes,
    /// What is asked.
    pub question: ProxyQuestion,
}

/// What is asked of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyQuestion {
    /// Who is this client, and may it connect?
    Connect {
        /// Data of the connect command.
        data: Bytes,
        /// Name of the client library.
        name: String,
        /// Version of the client library.
        version: String,
        /// Channels that the client subscribes to with the connect command.
        channels: Vec<String>,
    },
    /// May this client stay connected?
    Refresh,
    /// May this client subscribe?
    Subscribe {
        /// Channel of the subscription.
        channel: String,
        /// Token of the command; empty without one.
        token: String,
        /// Data of the subscribe command.
        data: Bytes,
    },
    /// May this client publish?
    Publish {
        /// Channel of the publication.
        channel: String,
        /// Data of the publication.
        data: Bytes,
    },
    /// May this client stay subscribed?
    SubRefresh {
        /// Channel of the subscription.
        channel: String,
    },
    /// A call of the application.
    Rpc {
        /// Name of the method.
        method: String,
        /// Data of the call.
        data: Bytes,
    },
}

/// The kinds of [`ProxyQuestion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the questions")]
pub enum ProxyMethod {
    Connect,
    Refresh,
    Subscribe,
    Publish,
    SubRefresh,
    Rpc,
}

impl ProxyMethod {
    /// Its name in configuration keys, logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ProxyMethod::Connect => "connect",
            ProxyMethod::Refresh => "refresh",
            ProxyMethod::Subscribe => "subscribe",
            ProxyMethod::Publish => "publish",
            ProxyMethod::SubRefresh => "sub_refresh",
            ProxyMethod::Rpc => "rpc",
        }
    }

    /// Whether asking twice has the same effect as asking once.
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        match self {
            ProxyMethod::Connect
            | ProxyMethod::Refresh
            | ProxyMethod::Subscribe
            | ProxyMethod::SubRefresh => true,
            ProxyMethod::Publish | ProxyMethod::Rpc => false,
        }
    }
}

impl ProxyRequest {
    /// The kind of the question.
    #[must_use]
    pub fn method(&self) -> ProxyMethod {
        match self.question {
            ProxyQuestion::Connect { .. } => ProxyMethod::Connect,
            ProxyQuestion::Refresh => ProxyMethod::Refresh,
            ProxyQuestion::Subscribe { .. } => ProxyMethod::Subscribe,
            ProxyQuestion::Publish { .. } => ProxyMethod::Publish,
            ProxyQuestion::SubRefresh { .. } => ProxyMethod::SubRefresh,
            ProxyQuestion::Rpc { .. } => ProxyMethod::Rpc,
        }
    }
}
