//! What is published while the network is cut arrives once, in order.

use std::time::Duration;

use client::{Backoff, Client, ClientOptions, Codec, Event};

use crate::proxy::Proxy;
use crate::support::{Fixture, published, subscribed, token, token_with, until};

fn options(token: String, codec: Codec) -> ClientOptions {
    let mut options = ClientOptions::default().with_token(token).with_codec(codec);
    options.session.reconnect =
        Backoff { min: Duration::from_millis(20), max: Duration::from_millis(200) };
    options
}

#[tokio::test]
async fn what_is_published_over_cuts_arrives_once_and_in_order() {
    const PUBLICATIONS: u32 = 300;
    let fixture = Fixture::start().await;
    for codec in [Codec::Json, Codec::Protobuf] {
        let proxy = Proxy::start(fixture.address).await;
        let url = format!("ws://{}", proxy.address);
        let (client, mut events) =
            Client::connect(&url, options(token("ann", None), codec)).unwrap();
        let channel = format!("kept:{codec:?}");
        subscribed(&client, &mut events, &channel).await;
        let (publisher, _) = fixture.client(Codec::Json);
        let publishing = tokio::spawn(async move {
            for number in 1..=PUBLICATIONS {
                publisher.publish(&channel, number.to_string()).await.unwrap();
                if number % 60 == 0 {
                    proxy.cut();
                }
            }
            proxy
        });
        let (mut next, mut recovered) = (1, 0);
        while next <= PUBLICATIONS {
            let wanted = |event: &Event| {
                matches!(event, Event::Publication { .. } | Event::Subscribed { .. })
            };
            match until(&mut events, wanted).await {
                Event::Publication { publication, .. } => {
                    assert_eq!(publication.data, next.to_string());
                    assert_eq!(publication.offset, u64::from(next));
                    next += 1;
                }
                Event::Subscribed { subscribed, .. } => {
                    assert!(subscribed.was_recovering && subscribed.recovered);
                    recovered += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        let _proxy = publishing.await.unwrap();
        assert!(recovered > 0, "the network was cut");
        assert_eq!(client.position(&format!("kept:{codec:?}")).await.unwrap().offset, 300);
    }
}

/// An application that reads no events makes a slow client, not a large one: the server closes it.
/// It recovers, or is notified that more is missing than the server sends at once.
#[tokio::test]
async fn events_that_are_not_read_stop_the_socket_and_nothing_is_lost_untold() {
    const PUBLICATIONS: u64 = 300;
    let unlimited = ["limits.connection.bytes", "limits.connection.publishes"];
    let fixture = Fixture::with(&unlimited.map(|limit| (limit, "off"))).await;
    let options = options(token("ann", None), Codec::Protobuf);
    let (client, mut events) = Client::connect(&fixture.url(), options).unwrap();
    subscribed(&client, &mut events, "kept:slow").await;
    let (publisher, _) = fixture.client(Codec::Protobuf);
    let data = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..PUBLICATIONS {
        publisher.publish("kept:slow", data.clone()).await.unwrap();
    }
    let (mut offset, mut was_slow) = (0, false);
    while offset < PUBLICATIONS {
        let wanted = |event: &Event| {
            matches!(
                event,
                Event::Publication { .. } | Event::Connecting(_) | Event::Subscribed { .. }
            )
        };
        match until(&mut events, wanted).await {
            Event::Publication { publication, .. } => {
                offset += 1;
                assert_eq!(publication.offset, offset);
            }
            Event::Connecting(reason) => was_slow |= reason.code == 3008,
            Event::Subscribed { subscribed, .. } => {
                assert!(subscribed.was_recovering);
                assert!(!subscribed.recovered || subscribed.position.offset == offset);
                offset = subscribed.position.offset;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(was_slow, "the server has seen that nothing is read");
}

#[tokio::test]
async fn subscriptions_of_the_server_recover_too() {
    let fixture = Fixture::start().await;
    let proxy = Proxy::start(fixture.address).await;
    let url = format!("ws://{}", proxy.address);
    let token = token_with("ann", None, &["forced:x"]);
    let (client, mut events) = Client::connect(&url, options(token, Codec::Json)).unwrap();
    let live = |event: &Event| matches!(event, Event::Subscribed { .. });
    let Event::Subscribed { subscribed, .. } = until(&mut events, live).await else { panic!() };
    assert_eq!(subscribed.origin, client::session::SubscriptionOrigin::Server);
    fixture.api("publish", r#"{"channel":"forced:x","data":1}"#).await;
    assert_eq!(published(&mut events).await, b"1");
    proxy.cut();
    until(&mut events, |event| matches!(event, Event::Connecting(_))).await;
    fixture.api("publish", r#"{"channel":"forced:x","data":2}"#).await;
    let Event::Subscribed { subscribed, .. } = until(&mut events, live).await else { panic!() };
    assert!(subscribed.recoverable && subscribed.recovered);
    assert_eq!(published(&mut events).await, b"2");
    client.disconnect().await;
}
