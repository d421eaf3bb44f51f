//! TLS: with roots of one's own, and against a certificate that is not trusted.

use client::{Client, ClientOptions, Codec, Event, Failure, TransportError};

use crate::support::{Fixture, published, subscribed, token, until};
use crate::trust::trusting;

#[tokio::test]
async fn a_client_talks_through_tls_and_trusts_only_its_roots() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let fixture = Fixture::with(&[
        ("http_server.tls.enabled", "true"),
        ("http_server.tls.cert_pem", &made.cert.pem()),
        ("http_server.tls.key_pem", &made.signing_key.serialize_pem()),
    ])
    .await;
    let url = format!("wss://localhost:{}", fixture.address.port());
    for codec in [Codec::Json, Codec::Protobuf] {
        let options = ClientOptions::default().with_token(token("ann", None));
        let options = options.with_codec(codec).with_tls(trusting([made.cert.der()]));
        let (client, mut events) = Client::connect(&url, options).unwrap();
        subscribed(&client, &mut events, "open:x").await;
        let large = format!("\"{}\"", "x".repeat(50_000));
        client.publish("open:x", large.clone()).await.unwrap();
        assert_eq!(published(&mut events).await, large.as_bytes());
        client.disconnect().await;
    }
    let options = ClientOptions::default().with_token(token("ann", None));
    let failed = |event: &Event| matches!(event, Event::Failed(_));
    let (_client, mut events) = Client::connect(&url, options).unwrap();
    let event = until(&mut events, failed).await;
    let Event::Failed(Failure::Transport(TransportError::Tls(text))) = event else {
        panic!("{event:?}")
    };
    assert!(text.contains("UnknownIssuer"), "{text}");
    // And the other way round.
    let fixture = Fixture::start().await;
    let url = format!("wss://{}", fixture.address);
    let (_client, mut events) = Client::connect(&url, ClientOptions::default()).unwrap();
    let event = until(&mut events, failed).await;
    let Event::Failed(Failure::Transport(TransportError::Tls(text))) = event else {
        panic!("{event:?}")
    };
    assert!(text.contains("does not speak TLS"), "{text}");
}
