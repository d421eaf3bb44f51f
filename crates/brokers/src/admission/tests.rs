//! Requests to a queue that nobody reads.
//!
//! Invariant: what waits is bounded by what the endpoint has begun, and its last state is kept.

use std::cell::{Cell, RefCell};

use engine::broker::{JoinRead, Membership, RequestId};
use wire::protocol::ClientInfo;

use super::*;

const FULL: usize = 8;
const WORKER: Endpoint = Endpoint(1);

/// A queue that nobody reads until [`Requests::drain`].
#[derive(Default)]
struct Requests {
    admission: RequestAdmission,
    queue: Queued,
    numbers: Cell<u64>,
}

#[derive(Default)]
struct Queued(RefCell<Vec<BrokerRequest>>);

impl RequestQueue for Queued {
    fn is_full(&self) -> bool {
        self.0.borrow().len() >= FULL
    }

    fn push(&self, endpoint: Endpoint, request: BrokerRequest) {
        assert_eq!(endpoint, WORKER);
        self.0.borrow_mut().push(request);
    }
}

impl Requests {
    fn submit(&self, request: impl Into<BrokerRequest>) -> bool {
        self.admission.submit(&self.queue, WORKER, request.into()).is_none()
    }

    /// What a worker submits when a client subscribes; returns whether it is admitted.
    fn join(&self, channel: &str, client: &str) -> bool {
        let channel: Arc<str> = channel.into();
        let id = RequestId::new(self.numbers.replace(self.numbers.get() + 1));
        let limit = || PublicationsRequest::LimitTtl { channel: channel.clone(), ttl_ms: 1_000 };
        self.submit(limit());
        let read = JoinRead::Nothing;
        let is_admitted =
            self.submit(PublicationsRequest::Subscribe { id, channel: channel.clone(), read });
        self.submit(limit());
        self.submit(add(&channel, client));
        is_admitted
    }

    fn leave(&self, channel: &str, client: &str) {
        let (channel, client): (Arc<str>, _) = (channel.into(), info(client));
        self.submit(PublicationsRequest::Unsubscribe { channel: channel.clone() });
        self.submit(PresenceRequest::Remove { channel: channel.clone(), client: client.clone() });
        let change = Membership::Leave;
        self.submit(PublicationsRequest::Announce { channel, info: client, change });
    }

    fn length(&self) -> usize {
        self.queue.0.borrow().len()
    }

    fn drain(&self) -> Vec<BrokerRequest> {
        self.queue.0.take()
    }

    fn postponed(&self) -> usize {
        let states = self.admission.lock();
        let held: usize = states.values().map(|state| state.postponed.len()).sum();
        assert_eq!(held, self.admission.postponed.load(Ordering::Relaxed));
        held
    }

    fn begun(&self) -> usize {
        self.admission.lock().values().map(|state| state.begun.len()).sum()
    }
}

fn info(client: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo { client: client.into(), ..ClientInfo::default() })
}

fn add(channel: &Arc<str>, client: &str) -> PresenceRequest {
    PresenceRequest::Add { channel: channel.clone(), info: info(client), announces: true }
}

#[test]
fn joins_and_leaves_of_one_client_wait_as_state_however_many_there_are() {
    let requests = Requests::default();
    for _ in 0..10_000 {
        requests.join("a", "client");
        requests.leave("a", "client");
    }
    assert!(requests.length() <= FULL + 3, "{} requests", requests.length());
    assert_eq!((requests.postponed(), requests.begun()), (0, 0));
}

#[test]
fn new_names_of_channels_leave_nothing_behind() {
    let requests = Requests::default();
    for number in 0..10_000 {
        requests.join(&format!("a{number}"), "client");
        requests.leave(&format!("a{number}"), "client");
    }
    assert!(requests.length() <= FULL + 3, "{} requests", requests.length());
    assert_eq!((requests.postponed(), requests.begun()), (0, 0));
}

#[test]
fn what_was_begun_ends_and_what_is_postponed_is_added() {
    let requests = Requests::default();
    assert!(requests.join("first", "client"));
    while requests.length() < FULL {
        assert!(requests.submit(add(&"first".into(), &requests.length().to_string())));
    }
    assert!(!requests.join("second", "client"));
    assert_eq!(requests.postponed(), 1);
    requests.leave("first", "client");
    assert_eq!(requests.length(), FULL + 2, "both ends of the first");
    requests.drain();
    requests.admission.resume(&requests.queue);
    let queued = requests.drain();
    let [BrokerRequest::Presence(PresenceRequest::Add { channel, .. })] = &*queued else {
        panic!("{queued:?}");
    };
    assert_eq!(&**channel, "second");
    assert_eq!(requests.postponed(), 0);
    requests.leave("second", "client");
    let queued = requests.drain();
    let [BrokerRequest::Presence(PresenceRequest::Remove { .. }), BrokerRequest::Publications(_)] =
        &*queued
    else {
        panic!("a subscription that was refused has no end: {queued:?}");
    };
}

#[test]
fn an_entry_that_is_replaced_while_the_queue_is_full_is_removed() {
    let requests = Requests::default();
    requests.submit(add(&"a".into(), "client"));
    while requests.length() < FULL {
        requests.submit(add(&"b".into(), &requests.length().to_string()));
    }
    requests.submit(add(&"a".into(), "client"));
    assert_eq!(requests.postponed(), 1);
    requests.submit(PresenceRequest::Remove { channel: "a".into(), client: info("client") });
    assert_eq!((requests.postponed(), requests.length()), (0, FULL + 1));
}

#[test]
fn a_request_stands_behind_the_postponed_entries_of_its_endpoint() {
    let requests = Requests::default();
    while requests.length() < FULL {
        requests.submit(add(&"b".into(), &requests.length().to_string()));
    }
    requests.submit(add(&"a".into(), "client"));
    requests.drain();
    let id = RequestId::new(1);
    assert!(requests.submit(PresenceRequest::Clients { id, channel: "a".into() }));
    let queued = requests.drain();
    let is_read = |request: &BrokerRequest| request.has_reply();
    assert_eq!(queued.iter().map(is_read).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_subscription_whose_channel_cannot_be_limited_is_refused() {
    let requests = Requests::default();
    while requests.length() < FULL {
        requests.submit(add(&"b".into(), &requests.length().to_string()));
    }
    let channel: Arc<str> = "a".into();
    requests.submit(PublicationsRequest::LimitTtl { channel: channel.clone(), ttl_ms: 1 });
    requests.drain();
    let (id, read) = (RequestId::new(1), JoinRead::Nothing);
    let subscribe = PublicationsRequest::Subscribe { id, channel, read };
    assert!(!requests.submit(subscribe.clone()));
    assert!(requests.submit(subscribe));
}

#[test]
fn a_detached_endpoint_leaves_nothing_behind() {
    let requests = Requests::default();
    for client in 0..100 {
        requests.join("a", &client.to_string());
    }
    assert!(requests.postponed() > 0);
    requests.admission.detach(WORKER);
    assert_eq!((requests.postponed(), requests.begun()), (0, 0));
}
