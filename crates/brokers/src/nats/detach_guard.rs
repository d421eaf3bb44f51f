//! Shows when all channels of a node have handled the end of an endpoint.
//!
//! Invariant: the future ends when the last copy of its guard is dropped.

use std::rc::Rc;

use tokio::sync::oneshot;

/// See the module. Every channel gets a copy behind the requests of the endpoint.
#[derive(Clone)]
pub(super) struct DetachGuard {
    _copies: Rc<oneshot::Sender<()>>,
}

impl DetachGuard {
    pub(super) fn new() -> (DetachGuard, impl Future<Output = ()>) {
        let (sender, dropped) = oneshot::channel();
        let all_dropped = async move {
            // Nothing is sent: this is the end of the sender.
            let _dropped = dropped.await;
        };
        (DetachGuard { _copies: Rc::new(sender) }, all_dropped)
    }
}
