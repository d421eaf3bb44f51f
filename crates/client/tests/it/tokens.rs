//! Tokens that expire are renewed, on the real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use client::{
    Client, ClientOptions, ConnectionState, Event, SubscriptionOptions, TokenError, TokenSource,
    TokenSubject,
};
use tokio::sync::mpsc;

use crate::support::{Fixture, published, subscription_token, token, until};

#[tokio::test]
async fn connection_and_subscription_outlive_their_tokens() {
    let fixture = Fixture::with(&[
        ("client.expired_close_delay", "1s"),
        ("client.expired_sub_close_delay", "1s"),
    ])
    .await;
    let (asked, mut subjects) = mpsc::unbounded_channel();
    let options = ClientOptions::default().with_token_source(move |subject| {
        let asked = asked.clone();
        async move {
            let _ended = asked.send(subject.clone());
            Ok(match subject {
                TokenSubject::Connection => token("ann", Some(1)),
                TokenSubject::Subscription(channel) => subscription_token("ann", &channel, Some(1)),
            })
        }
    });
    let (client, mut events) = Client::connect(&fixture.url(), options).unwrap();
    let source = TokenSource::Asked { first: String::new() };
    let options = SubscriptionOptions { token: source, ..SubscriptionOptions::default() };
    client.subscribe("closed:x", options).await.unwrap();
    until(&mut events, |event| matches!(event, Event::Subscribed { .. })).await;
    // Three tokens of each, over three seconds.
    let (mut connection, mut subscription) = (0, 0);
    while connection < 4 || subscription < 4 {
        match subjects.recv().await.unwrap() {
            TokenSubject::Connection => connection += 1,
            TokenSubject::Subscription(_) => subscription += 1,
        }
    }
    fixture.api("publish", r#"{"channel":"closed:x","data":1}"#).await;
    assert_eq!(published(&mut events).await, b"1");
    assert_eq!(client.state(), ConnectionState::Connected);
    assert_eq!(events.try_next(), None);
}

#[tokio::test]
async fn a_token_source_may_fail_panic_and_refuse() {
    let fixture = Fixture::start().await;
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = attempts.clone();
    let mut options = ClientOptions::default().with_token_source(move |_| {
        let attempt = counted.fetch_add(1, Ordering::Relaxed);
        assert!(attempt != 1, "a mistake of the application before it waits for anything");
        async move {
            match attempt {
                0 => Err(TokenError::Unavailable("later".to_owned())),
                2 => panic!("a mistake of the application"),
                3 => Ok(token("ann", None)),
                _ => Err(TokenError::Unauthorized),
            }
        }
    });
    options.session.reconnect.min = std::time::Duration::from_millis(10);
    let (client, mut events) = Client::connect(&fixture.url(), options).unwrap();
    client.connected().await.unwrap();
    assert_eq!(attempts.load(Ordering::Relaxed), 4);
    let source = TokenSource::Asked { first: String::new() };
    let options = SubscriptionOptions { token: source, ..SubscriptionOptions::default() };
    client.subscribe("closed:x", options).await.unwrap();
    let event = until(&mut events, |event| matches!(event, Event::Unsubscribed { .. })).await;
    let Event::Unsubscribed { reason, .. } = event else { panic!("{event:?}") };
    assert_eq!(reason.code, 1);
}
