//! A panic in the broker's thread aborts the process with a message, instead of leaving requests
//! without replies.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use brokers::{Broker as _, Inbox, RedisBroker};
use engine::broker::{BrokerEvent, JoinRead, PublicationsRequest, RequestId};

use crate::server::{RedisServer, wait_until};
use crate::world::{at, settings};

/// Variable with the address of Redis; set in the child process that is to abort.
const REDIS: &str = "TIDINGS_TEST_OF_A_PANIC";

struct Panics;

impl Inbox for Panics {
    fn deliver(&self, _event: BrokerEvent) {
        panic!("as if the broker had a mistake");
    }

    fn is_full(&self) -> bool {
        false
    }
}

#[test]
fn a_panic_of_the_broker_ends_the_process_with_a_message() {
    if let Ok(address) = std::env::var(REDIS) {
        let broker = RedisBroker::start(settings(&[address])).unwrap();
        wait_until("it is ready", || broker.health() == brokers::Health::Ready);
        let endpoint = broker.attach(Arc::new(Panics));
        let (id, channel, read) = (RequestId::new(1), "room".into(), JoinRead::Nothing);
        let request = PublicationsRequest::Subscribe { id, channel, read };
        broker.submit(endpoint, request.into());
        wait_until("the process ends", || false);
    }
    let server = RedisServer::start(&[]);
    let name = "supervision::a_panic_of_the_broker_ends_the_process_with_a_message";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(REDIS, &at(&server)[0])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    std::io::stdout().write_all(words.as_bytes()).unwrap();
    assert!(!output.status.success());
    assert!(words.contains("the Redis broker has failed"), "{words}");
}
