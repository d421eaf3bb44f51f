//! Questions that nodes ask each other, and their answers, as JSON.
//!
//! Invariant: the answer of one node stays below [`ANSWER_SIZE_MAX`] bytes, and says when it is
//! incomplete.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{ANSWER_SIZE_MAX, CLIENTS_ANSWER_MAX};

/// What a node may be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Question {
    /// Who are you, and what have you?
    Info,
    /// Which channels have subscribers, and how many?
    Channels {
        /// A glob.
        pattern: String,
    },
    /// How many subscribers has this channel?
    Channel {
        /// Its name.
        channel: String,
    },
    /// Which clients have you?
    Clients {
        /// Of this user; `None` for any.
        user: Option<String>,
        /// This one; `None` for all of the user.
        client: Option<String>,
    },
}

/// What a node says of itself (§3.3).
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

/// Channels of a node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ActiveChannels {
    pub(crate) channels: BTreeMap<String, usize>,
    /// There are more.
    pub(crate) is_cut: bool,
}

/// Clients of a node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ClientList {
    pub(crate) clients: Vec<ClientPlace>,
    /// There are more.
    pub(crate) is_cut: bool,
}

/// Where a client is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClientPlace {
    pub(crate) client: String,
    pub(crate) user: String,
    /// The name of its node.
    pub(crate) node: String,
    /// Unix milliseconds.
    pub(crate) connected_at: i64,
    pub(crate) channels: Vec<String>,
}

impl ActiveChannels {
    /// Adds a channel while the answer is not too long to be sent.
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
    /// Adds a client while the answer is not too long to be sent.
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

/// Bytes of a client in an answer beside its user and channels.
const CLIENT_SIZE: usize = 200;
