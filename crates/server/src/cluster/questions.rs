//! Questions that nodes ask each other, and their answers, as JSON.
//!
//! Invariant: the answer of one node stays below [`ANSWER_SIZE_MAX`] bytes, and says when it is
//! incomplete.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{ANSWER_SIZE_MAX, CLIENTS_ANSWER_MAX};

/// A question to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Question {
    /// Identity and totals of the node.
    Info,
    /// Channels with subscribers, and their number.
    Channels {
        /// Glob that channel names must match.
        pattern: String,
    },
    /// Number of subscribers of one channel.
    Channel {
        /// Name of the channel.
        channel: String,
    },
    /// Clients of the node.
    Clients {
        /// User id; `None` selects all users.
        user: Option<String>,
        /// Client id; `None` selects all clients of the user.
        client: Option<String>,
    },
    /// Subscribers of one channel, in the order of their client ids.
    Subscribers {
        /// Name of the channel.
        channel: String,
        /// Client id before the first one; empty for the beginning.
        after: String,
        /// Maximum number of subscribers.
        limit: usize,
    },
}

/// Answer to [`Question::Info`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeInfo {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) num_clients: usize,
    pub(crate) num_users: usize,
    pub(crate) num_subs: usize,
    pub(crate) num_channels: usize,
    pub(crate) uptime: u64,
}

/// Answer to [`Question::Channels`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ActiveChannels {
    pub(crate) channels: BTreeMap<String, usize>,
    /// Whether the node has more channels than the answer holds.
    pub(crate) is_cut: bool,
}

/// Answer to [`Question::Clients`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ClientList {
    pub(crate) clients: Vec<ClientPlace>,
    /// Whether the node has more clients than the answer holds.
    pub(crate) is_cut: bool,
}

/// A client and the node that it is connected to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClientPlace {
    pub(crate) client: String,
    pub(crate) user: String,
    /// Name of the node.
    pub(crate) node: String,
    /// Unix time in milliseconds.
    pub(crate) connected_at: i64,
    pub(crate) channels: Vec<String>,
}

/// Answer to [`Question::Subscribers`]: the first subscribers of the node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SubscriberList {
    /// Name of the node.
    pub(crate) node: String,
    /// Client id and user id, in the order of client ids.
    pub(crate) subscribers: Vec<(String, String)>,
    /// Whether the node may have more behind the last one.
    pub(crate) has_more: bool,
}

impl SubscriberList {
    /// Adds the next subscriber. Returns `false` if the answer is full.
    pub(crate) fn add(&mut self, size: &mut usize, client: String, user: String) -> bool {
        *size += client.len() + user.len() + SUBSCRIBER_SIZE;
        self.has_more = *size > ANSWER_SIZE_MAX && !self.subscribers.is_empty();
        if !self.has_more {
            self.subscribers.push((client, user));
        }
        !self.has_more
    }
}

impl ActiveChannels {
    /// Adds a channel, unless the answer would exceed [`ANSWER_SIZE_MAX`].
    pub(crate) fn add(&mut self, size: &mut usize, name: &str, clients: usize) {
        *size += name.len() + 16;
        if *size > ANSWER_SIZE_MAX {
            self.is_cut = true;
        } else {
            *self.channels.entry(name.to_owned()).or_default() += clients;
        }
    }
}

impl ClientList {
    /// Adds a client, unless the answer would exceed [`ANSWER_SIZE_MAX`] or [`CLIENTS_ANSWER_MAX`].
    pub(crate) fn add(&mut self, size: &mut usize, client: ClientPlace) {
        let channels: usize = client.channels.iter().map(|channel| channel.len() + 4).sum();
        *size += channels + client.user.len() + CLIENT_SIZE;
        if *size > ANSWER_SIZE_MAX || self.clients.len() >= CLIENTS_ANSWER_MAX {
            self.is_cut = true;
        } else {
            self.clients.push(client);
        }
    }
}

/// Estimated bytes of a subscriber in an answer, without its ids.
const SUBSCRIBER_SIZE: usize = 8;

/// Estimated bytes of a client in an answer, without its user and channels.
const CLIENT_SIZE: usize = 200;
