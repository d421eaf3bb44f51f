//! Checks that a subscriber with positions in many channels either received everything or was
//! notified of a gap.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use brokers::Endpoint;
use brokers::redis::RedisSettings;
use engine::broker::{BrokerEvent, RequestId};
use wire::protocol::StreamPosition;

use crate::server::wait_until;
use crate::world::{Node, publish};

/// A subscribed node, and the positions that it tracks.
pub(crate) struct Checker {
    node: Node,
    endpoint: Endpoint,
    positions: HashMap<Arc<str>, StreamPosition>,
    /// Gaps that were reported or detected.
    pub(crate) gaps: u32,
    pub(crate) received: u64,
}

impl Checker {
    pub(crate) fn start(settings: RedisSettings, channels: u32) -> Checker {
        let mut node = Node::start(settings);
        let endpoint = node.attach();
        let mut positions = HashMap::new();
        for index in 0..channels {
            let channel = channel(index);
            let stream = node.subscribe(endpoint, &channel).unwrap();
            positions.insert(channel.into(), stream.top);
        }
        Checker { node, endpoint, positions, gaps: 0, received: 0 }
    }

    /// Handles events until none arrives for a while.
    pub(crate) fn listen(&mut self, silence: Duration) {
        while let Some((_, event)) = self.node.inbox(self.endpoint).wait(silence) {
            self.take(event);
        }
    }

    fn take(&mut self, event: BrokerEvent) {
        let (channel, position, expected) = match event {
            BrokerEvent::Publication { channel, publication, epoch } => {
                self.received += 1;
                let position =
                    StreamPosition { offset: publication.offset, epoch: epoch.to_string() };
                (channel, position, 1)
            }
            BrokerEvent::Position { channel, top } => (channel, top, 0),
            _ => return,
        };
        let held = self.positions.get_mut(&channel).expect("a subscribed channel");
        let is_same_epoch = held.epoch == position.epoch;
        if is_same_epoch && position.offset <= held.offset {
            return;
        }
        self.gaps += u32::from(!is_same_epoch || position.offset != held.offset + expected);
        *held = position;
    }

    /// Asserts that nothing is missing without a reported gap.
    pub(crate) fn assert_complete(mut self) {
        self.node.wait_ready();
        self.listen(Duration::from_millis(500));
        let other = self.node.attach();
        for (channel, held) in &self.positions {
            let top = self.node.subscribe(other, channel).unwrap().top;
            assert_eq!(*held, top, "something is missing in {channel}");
        }
    }
}

pub(crate) fn channel(index: u32) -> String {
    format!("room-{index}")
}

/// A node that publishes a thousand times a second, into this many channels, until dropped.
pub(crate) struct Publisher {
    thread: Option<std::thread::JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
}

impl Publisher {
    pub(crate) fn start(settings: RedisSettings, channels: u32) -> Publisher {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), accepted.clone());
        let thread = std::thread::spawn(move || {
            let mut node = Node::start(settings);
            let endpoint = node.attach();
            let mut number = 0u64;
            while !stopped.load(Ordering::SeqCst) {
                let room = channel((number % u64::from(channels)) as u32);
                node.submit(endpoint, publish(RequestId::new(number), &room, "x"));
                number += 1;
                // Paces the publications; answers are counted meanwhile.
                while let Some((_, event)) = node.inbox(endpoint).wait(Duration::from_millis(1)) {
                    if matches!(&event, BrokerEvent::Reply(reply) if reply.outcome().1.is_ok()) {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        });
        Publisher { thread: Some(thread), stop, accepted }
    }

    /// Waits until this many more publications are accepted.
    pub(crate) fn wait_more(&self, count: u64) {
        let goal = self.accepted.load(Ordering::SeqCst) + count;
        wait_until("publications are accepted", || self.accepted.load(Ordering::SeqCst) >= goal);
    }

    pub(crate) fn stop(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}
