//! Many threads that submit at once: each sends directly while no reply is pending, and otherwise
//! leaves it to the broker's thread. Invariant: requests keep their order either way.

use engine::broker::{BrokerEvent, BrokerReply, RequestId};
use wire::protocol::Publication;

use crate::server::{PATIENCE, RedisServer};
use crate::world::{Node, at, publish, settings};

const THREADS: u64 = 4;
const PUBLICATIONS: u64 = 400;
/// Publications sent without waiting, followed by as many that wait for each reply.
const BURST: u64 = 8;

/// Publishes numbers; every reply must arrive, in order.
fn run(node: &Node, endpoint: brokers::Endpoint, thread: u64) {
    let mut answered = 0;
    let mut last = 0;
    for number in 0..PUBLICATIONS {
        let data = format!("{thread} {number}");
        node.submit(endpoint, publish(RequestId::new(number), "crowd", &data));
        let waits = number / BURST % 2 == 1 || number == PUBLICATIONS - 1;
        while waits && answered <= number {
            let event = node.inbox(endpoint).wait(PATIENCE).expect("every request gets a reply").1;
            let BrokerEvent::Reply(BrokerReply::Published(id, Ok(position))) = event else {
                panic!("publish answered {event:?}");
            };
            assert_eq!(id, RequestId::new(answered), "replies arrive in the order of the requests");
            assert!(position.offset > last, "published in another order");
            (answered, last) = (answered + 1, position.offset);
        }
    }
}

#[test]
fn requests_of_concurrent_threads_keep_their_order() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let listener = node.attach();
    node.subscribe(listener, "crowd").expect("subscribed");
    let endpoints: Vec<_> = (0..THREADS).map(|_| node.attach()).collect();
    std::thread::scope(|scope| {
        for (thread, endpoint) in (0..).zip(endpoints) {
            let node = &node;
            scope.spawn(move || run(node, endpoint, thread));
        }
    });
    let mut next = [0; THREADS as usize];
    for offset in 1..=THREADS * PUBLICATIONS {
        let received = loop {
            let event = node.inbox(listener).wait(PATIENCE).expect("every publication arrives").1;
            if let BrokerEvent::Publication { publication, .. } = event {
                break publication;
            }
        };
        let Publication { data, offset: is, .. } = &*received;
        assert_eq!(*is, offset);
        let words = std::str::from_utf8(data).unwrap().split_once(' ').unwrap();
        let (thread, number) = (words.0.parse::<usize>().unwrap(), words.1.parse::<u64>().unwrap());
        assert_eq!(number, next[thread], "of thread {thread}");
        next[thread] += 1;
    }
}
