//! Revocations survive a lost connection between store and notice, and the loss of their stream: a
//! reported success holds.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::conformance::World as _;
use brokers::Endpoint;
use brokers::nats::NatsOptions;
use engine::broker::{BrokerError, BrokerEvent, BrokerReply, RegistryRequest, RequestId};
use engine::revocation::{Revocation, RevocationState, RevokeOutcome, Subject};

use crate::comeback::RawClient;
use crate::pair::LONG;
use crate::server::Server;
use crate::world::NatsWorld;

/// A proxy that closes the connection instead of forwarding the next notice to all nodes.
struct NoticeProxy {
    port: u16,
    is_armed: Arc<AtomicBool>,
}

impl NoticeProxy {
    fn start(to: u16) -> NoticeProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_armed = Arc::new(AtomicBool::new(false));
        let armed = is_armed.clone();
        std::thread::spawn(move || {
            for inner in listener.incoming() {
                let inner = inner.unwrap();
                let Ok(outer) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                for (from, to, armed) in
                    [(&inner, &outer, Some(armed.clone())), (&outer, &inner, None)]
                {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || carry(from, to, armed.as_deref()));
                }
            }
        });
        NoticeProxy { port, is_armed }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, armed: Option<&AtomicBool>) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..length];
        let is_notice = || has(bytes, b"PUB tidings.control ") && has(bytes, b"ann");
        if armed.is_some_and(|armed| is_notice() && armed.swap(false, Ordering::SeqCst))
            || to.write_all(bytes).is_err()
        {
            break;
        }
    }
    for stream in [from, to] {
        // The other side may be closed.
        let _gone = stream.shutdown(Shutdown::Both);
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn revocation() -> Arc<Revocation> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let state = RevocationState::Revoked { issued_before: 0 };
    let ends_at = i64::try_from(now_s).unwrap() + 600;
    Arc::new(Revocation { subject: Subject::User("ann".into()), state, ends_at, changed_at_ms: 7 })
}

fn revoke(
    world: &mut NatsWorld,
    endpoint: Endpoint,
    revocation: &Arc<Revocation>,
) -> Result<RevokeOutcome, BrokerError> {
    let (id, revocation) = (RequestId::new(1), revocation.clone());
    world.submit(endpoint, RegistryRequest::Revoke { id, revocation });
    loop {
        let event = world.next_within(endpoint, LONG).expect("a reply in time");
        if let BrokerEvent::Reply(BrokerReply::Revoked(_, result)) = event {
            return result;
        }
    }
}

/// The next event of a kind, if one arrives in time.
fn next_such(
    world: &mut NatsWorld,
    endpoint: Endpoint,
    wait: Duration,
    is_such: impl Fn(&BrokerEvent) -> bool,
) -> bool {
    loop {
        match world.next_within(endpoint, wait) {
            Some(event) if is_such(&event) => return true,
            Some(_) => {}
            None => return false,
        }
    }
}

#[test]
fn a_connection_lost_before_the_notice_fails_the_call_and_a_retry_notifies() {
    let server = Server::start();
    let proxy = NoticeProxy::start(server.port);
    let options = server.options();
    let behind = NatsOptions { url: format!("nats://127.0.0.1:{}", proxy.port), ..options.clone() };
    let mut far = NatsWorld::named(&behind, 1, "far");
    let mut near = NatsWorld::named(&options, 1, "near");
    let (caller, other) = (far.attach(), near.attach());
    let change = revocation();
    proxy.is_armed.store(true, Ordering::SeqCst);
    assert_eq!(revoke(&mut far, caller, &change), Err(BrokerError::Unavailable));
    assert!(!proxy.is_armed.load(Ordering::SeqCst), "the proxy has not seen the notice");
    assert_eq!(server.messages("tidings_revocations"), 1, "it is stored");
    far.wait_health(0, "ready");
    let stored = Ok(RevokeOutcome::Stored);
    assert_eq!(revoke(&mut far, caller, &change), stored);
    let is_notice = |event: &BrokerEvent| matches!(event, BrokerEvent::Revocation(reported) if *reported == change);
    assert!(next_such(&mut near, other, LONG, is_notice));
}

#[test]
fn a_deleted_stream_is_created_again_and_nodes_are_notified() {
    let server = Server::start();
    let options = NatsOptions { lease_ms: 4_000, ..server.options() };
    let mut world = NatsWorld::new(&options, 1);
    let endpoint = world.attach();
    let change = revocation();
    let stored = Ok(RevokeOutcome::Stored);
    assert_eq!(revoke(&mut world, endpoint, &change), stored);
    RawClient::new(&server).ask("$JS.API.STREAM.DELETE.tidings_revocations", "");
    let is_stale = |event: &BrokerEvent| matches!(event, BrokerEvent::RevocationsStale);
    assert!(next_such(&mut world, endpoint, LONG, is_stale));
    assert_eq!(revoke(&mut world, endpoint, &change), stored, "the same is stored again");
    assert_eq!(server.messages("tidings_revocations"), 1);
}
