//! What a backend answers.
//!
//! Invariant: of several answers in one envelope the first of disconnect, error and result holds.

use bytes::Bytes;

/// The answer of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyReply {
    /// Close the connection of the client.
    Disconnect {
        /// Code for the client.
        code: u32,
        /// Reason for the client.
        reason: String,
    },
    /// Refuse the command with this error.
    Error {
        /// Code for the client.
        code: u32,
        /// Message for the client.
        message: String,
        /// Whether the client may try again.
        temporary: bool,
    },
    /// What was asked for.
    Result(ProxyResult),
}

/// The result in the answer of a backend. `None` means that the answer has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyResult {
    /// Without a result the client is not authenticated.
    Connect(Option<Box<BackendConnect>>),
    /// Without a result the connection has expired.
    Refresh(Option<BackendRenewal>),
    /// Without a result the subscription is allowed as configured.
    Subscribe(Option<BackendSubscribe>),
    /// Without a result the publication is allowed as it is.
    Publish(Option<Box<BackendPublish>>),
    /// Without a result the subscription has expired.
    SubRefresh(Option<BackendRenewal>),
    /// Data of the reply.
    Rpc(Bytes),
}

/// A client as a backend has authenticated it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendConnect {
    /// Id of the user; empty for an anonymous one.
    pub user: String,
    /// Unix time in seconds at which the connection must be refreshed; 0 for never.
    pub expire_at: i64,
    /// Information about the client, for presence.
    pub info: Bytes,
    /// Data of the connect reply.
    pub data: Bytes,
    /// Channels that the server subscribes the client to, with the options of their namespaces.
    pub channels: Vec<String>,
    /// The same with options.
    pub subs: Vec<(String, BackendSubscribe)>,
    /// Meta of the connection as JSON, for later requests to backends.
    pub meta: Bytes,
}

/// Result of a refresh: whether a connection or subscription continues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendRenewal {
    /// The connection or subscription has expired.
    pub expired: bool,
    /// Unix time in seconds at which to ask again; 0 for never.
    pub expire_at: i64,
    /// New information about the client; empty to keep it.
    pub info: Bytes,
    /// New meta of the connection as JSON; empty to keep it.
    pub meta: Bytes,
}

/// A subscription as a backend allows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendSubscribe {
    /// Unix time in seconds at which the subscription must be refreshed; 0 for never.
    pub expire_at: i64,
    /// Information about the subscriber, for presence.
    pub info: Bytes,
    /// Data of the subscribe reply.
    pub data: Bytes,
    /// Options that replace those of the namespace.
    pub overrides: SubscribeOverrides,
}

/// Options of a subscription that replace those of its namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the options")]
pub struct SubscribeOverrides {
    pub presence: Option<bool>,
    pub join_leave: Option<bool>,
    pub force_recovery: Option<bool>,
    pub force_positioning: Option<bool>,
    pub force_push_join_leave: Option<bool>,
}

/// A publication as a backend allows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendPublish {
    /// Data in place of the client's.
    pub data: Option<Bytes>,
    /// Do not keep the publication in the history.
    pub skip_history: bool,
    /// Tags of the publication.
    pub tags: Vec<(String, String)>,
    /// Key by which repeated publications are recognised; empty for none.
    pub idempotency_key: String,
    /// Whether to send it as a delta.
    pub delta: bool,
    /// Version of the content; 0 for none.
    pub version: u64,
    /// Epoch of the version.
    pub version_epoch: String,
}

impl ProxyReply {
    /// Unix time in seconds from which the answer no longer holds; `None` if it names none.
    pub(crate) fn expire_at(&self) -> Option<i64> {
        let expire_at = match self {
            ProxyReply::Result(ProxyResult::Connect(Some(result))) => {
                let of_subs = result.subs.iter().map(|(_, options)| options.expire_at);
                let all = of_subs.chain([result.expire_at]);
                all.filter(|expire_at| *expire_at > 0).min().unwrap_or(0)
            }
            ProxyReply::Result(ProxyResult::Subscribe(Some(result))) => result.expire_at,
            _ => 0,
        };
        (expire_at > 0).then_some(expire_at)
    }

    /// Bytes of the texts and data in it, for the bound of the cache.
    pub(crate) fn size(&self) -> usize {
        let of_options = |options: &BackendSubscribe| options.info.len() + options.data.len() + 64;
        let inner = match self {
            ProxyReply::Disconnect { reason, .. } => reason.len(),
            ProxyReply::Error { message, .. } => message.len(),
            ProxyReply::Result(ProxyResult::Connect(Some(result))) => {
                let subs = result.subs.iter();
                let subs: usize = subs.map(|(name, sub)| name.len() + of_options(sub) + 24).sum();
                let channels: usize = result.channels.iter().map(|name| name.len() + 24).sum();
                let own = result.user.len() + result.info.len() + result.data.len();
                own + result.meta.len() + subs + channels + size_of::<BackendConnect>()
            }
            ProxyReply::Result(ProxyResult::Subscribe(Some(result))) => of_options(result),
            ProxyReply::Result(_) => 0,
        };
        inner + size_of::<ProxyReply>()
    }
}
