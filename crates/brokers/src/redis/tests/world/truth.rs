//! What really happened, from the servers' own logs, and the rules that must hold for it.
//!
//! Invariant: a violated rule is a panic that names it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::channel::LIFECYCLE;
use wire::protocol::Publication;

use super::messages::{MessageLog, PlainMessage};
use crate::redis::keys::{Keys, PubSubName};
use crate::redis::payload::{self, ChannelPayload};
use crate::redis::tests::model::store::Published;

/// See the module.
pub(super) struct Truth {
    keys: Keys,
    /// The content of every position that anybody has seen.
    positions: BTreeMap<(Arc<str>, String, u64), Vec<u8>>,
    /// Contents that a server has published.
    published: BTreeSet<Vec<u8>>,
    /// Messages that have no position.
    pub(super) messages: MessageLog,
    /// Leaves that the broker of publications has taken, where Redis carries presence only.
    pub(super) left: BTreeSet<(Arc<str>, String)>,
    /// Last number that a server has published, by endpoint and channel.
    last_numbers: BTreeMap<String, u64>,
    /// Lifecycle events that a server has published: client and event.
    pub(super) lifecycle: BTreeSet<(String, String)>,
}

impl Truth {
    pub(super) fn new(prefix: &str) -> Truth {
        Truth {
            keys: Keys::new(prefix, "nobody"),
            positions: BTreeMap::new(),
            published: BTreeSet::new(),
            messages: MessageLog::default(),
            left: BTreeSet::new(),
            last_numbers: BTreeMap::new(),
            lifecycle: BTreeSet::new(),
        }
    }

    pub(super) fn has_published(&self, data: &[u8]) -> bool {
        self.published.contains(data)
    }

    /// The channel of a name at a server.
    pub(super) fn channel(&self, name: &[u8]) -> Option<Arc<str>> {
        match self.keys.pubsub_name(std::str::from_utf8(name).ok()?)? {
            PubSubName::Channel(channel) => Some(channel.into()),
            PubSubName::Control | PubSubName::Probe => None,
        }
    }

    /// A server has published a message.
    pub(super) fn handle_published(&mut self, server: usize, message: &Published) {
        let name = std::str::from_utf8(&message.channel).expect("names are text");
        let Some(PubSubName::Channel(channel)) = self.keys.pubsub_name(name) else { return };
        let (publication, epoch) = match payload::decode(&message.payload) {
            Some(ChannelPayload::Publication { publication, epoch }) => (publication, epoch),
            Some(ChannelPayload::Membership { info, change }) => {
                let message = PlainMessage::Membership(info.client, change);
                return self.messages.add(&channel.into(), server, message);
            }
            None => return,
        };
        if channel == LIFECYCLE {
            return self.handle_lifecycle(&publication);
        }
        let (channel, epoch): (Arc<str>, _) = (channel.into(), epoch.to_owned());
        if publication.offset == 0 {
            let message = PlainMessage::Publication(publication.data.to_vec());
            self.messages.add(&channel, server, message);
        }
        assert!(
            self.published.insert(publication.data.to_vec()),
            "a publication was executed twice: {:?}",
            publication.data
        );
        let text = std::str::from_utf8(&publication.data).expect("contents are text");
        let (sender, number) = text.rsplit_once('#').expect("sender and number");
        let number = number.parse().expect("a number");
        let before = self.last_numbers.insert(sender.to_owned(), number);
        assert!(before.is_none_or(|before| before < number), "{text} was overtaken by {before:?}");
        self.check(&channel, &epoch, &publication);
    }

    fn handle_lifecycle(&mut self, publication: &Publication) {
        let event: serde_json::Value =
            serde_json::from_slice(&publication.data).expect("lifecycle events are JSON");
        let text = |name: &str| event[name].as_str().expect("a text").to_owned();
        self.lifecycle.insert((text("client_id"), text("event")));
    }

    /// A publication is seen at a position: nobody may have seen another one there.
    pub(super) fn check(&mut self, channel: &Arc<str>, epoch: &str, publication: &Publication) {
        if publication.offset == 0 {
            return;
        }
        let position = (channel.clone(), epoch.to_owned(), publication.offset);
        let data = publication.data.to_vec();
        let known = self.positions.entry(position).or_insert_with(|| data.clone());
        assert_eq!(*known, data, "two publications at {channel} {epoch} {}", publication.offset);
    }
}
