//! Channel options that nodes tell each other through NATS: at their start, when they change, and
//! with every renewal.
//!
//! Over the control subject and not with the lease: a node without JetStream has no lease, and it
//! is the one that retains nothing. A node that starts asks the others to tell theirs at once.
//! Invariant: a node that has fallen silent for as long as a lease counts no more.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::time::{Duration, Instant};

use super::link::NatsLink;
use crate::channel_options::OtherNode;
use crate::control::{self, NodeOptions};

/// See the module.
pub(super) struct Announcements {
    link: Rc<NatsLink>,
    name: String,
    ttl: Duration,
    /// By node.
    announced: RefCell<HashMap<String, Announced>>,
}

struct Announced {
    at: Instant,
    name: String,
    text: String,
}

impl Announcements {
    pub(super) fn new(link: Rc<NatsLink>, name: String, ttl_ms: u64) -> Announcements {
        let announced = RefCell::default();
        Announcements { link, name, ttl: Duration::from_millis(ttl_ms), announced }
    }

    /// Tells the options of this node.
    pub(super) async fn send(&self) {
        self.say(false).await;
    }

    /// Tells them, and asks others for theirs.
    pub(super) async fn ask(&self) {
        self.say(true).await;
    }

    async fn say(&self, asks: bool) {
        let text = self.link.shared.options.encoded().text;
        if text.is_empty() {
            return;
        }
        let (node, name) = (self.link.names.node.clone(), self.name.clone());
        let payload = control::encode_options(&NodeOptions { node, name, text, asks });
        // The next renewal says it again.
        let _later = self.link.publish(self.link.names.control(), payload.into()).await;
    }

    /// Another node has told its options. Says whether it wants to know those of this node.
    pub(super) fn handle(&self, options: NodeOptions) -> bool {
        let NodeOptions { node, name, text, asks } = options;
        if node == self.link.names.node {
            return false;
        }
        self.announced.borrow_mut().insert(node, Announced { at: Instant::now(), name, text });
        self.note();
        asks
    }

    /// Forgets who is silent, and warns of who differs.
    pub(super) fn note(&self) {
        let mut announced = self.announced.borrow_mut();
        announced.retain(|_, announced| announced.at.elapsed() < self.ttl);
        let nodes = announced.iter();
        let nodes = nodes.map(|(id, announced)| OtherNode {
            id,
            name: &announced.name,
            text: &announced.text,
        });
        for warning in self.link.shared.options.note(nodes) {
            self.link.shared.warnings.add(warning);
        }
    }
}
