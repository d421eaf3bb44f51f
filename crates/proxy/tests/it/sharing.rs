//! The same question of many is one call, and an answer with a lifetime is kept.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderName;
use proxy::headers::TransportHeaders;
use proxy::{Backend, BackendSettings, CallerHeaders, Forwarding, ProxyRequest, Share};

use crate::scripted::{Act, Scripted, answer, call, header_map, json, rpc, settings, subscribe};
use crate::working::futures_join;

fn of(client: usize, user: &str) -> ProxyRequest {
    ProxyRequest { client: client.to_string(), user: user.to_owned(), ..subscribe("news") }
}

async fn slow() -> Scripted {
    Scripted::start(|_, _| Act::SendLate(Duration::from_millis(50), json("{}"))).await
}

#[tokio::test]
async fn identical_questions_in_flight_are_one_call() {
    let scripted = slow().await;
    let settings = BackendSettings { share: Share::User, ..settings(&scripted.url()) };
    let backend = Backend::new(settings);
    let calls = (0..1_000).map(|client| {
        let user = if client % 2 == 0 { "even" } else { "odd" };
        call(&backend, of(client, user))
    });
    assert!(futures_join(calls).await.iter().all(Result::is_ok));
    assert_eq!(scripted.requests().len(), 2);
    assert_eq!(backend.stats().calls.joined, 998);
    // What is no part of the question is not sent.
    assert!(scripted.requests().iter().all(|request| !request.contains("\"client\"")));
    // Without a lifetime the next one asks again.
    call(&backend, of(1, "odd")).await.unwrap();
    assert_eq!(scripted.requests().len(), 3);
}

#[tokio::test]
async fn a_channel_may_be_asked_for_once() {
    let scripted = slow().await;
    let mut settings = BackendSettings { share: Share::Channel, ..settings(&scripted.url()) };
    settings.forwarding = Forwarding {
        http_headers: vec![HeaderName::from_static("cookie")],
        ..Forwarding::default()
    };
    let backend = Backend::new(settings);
    let headers = CallerHeaders {
        transport: TransportHeaders::Http(Arc::new(header_map(&[("cookie", "mine")]))),
        emulated: Vec::new(),
    };
    let calls = (0..100).map(|client| backend.call(of(client, &client.to_string()), &headers));
    assert!(futures_join(calls).await.iter().all(Result::is_ok));
    let requests = scripted.requests();
    assert_eq!(requests.len(), 1);
    assert!(!requests[0].contains("cookie") && !requests[0].contains("\"user\""), "{requests:?}");
}

#[tokio::test]
async fn different_headers_are_different_questions() {
    let scripted = slow().await;
    let mut settings = BackendSettings { share: Share::User, ..settings(&scripted.url()) };
    settings.forwarding.http_headers = vec![HeaderName::from_static("cookie")];
    let backend = Backend::new(settings);
    let headers = |value| CallerHeaders {
        transport: TransportHeaders::Http(Arc::new(header_map(&[("cookie", value)]))),
        emulated: Vec::new(),
    };
    let (mine, yours) = (headers("mine"), headers("yours"));
    let calls = [&mine, &yours, &mine].map(|headers| backend.call(of(1, "42"), headers));
    futures_join(calls.into_iter()).await;
    assert_eq!(scripted.requests().len(), 2);
}

#[tokio::test]
async fn nothing_is_shared_unless_it_is_declared() {
    let scripted = slow().await;
    let backend = Backend::new(settings(&scripted.url()));
    futures_join((0..3).map(|_| call(&backend, of(1, "42")))).await;
    assert_eq!(scripted.requests().len(), 3);
    // Calls of the application never are.
    let settings = BackendSettings { share: Share::User, ..settings(&scripted.url()) };
    let backend = Backend::new(settings);
    futures_join((0..3).map(|_| call(&backend, rpc()))).await;
    assert_eq!(scripted.requests().len(), 6);
}

#[tokio::test]
async fn an_answer_is_kept_for_the_lifetime_that_the_backend_names() {
    let scripted = Scripted::start(|_, _| {
        let headers = "Content-Type: application/json\r\nCache-Control: max-age=1\r\n";
        Act::Send(answer("200 OK", headers, r#"{"result": {"info": 1}}"#))
    })
    .await;
    let settings = BackendSettings { share: Share::User, ..settings(&scripted.url()) };
    let backend = Backend::new(settings);
    let first = call(&backend, of(1, "42")).await.unwrap();
    for client in 2..100 {
        assert_eq!(call(&backend, of(client, "42")).await, Ok(first.clone()));
    }
    assert_eq!((scripted.requests().len(), backend.stats().calls.cached), (1, 98));
    tokio::time::sleep(Duration::from_millis(1_010)).await;
    call(&backend, of(1, "42")).await.unwrap();
    assert_eq!(scripted.requests().len(), 2);
}

#[tokio::test]
async fn a_question_survives_the_one_who_asked_first() {
    let scripted = slow().await;
    let settings = BackendSettings { share: Share::User, ..settings(&scripted.url()) };
    let backend = Arc::new(Backend::new(settings));
    let ask = |client| {
        let backend = backend.clone();
        tokio::spawn(async move { call(&backend, of(client, "42")).await })
    };
    let first = ask(1);
    scripted.wait_for(1).await;
    let second = ask(2);
    while backend.stats().calls.joined < 1 {
        tokio::task::yield_now().await;
    }
    first.abort();
    second.await.unwrap().unwrap();
    assert_eq!(scripted.requests().len(), 2);
    call(&backend, of(3, "42")).await.unwrap();
    assert_eq!(scripted.requests().len(), 3);
}
