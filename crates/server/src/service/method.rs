//! Methods of the server API by name.
//!
//! Invariant: every method has exactly one name, which is used in paths, batches, scopes of keys
//! and metrics.

/// A method of the server API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Publish,
    Broadcast,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Refresh,
    Presence,
    PresenceStats,
    History,
    HistoryRemove,
    Channels,
    Channel,
    Clients,
    Subscribers,
    Info,
    Revoke,
    Unrevoke,
    Revocations,
    BlockUser,
    UnblockUser,
    RevokeToken,
    InvalidateUserTokens,
    Batch,
}

/// All methods with their names, in the order of [`Method`].
pub(crate) const METHODS: &[(&str, Method)] = &[
    ("publish", Method::Publish),
    ("broadcast", Method::Broadcast),
    ("subscribe", Method::Subscribe),
    ("unsubscribe", Method::Unsubscribe),
    ("disconnect", Method::Disconnect),
    ("refresh", Method::Refresh),
    ("presence", Method::Presence),
    ("presence_stats", Method::PresenceStats),
    ("history", Method::History),
    ("history_remove", Method::HistoryRemove),
    ("channels", Method::Channels),
    ("channel", Method::Channel),
    ("clients", Method::Clients),
    ("subscribers", Method::Subscribers),
    ("info", Method::Info),
    ("revoke", Method::Revoke),
    ("unrevoke", Method::Unrevoke),
    ("revocations", Method::Revocations),
    ("block_user", Method::BlockUser),
    ("unblock_user", Method::UnblockUser),
    ("revoke_token", Method::RevokeToken),
    ("invalidate_user_tokens", Method::InvalidateUserTokens),
    ("batch", Method::Batch),
];

/// Names of all methods.
pub const API_METHODS: [&str; METHODS.len()] = {
    let mut names = [""; METHODS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = METHODS[index].0;
        index += 1;
    }
    names
};

impl Method {
    pub(crate) fn named(name: &str) -> Option<Method> {
        METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    }

    /// Whether the method may be called without parameters.
    pub(crate) fn works_without_parameters(self) -> bool {
        matches!(self, Method::Info | Method::Channels | Method::Revocations)
    }

    /// Whether the method only reads. Its result may be large.
    pub(crate) fn is_read(self) -> bool {
        match self {
            Method::Presence
            | Method::PresenceStats
            | Method::History
            | Method::Channels
            | Method::Channel
            | Method::Clients
            | Method::Subscribers
            | Method::Info
            | Method::Revocations => true,
            Method::Publish
            | Method::Broadcast
            | Method::Subscribe
            | Method::Unsubscribe
            | Method::Disconnect
            | Method::Refresh
            | Method::HistoryRemove
            | Method::Revoke
            | Method::Unrevoke
            | Method::BlockUser
            | Method::UnblockUser
            | Method::RevokeToken
            | Method::InvalidateUserTokens
            | Method::Batch => false,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        METHODS[self as usize].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_have_their_own_names() {
        for (name, method) in METHODS {
            assert_eq!((method.name(), Method::named(name)), (*name, Some(*method)));
        }
    }
}
