//! Channel names that do not fit into a line of NATS: refused as permanent errors before they are
//! sent, so that the server does not close the connection.

use std::sync::Arc;

use crate::conformance::World as _;
use brokers::nats::{channel_length_max, plain_channel_length_max};
use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, BrokerRequest, HistoryQuery, JoinRead, Membership,
    PresenceRequest, PublicationsRequest, PublishOptions, RequestId,
};
use wire::protocol::{ClientInfo, Publication};

use crate::pair::{LONG, Pair};
use crate::server::Server;

/// Every request about a channel.
fn requests(channel: &Arc<str>) -> Vec<BrokerRequest> {
    let channel = || channel.clone();
    let info = Arc::new(ClientInfo { client: "c".repeat(36), ..ClientInfo::default() });
    let options = PublishOptions {
        history_size: 10,
        history_ttl_ms: 60_000,
        history_meta_ttl_ms: 60_000,
        ..PublishOptions::default()
    };
    let publication = Publication { data: b"1".as_slice().into(), ..Publication::default() };
    let read = JoinRead::Position { meta_ttl_ms: 60_000 };
    let plain = (publication.clone(), PublishOptions::default());
    vec![
        PublicationsRequest::Subscribe { id: RequestId::new(7), channel: channel(), read }.into(),
        PresenceRequest::Add { channel: channel(), info: info.clone(), announces: true }.into(),
        PublicationsRequest::Announce {
            channel: channel(),
            info: info.clone(),
            change: Membership::Join,
        }
        .into(),
        PublicationsRequest::Publish {
            id: RequestId::new(7),
            channel: channel(),
            publication,
            options,
        }
        .into(),
        PublicationsRequest::Publish {
            id: RequestId::new(7),
            channel: channel(),
            publication: plain.0,
            options: plain.1,
        }
        .into(),
        PresenceRequest::Clients { id: RequestId::new(7), channel: channel() }.into(),
        PresenceRequest::Stats { id: RequestId::new(7), channel: channel() }.into(),
        PublicationsRequest::History {
            id: RequestId::new(7),
            channel: channel(),
            query: HistoryQuery::default(),
            meta_ttl_ms: 60_000,
        }
        .into(),
        PublicationsRequest::RemoveHistory { id: RequestId::new(7), channel: channel() }.into(),
        PublicationsRequest::LimitTtl { channel: channel(), ttl_ms: 60_000 }.into(),
        PublicationsRequest::ChannelTtl { id: RequestId::new(7), channel: channel() }.into(),
        PresenceRequest::Remove { channel: channel(), client: info }.into(),
        PublicationsRequest::Unsubscribe { channel: channel() }.into(),
    ]
}

fn assert_all(pair: &mut Pair, channel: &str, expected: Option<BrokerError>) {
    let channel: Arc<str> = channel.into();
    for request in requests(&channel) {
        let text = format!("{} bytes: {:?}", channel.len(), std::mem::discriminant(&request));
        let has_reply = request.has_reply();
        pair.world.submit(pair.publisher, request);
        if !has_reply {
            continue;
        }
        let reply = loop {
            let event = pair.world.next_within(pair.publisher, LONG).expect("a reply in time");
            if let BrokerEvent::Reply(reply) = event {
                break reply;
            }
        };
        assert_eq!(reply.outcome().1.err(), expected, "{text}");
        if let BrokerReply::PresenceStats(_, Ok(stats)) = reply {
            assert_eq!(stats.num_clients, 1, "{text}");
        }
    }
}

#[test]
fn names_that_do_not_fit_are_refused_and_the_connection_stays() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    pair.subscribe().unwrap();
    let refused = Some(BrokerError::NameTooLong);
    for name in ["x".repeat(5_000), ".".repeat(2_000), "\u{20ac}".repeat(1_000), "*".repeat(65_000)]
    {
        assert_all(&mut pair, &name, refused);
    }
    let (any, plain) = (channel_length_max("tidings"), plain_channel_length_max("tidings"));
    assert_all(&mut pair, &".".repeat(any + 1), refused);
    assert_all(&mut pair, &"x".repeat(plain + 1), refused);
    assert_all(&mut pair, &".".repeat(any), None);
    assert_all(&mut pair, &"x".repeat(plain), None);
    // The connection was never lost: after a new one, subscribers would receive a position.
    assert_eq!(pair.publish(10).unwrap().offset, 1);
    assert_eq!(pair.received_offset(), 1);
    assert_eq!(pair.publish(10).unwrap().offset, 2);
    let next = pair.world.next_due(pair.listener);
    assert!(
        matches!(&next, BrokerEvent::Publication { publication, .. } if publication.offset == 2),
        "{next:?}"
    );
}

#[test]
fn every_idempotency_key_and_version_epoch_is_accepted() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    for key in ["k".repeat(5_000), "\u{20ac}".repeat(5_000), "a\r\nb: c".to_owned()] {
        for _ in 0..2 {
            let options = PublishOptions {
                history_size: 10,
                history_ttl_ms: 60_000,
                history_meta_ttl_ms: 60_000,
                idempotency_key: key.clone(),
                version_epoch: key.clone(),
                ..PublishOptions::default()
            };
            let publication =
                Publication { data: b"1".as_slice().into(), ..Publication::default() };
            let ask =
                |id, channel| PublicationsRequest::Publish { id, channel, publication, options };
            pair.answer(pair.publisher, ask).unwrap();
        }
    }
    assert_eq!(pair.publish(10).unwrap().offset, 4, "each key is accepted once");
}
