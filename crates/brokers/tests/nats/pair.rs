//! A listener on one node and a publisher on another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conformance::World;
use brokers::Endpoint;
use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerEvent, BrokerRequest, JoinRead, JoinedStream, PublicationsRequest,
    PublishOptions, ReplyValue, RequestId,
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
    /// Number of the last request.
    last_number: u64,
}

impl Pair {
    pub(crate) fn new(server: &Server) -> Pair {
        Pair::of(NatsWorld::new(&server.options(), 2))
    }

    pub(crate) fn of(mut world: NatsWorld) -> Pair {
        let (listener, publisher) = (world.attach(), world.attach());
        let channel = world.fresh_channel();
        Pair { world, listener, publisher, channel, last_number: 0 }
    }

    pub(crate) fn answer<T: ReplyValue, R: Into<BrokerRequest>>(
        &mut self,
        endpoint: Endpoint,
        request: impl FnOnce(RequestId<T>, Arc<str>) -> R,
    ) -> Result<T, BrokerError> {
        self.last_number += 1;
        let id = RequestId::new(self.last_number);
        self.world.submit(endpoint, request(id, self.channel.clone()));
        loop {
            let event = self.world.next_within(endpoint, LONG).expect("a reply in time");
            if let BrokerEvent::Reply(reply) = event
                && let Some((answered, result)) = T::of(reply)
                && answered == id
            {
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
        self.answer(endpoint, |id, channel| PublicationsRequest::Subscribe { id, channel, read })
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
        self.answer(self.publisher, |id, channel| PublicationsRequest::Publish {
            id,
            channel,
            publication,
            options,
        })
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
