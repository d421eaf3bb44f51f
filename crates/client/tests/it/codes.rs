//! What the server's codes lead to, on the real server.

use std::time::Duration;

use client::{
    Backoff, CallError, Client, ClientOptions, Codec, ConnectionState, Event, Failure,
    SubscriptionOptions, TransportError,
};

use crate::support::{Fixture, published, subscribed, token, until};

fn disconnected(event: &Event) -> bool {
    matches!(event, Event::Disconnected(_))
}

#[tokio::test]
async fn a_client_without_a_token_is_disconnected_for_good() {
    let fixture = Fixture::start().await;
    let (client, mut events) = Client::connect(&fixture.url(), ClientOptions::default()).unwrap();
    assert_eq!(client.connected().await, Err(CallError::Disconnected));
    let Event::Disconnected(reason) = until(&mut events, disconnected).await else { panic!() };
    assert_eq!(reason.code, 3501);
    let options = ClientOptions::default().with_token("no token");
    let (_client, mut events) = Client::connect(&fixture.url(), options).unwrap();
    let Event::Disconnected(reason) = until(&mut events, disconnected).await else { panic!() };
    assert_eq!(reason.code, 3500);
}

#[tokio::test]
async fn a_disconnect_of_the_server_says_whether_to_come_back() {
    let fixture = Fixture::start().await;
    for (code, is_final) in [(4500, true), (4000, false), (3011, false), (3503, true)] {
        let (client, mut events) = fixture.client(Codec::Json);
        subscribed(&client, &mut events, "open:x").await;
        let body = format!(r#"{{"user":"ann","disconnect":{{"code":{code},"reason":"test"}}}}"#);
        fixture.api("disconnect", &body).await;
        if is_final {
            let event = until(&mut events, disconnected).await;
            let Event::Disconnected(reason) = event else { panic!() };
            assert_eq!((reason.code, &*reason.text), (code, "test"));
            assert_eq!(client.state(), ConnectionState::Disconnected);
            client.reconnect().await;
            client.connected().await.unwrap();
        } else {
            let lost = |event: &Event| matches!(event, Event::Connecting(why) if why.code == code);
            until(&mut events, lost).await;
        }
        until(&mut events, |event| matches!(event, Event::Subscribed { .. })).await;
        client.publish("open:x", "1").await.unwrap();
        assert_eq!(published(&mut events).await, b"1");
        client.disconnect().await;
    }
}

#[tokio::test]
async fn a_refused_subscription_ends_with_the_server_s_code() {
    let fixture = Fixture::start().await;
    let (client, mut events) = fixture.client(Codec::Protobuf);
    for (channel, code) in [("closed:x", 103), ("nowhere:x", 102)] {
        client.subscribe(channel, SubscriptionOptions::default()).await.unwrap();
        let event = until(&mut events, |event| matches!(event, Event::Unsubscribed { .. })).await;
        let Event::Unsubscribed { channel: ended, reason } = event else { panic!("{event:?}") };
        assert_eq!((&*ended, reason.code), (channel, code));
    }
    assert_eq!(client.state(), ConnectionState::Connected);
}

#[tokio::test]
async fn a_temporary_error_is_tried_again() {
    let fixture = Fixture::with(&[("limits.connection.subscribes", "10/s burst 1")]).await;
    let mut options = ClientOptions::default().with_token(token("ann", None));
    options.session.resubscribe =
        Backoff { min: Duration::from_millis(50), max: Duration::from_secs(1) };
    let (client, mut events) = Client::connect(&fixture.url(), options).unwrap();
    for channel in ["open:a", "open:b", "open:c"] {
        client.subscribe(channel, SubscriptionOptions::default()).await.unwrap();
    }
    let (mut refused, mut live) = (0, 0);
    while live < 3 {
        let wanted = |event: &Event| matches!(event, Event::Failed(_) | Event::Subscribed { .. });
        match until(&mut events, wanted).await {
            Event::Failed(Failure::Subscribe { error, .. }) => {
                assert_eq!((error.code, error.temporary), (111, true));
                refused += 1;
            }
            Event::Subscribed { .. } => live += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_wrong_path_is_told_with_status_and_reason_and_tried_again() {
    let fixture = Fixture::start().await;
    let url = format!("{}/nothing", fixture.url());
    let (_client, mut events) = Client::connect(&url, ClientOptions::default()).unwrap();
    for _ in 0..2 {
        let event = until(&mut events, |event| matches!(event, Event::Failed(_))).await;
        let Event::Failed(Failure::Transport(error)) = event else { panic!("{event:?}") };
        let reason = "there is nothing at this path".to_owned();
        assert_eq!(error, TransportError::Refused { status: 404, reason });
    }
}

#[tokio::test]
async fn a_server_that_stops_and_another_that_starts_is_found_again() {
    let fixture = Fixture::start().await;
    let (client, mut events) = fixture.client(Codec::Json);
    subscribed(&client, &mut events, "kept:x").await;
    let port = fixture.address.port().to_string();
    fixture.stop().await;
    let shutdown = |event: &Event| matches!(event, Event::Connecting(why) if why.code == 3001);
    until(&mut events, shutdown).await;
    let _fixture = Fixture::with(&[("http_server.port", &port)]).await;
    let event = until(&mut events, |event| matches!(event, Event::Subscribed { .. })).await;
    let Event::Subscribed { subscribed, .. } = event else { panic!("{event:?}") };
    // The memory of the first server is gone, and so the channel has another epoch.
    assert!(subscribed.was_recovering && !subscribed.recovered);
    client.publish("kept:x", "1").await.unwrap();
    assert_eq!(published(&mut events).await, b"1");
}
