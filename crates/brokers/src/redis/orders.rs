//! Orders of the server API that this node has sent and whose replies are outstanding.
//!
//! Invariant: the endpoints of this node receive an order that Redis does not acknowledge by
//! themselves, unless it has come back to this node as a control message.

use std::collections::VecDeque;
use std::sync::Arc;

use engine::broker::Control;

/// See the module. Orders have no id: one of another node that is equal counts as returned, which
/// has the same effect.
#[derive(Default)]
pub(super) struct SentOrders {
    outstanding: VecDeque<Arc<Control>>,
}

/// Whether an order has come back to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrderReturn {
    Returned,
    Missing,
}

impl SentOrders {
    /// An endpoint of this node has submitted an order.
    pub(super) fn begin(&mut self, order: &Arc<Control>) {
        self.outstanding.push_back(order.clone());
    }

    /// An order has arrived from Redis.
    pub(super) fn handle_message(&mut self, order: &Control) {
        let sent = self.outstanding.iter().position(|sent| **sent == *order);
        sent.and_then(|index| self.outstanding.remove(index));
    }

    /// The request of an order has ended.
    pub(super) fn end(&mut self, order: &Arc<Control>) -> OrderReturn {
        let sent = self.outstanding.iter().position(|sent| Arc::ptr_eq(sent, order));
        match sent.and_then(|index| self.outstanding.remove(index)) {
            Some(_) => OrderReturn::Missing,
            None => OrderReturn::Returned,
        }
    }
}
