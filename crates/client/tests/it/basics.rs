//! Everything that a client can ask for, in both codecs.

use client::{
    CallError, Client, ClientOptions, Codec, ConnectionState, Event, HistoryRequest,
    SubscribeError, SubscriptionOptions,
};

use crate::support::{Fixture, published, subscribed, token, until};

#[tokio::test]
async fn publications_presence_and_history_in_both_codecs() {
    let fixture = Fixture::start().await;
    for codec in [Codec::Json, Codec::Protobuf] {
        let (client, mut events) = fixture.client(codec);
        client.connected().await.unwrap();
        subscribed(&client, &mut events, "open:x").await;
        let again = client.subscribe("open:x", SubscriptionOptions::default()).await;
        assert_eq!(again, Err(SubscribeError::AlreadySubscribed));
        until(&mut events, |event| matches!(event, Event::Join { .. })).await;
        client.publish("open:x", r#"{"n":1}"#).await.unwrap();
        assert_eq!(published(&mut events).await, br#"{"n":1}"#);
        let presence = client.presence("open:x").await.unwrap();
        assert_eq!(presence[0].1.user, "ann");
        let stats = client.presence_stats("open:x").await.unwrap();
        assert_eq!((stats.num_clients, stats.num_users), (1, 1));
        let channel = format!("kept:{codec:?}");
        for data in ["1", "2", "3"] {
            client.publish(&channel, data).await.unwrap();
        }
        let request = HistoryRequest { channel, limit: 2, ..HistoryRequest::default() };
        let history = client.history(request).await.unwrap();
        let data: Vec<&[u8]> = history.publications.iter().map(|one| &*one.data).collect();
        assert_eq!((data, history.offset), (vec![&b"1"[..], b"2"], 3));
        let Err(CallError::Refused(error)) = client.rpc("nothing", "1").await else { panic!() };
        assert_eq!(error.code, 108);
        client.unsubscribe("open:x").await;
        let event = until(&mut events, |event| matches!(event, Event::Unsubscribed { .. })).await;
        let Event::Unsubscribed { reason, .. } = event else { panic!("{event:?}") };
        assert_eq!(reason.code, 0);
        client.disconnect().await;
        assert_eq!(client.state(), ConnectionState::Disconnected);
        assert_eq!(client.publish("open:x", "1").await, Err(CallError::Disconnected));
    }
}

#[tokio::test]
async fn binary_data_goes_through_protobuf_only() {
    let fixture = Fixture::start().await;
    let (client, mut events) = fixture.client(Codec::Protobuf);
    subscribed(&client, &mut events, "binary:x").await;
    client.publish("binary:x", vec![0, 0xFF, b'\n']).await.unwrap();
    assert_eq!(published(&mut events).await, [0, 0xFF, b'\n']);
    let (client, _events) = fixture.client(Codec::Json);
    assert_eq!(client.publish("binary:x", vec![0xFF]).await, Err(CallError::NotJson));
}

#[tokio::test]
async fn many_calls_at_once_have_their_own_results() {
    let fixture = Fixture::with(&[("client.channel_limit", "1000")]).await;
    let (client, mut events) = fixture.client(Codec::Json);
    let mut calls = tokio::task::JoinSet::new();
    subscribed(&client, &mut events, "kept:many").await;
    for number in 0..200 {
        let client = client.clone();
        calls.spawn(async move { client.publish("kept:many", number.to_string()).await });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 200 {
        let data = String::from_utf8(published(&mut events).await).unwrap();
        seen.push(data.parse::<u32>().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_ends_with_its_last_handle() {
    let fixture = Fixture::start().await;
    let options = ClientOptions::default().with_token(token("ann", None));
    let (client, mut events) = Client::connect(&fixture.url(), options).unwrap();
    client.connected().await.unwrap();
    drop(client);
    until(&mut events, |event| matches!(event, Event::Disconnected(_))).await;
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_at_once() {
    let error = Client::connect("http://h:1", ClientOptions::default()).unwrap_err();
    assert!(error.to_string().contains("did you mean ws://h:1"), "{error}");
}
