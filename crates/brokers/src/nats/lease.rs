//! The lease of this node at NATS: it makes the calls that the lease's core asks for.
//!
//! Invariant: one renewal runs at a time, and none after the end of the lease.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use engine::broker::BrokerError;
use tokio::sync::Mutex;
use tokio::time::Duration;

use super::lease_core::{CreationTimes, LeaseAnswer, LeaseCall, LeaseCore, LeaseState, LeaseStep};
use super::link::NatsLink;

/// See the module.
pub(super) struct Lease {
    link: Rc<NatsLink>,
    core: RefCell<LeaseCore>,
    /// Held by the one task that renews the lease.
    renewing: Mutex<()>,
}

impl Lease {
    pub(super) fn new(link: Rc<NatsLink>, name: &str, ttl_ms: u64) -> Lease {
        let core = LeaseCore::new(Instant::now(), name, Duration::from_millis(ttl_ms));
        Lease { link, core: RefCell::new(core), renewing: Mutex::default() }
    }

    /// See [`LeaseCore::reason`].
    pub(super) fn reason(&self) -> Option<String> {
        self.core.borrow().reason(Instant::now())
    }

    /// See [`LeaseCore::is_claimed`].
    pub(super) fn is_claimed(&self) -> bool {
        self.core.borrow().is_claimed()
    }

    /// Stores the lease again. Fails also while another node cleans up this one.
    pub(super) async fn renew(&self) -> Result<LeaseState, BrokerError> {
        let _renewing = self.renewing.lock().await;
        let mut step = self.core.borrow_mut().begin_renewal(Instant::now());
        loop {
            let call = match step {
                LeaseStep::Call(call) => call,
                LeaseStep::Done(result) => return result,
            };
            let answer = self.call(call).await;
            step = self.core.borrow_mut().handle(Instant::now(), answer);
        }
    }

    /// Waits for a renewal in progress and prevents further ones, so that the lease can be removed.
    pub(super) async fn end(&self) {
        let _renewing = self.renewing.lock().await;
        self.core.borrow_mut().end();
    }

    async fn call(&self, call: LeaseCall) -> Result<LeaseAnswer, BrokerError> {
        let names = &self.link.names;
        let subject = names.lease(&names.node);
        match call {
            LeaseCall::ReadStreams => self.read_streams().await.map(LeaseAnswer::Streams),
            LeaseCall::Store { after, payload } => {
                let stored = self.link.store(&subject, Some(after), "", payload).await;
                stored.map(LeaseAnswer::Stored)
            }
            LeaseCall::ReadNewest => {
                let newest = self.link.newest(&names.presence_stream(), &subject).await;
                newest.map(LeaseAnswer::Newest)
            }
        }
    }

    async fn read_streams(&self) -> Result<CreationTimes, BrokerError> {
        let (link, names) = (&self.link, &self.link.names);
        let presence = link.stream_info(&names.presence_stream()).await?;
        let events = link.stream_info(&names.events_stream()).await?;
        let made = |info: &serde_json::Value| info["created"].as_str().map(str::to_owned);
        let made = |info| made(info).ok_or(BrokerError::Unavailable);
        Ok(CreationTimes { presence: made(&presence)?, events: made(&events)? })
    }
}
