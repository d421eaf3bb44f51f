//! Channel options that nodes announce to each other at their start, when they change, and with
//! every renewal of the lease.
//!
//! They are sent over the control subject and not with the lease, since a node without JetStream
//! has no lease, and such a node retains nothing. A node that starts requests the options of all
//! others. Invariant: the options of a node are dropped after the lifetime of a lease without an
//! announcement.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::time::{Duration, Instant};

use super::link::NatsLink;
use crate::channel_options::OtherNode;
use crate::control::{self, NodeOptions};
use crate::limits::NODES_MAX;

/// See the module.
pub(super) struct Announcements {
    link: Rc<NatsLink>,
    name: String,
    ttl: Duration,
    /// By node identifier; at most [`NODES_MAX`].
    announced: RefCell<HashMap<String, Announced>>,
}

/// The last announcement of another node.
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

    /// Sends the options of this node.
    pub(super) async fn send(&self) {
        if let Some(options) = self.own_options() {
            self.publish(&options).await;
        }
    }

    /// Sends the options of this node and requests those of all others.
    pub(super) async fn ask(&self) {
        if let Some(options) = self.own_options() {
            self.publish(&NodeOptions { asks: true, ..options }).await;
        }
    }

    fn own_options(&self) -> Option<NodeOptions> {
        let text = self.link.shared.options.encoded().text;
        let (node, name) = (self.link.names.node.clone(), self.name.clone());
        (!text.is_empty()).then_some(NodeOptions { node, name, text, asks: false })
    }

    async fn publish(&self, options: &NodeOptions) {
        let payload = control::encode_options(options);
        // A failure is retried with the next renewal.
        let _later = self.link.publish(self.link.names.control(), payload.into()).await;
    }

    /// Takes the options of another node; returns whether it requests those of this node.
    pub(super) fn handle(&self, options: NodeOptions) -> bool {
        let NodeOptions { node, name, text, asks } = options;
        if node == self.link.names.node {
            return false;
        }
        let mut announced = self.announced.borrow_mut();
        if announced.len() < NODES_MAX || announced.contains_key(&node) {
            announced.insert(node, Announced { at: Instant::now(), name, text });
        }
        drop(announced);
        self.refresh();
        asks
    }

    /// Drops nodes without an announcement of late, and adds warnings for options that differ.
    pub(super) fn refresh(&self) {
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
