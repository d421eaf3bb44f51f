//! A listener on one node and a publisher on another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conformance::World;
use brokers::Endpoint;
use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, BrokerRequest, JoinRead, JoinedStream, PublishOptions,
    RequestId,
};
use wire::protocol::{Publication, StreamPosition};

use crate::server::Server;
use crate::world::NatsWorld;

/// Time limit for every expected event.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Pair {
    pub(crate) world: NatsWorld,
    pub(crate) listener: Endpoint,
    pub(crate) publisher: Endpoint,
    pub(crate) channel: Arc<str>,
}

impl Pair {
    pub(crate) fn new(server: &Server) -> Pair {
        Pair::of(NatsWorld::new(&server.options(), 2))
    }

    pub(crate) fn of(mut world: NatsWorld) -> Pair {
        let (listener, publisher) = (world.attach(), world.attach());
        let channel = world.fresh_channel();
        Pair { world, listener, publisher, channel }
    }

    pub(crate) fn answer(
        &mut self,
        endpoint: Endpoint,
        request: impl FnOnce(Arc<str>) -> BrokerRequest,
    ) -> Result<BrokerReply, BrokerError> {
        self.world.submit(endpoint, request(self.channel.clone()));
        loop {
            let event = self.world.next_within(endpoint, LONG).expect("a reply in time");
            if let BrokerEvent::Reply { result, .. } = event {
                return result;
            }
        }
    }

    pub(crate) fn subscribe(&mut self) -> Result<JoinedStream, BrokerError> {
        self.join(self.listener, JoinRead::Position { meta_ttl_ms: 600_000 })
    }

    pub(crate) fn join(
        &mut self,
        endpoint: Endpoint,
        read: JoinRead,
    ) -> Result<JoinedStream, BrokerError> {
        let id = RequestId(1);
        match self.answer(endpoint, |channel| BrokerRequest::Subscribe { id, channel, read })? {
            BrokerReply::Subscribed(stream) => Ok(stream),
            other => panic!("unexpected reply to subscribe: {other:?}"),
        }
    }

    pub(crate) fn publish(&mut self, history_size: u32) -> Result<StreamPosition, BrokerError> {
        let options = PublishOptions {
            history_size,
            history_ttl_ms: 60_000,
            history_meta_ttl_ms: 600_000,
            ..PublishOptions::default()
        };
        let data = Bytes::from_static(b"{}");
        let publication = Publication { data, ..Publication::default() };
        let id = RequestId(2);
        let ask = |channel| BrokerRequest::Publish { id, channel, publication, options };
        match self.answer(self.publisher, ask)? {
            BrokerReply::Published(position) => Ok(position),
            other => panic!("unexpected reply to publish: {other:?}"),
        }
    }

    /// Publishes again until it is accepted.
    pub(crate) fn publish_at_last(&mut self, history_size: u32) -> StreamPosition {
        let until = Instant::now() + LONG;
        loop {
            match self.publish(history_size) {
                Ok(position) => return position,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        }
    }

    /// The next position that the listener receives without a request.
    pub(crate) fn next_position(&mut self) -> StreamPosition {
        loop {
            let event = self.world.next_within(self.listener, LONG).expect("a position in time");
            if let BrokerEvent::Position { top, channel } = event {
                assert_eq!(channel, self.channel);
                return top;
            }
        }
    }

    pub(crate) fn received_offset(&mut self) -> u64 {
        loop {
            let event = self.world.next_within(self.listener, LONG).expect("a publication in time");
            if let BrokerEvent::Publication { publication, .. } = event {
                return publication.offset;
            }
        }
    }
}
