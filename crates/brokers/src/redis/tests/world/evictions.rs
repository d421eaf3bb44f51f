//! The cleanup of a failed node where another broker publishes leaves.
//!
//! Invariant: a client is removed after its leave has reached that broker, and not before.

use std::sync::Arc;

use engine::broker::{BrokerError, BrokerEvent, BrokerReply, PresenceRequest, RequestId};
use wire::protocol::ClientInfo;

use super::pair::Pair;
use crate::redis::driver_messages::Job;
use crate::redis::outputs::CoreOutput;
use crate::redis::published_leaves::PublishedLeaves;
use crate::redis::settings::RedisParts;

/// A node without publications, and another one's clients in the channel "a".
struct Cleaner {
    pair: Pair,
    left: Vec<String>,
    unconfirmed: Vec<PublishedLeaves>,
}

impl Cleaner {
    /// The clients' node has failed; the cleanup is assigned to this node.
    fn new(clients: &[&str]) -> Cleaner {
        let mut pair = Pair::new(RedisParts::Presence);
        for client in clients {
            let info = ClientInfo { client: (*client).to_owned(), ..ClientInfo::default() };
            let (channel, info) = ("a".into(), Arc::new(info));
            pair.submit(PresenceRequest::Add { channel, info, announces: true });
        }
        pair.turn();
        let pair = pair.become_another_node("n2");
        Cleaner { pair, left: Vec::new(), unconfirmed: Vec::new() }
    }

    /// Runs until leaves are to be published.
    fn run_until_published(&mut self) {
        for _ in 0..400 {
            self.pair.pass(50);
            self.pair.turn();
            self.take_outputs();
            if !self.unconfirmed.is_empty() {
                return;
            }
        }
        panic!("no leave is published");
    }

    fn take_outputs(&mut self) {
        for output in self.pair.outputs() {
            match output {
                CoreOutput::Leave(channel, info) => {
                    assert_eq!(&*channel, "a");
                    self.left.push(info.client.clone());
                }
                CoreOutput::ConfirmLeaves(leaves) => self.unconfirmed.push(leaves),
                _ => {}
            }
        }
    }

    fn confirm(&mut self, result: Result<(), BrokerError>) {
        let leaves = self.unconfirmed.pop().expect("leaves were published");
        self.pair.handle_job(Job::LeavesConfirmed(leaves, result));
        self.pair.turn();
        self.take_outputs();
    }

    fn present(&mut self) -> usize {
        let (id, channel) = (RequestId::new(1), "a".into());
        self.pair.submit(PresenceRequest::Clients { id, channel });
        self.pair.turn();
        let clients = |event| match event {
            BrokerEvent::Reply(BrokerReply::Presence(_, Ok(clients))) => Some(clients.len()),
            _ => None,
        };
        self.pair.events().into_iter().find_map(clients).expect("a reply")
    }
}

#[test]
fn clients_are_removed_after_their_leaves_have_arrived() {
    let mut cleaner = Cleaner::new(&["c1", "c2"]);
    cleaner.run_until_published();
    cleaner.left.sort();
    assert_eq!(cleaner.left, ["c1", "c2"]);
    assert_eq!(cleaner.present(), 2, "they are published, but not known to have arrived");
    cleaner.confirm(Ok(()));
    assert_eq!(cleaner.present(), 0);
    assert_eq!(cleaner.left.len(), 2);
}

#[test]
fn leaves_that_have_not_arrived_are_published_by_the_next_cleanup() {
    let mut cleaner = Cleaner::new(&["c1"]);
    cleaner.run_until_published();
    cleaner.confirm(Err(BrokerError::Unavailable));
    assert_eq!(cleaner.present(), 1);
    cleaner.run_until_published();
    assert_eq!(cleaner.left, ["c1", "c1"]);
    cleaner.confirm(Ok(()));
    assert_eq!(cleaner.present(), 0);
}
