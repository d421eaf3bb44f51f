//! Each way in which a backend can break is a typed error before the deadline.

use std::time::Duration;

use bytes::Bytes;
use proxy::limits::ANSWER_BYTES_MAX;
use proxy::{
    Backend, BackendSettings, FailureKind, ProxyQuestion, ProxyReply, StatusTransform,
    TransformTarget,
};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::scripted::{Act, Scripted, answer, call, json, request, rpc, settings, subscribe};

async fn kind_of(act: Act) -> (FailureKind, String) {
    let scripted = Scripted::start(move |_, _| act.clone()).await;
    let timeout = Duration::from_millis(500);
    let backend = Backend::new(BackendSettings { timeout, ..settings(&scripted.url()) });
    let begin = Instant::now();
    let error = call(&backend, rpc()).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(2), "{error}");
    assert_eq!(backend.stats().calls.failures_of(error.kind), 1);
    (error.kind, error.detail)
}

#[tokio::test]
async fn wrong_answers_are_typed_errors() {
    let html = |status| Act::Send(answer(status, "Content-Type: text/html\r\n", "<html>"));
    let type_of = |kind: &str| {
        Act::Send(answer("200 OK", &format!("Content-Type: {kind}\r\n"), r#"{"result":{}}"#))
    };
    let long = format!("{{\"result\":{{}}}}{}", " ".repeat(ANSWER_BYTES_MAX));
    let location = "Location: http://127.0.0.1:1/elsewhere\r\n";
    for (act, kind) in [
        (html("200 OK"), FailureKind::ContentType),
        (type_of("image/png"), FailureKind::ContentType),
        (Act::Send(json("{\"result\": ")), FailureKind::Malformed),
        (Act::Send(json("")), FailureKind::Malformed),
        (Act::Send(json("[1]")), FailureKind::Malformed),
        (Act::Send(json(&long)), FailureKind::TooLarge),
        (Act::Flood, FailureKind::TooLarge),
        (html("500 Internal Server Error"), FailureKind::Status),
        (html("404 Not Found"), FailureKind::Status),
        (Act::Send(answer("201 Created", "", "{}")), FailureKind::Status),
        (Act::Send(answer("307 Temporary Redirect", location, "")), FailureKind::Status),
        (html("429 Too Many Requests"), FailureKind::Status),
        (Act::Reset, FailureKind::Reset),
        (Act::SendAndClose(String::new()), FailureKind::Reset),
        (
            Act::SendAndClose("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned()),
            FailureKind::Reset,
        ),
        (Act::SendAndClose("NONSENSE\r\n\r\n".to_owned()), FailureKind::Reset),
        (Act::Hang, FailureKind::Timeout),
        (
            Act::Send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned()),
            FailureKind::Timeout,
        ),
    ] {
        let shown = format!("{act:?}").chars().take(90).collect::<String>();
        let (found, detail) = kind_of(act).await;
        assert_eq!(found, kind, "{shown}: {detail}");
        assert!(!detail.is_empty() && detail.len() < 400);
    }
    // Frameworks send JSON as text when the application names no type.
    for kind in ["text/html; charset=UTF-8", "text/plain", "application/problem+json"] {
        let act = type_of(kind);
        let scripted = Scripted::start(move |_, _| act.clone()).await;
        call(&Backend::new(settings(&scripted.url())), rpc()).await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_connection_and_an_unknown_host_are_typed_errors() {
    // A port that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let backend = Backend::new(settings(&url));
    let error = call(&backend, rpc()).await.unwrap_err();
    assert_eq!((error.kind, backend.stats().calls.retries), (FailureKind::Connect, 0));
    let error = call(&backend, subscribe("a")).await.unwrap_err();
    assert_eq!((error.kind, backend.stats().calls.retries), (FailureKind::Connect, 2));
    let backend = Backend::new(settings("http://no-such-host.invalid/"));
    let error = call(&backend, rpc()).await.unwrap_err();
    assert!(matches!(error.kind, FailureKind::Connect | FailureKind::Timeout), "{error}");
}

#[tokio::test]
async fn what_may_be_repeated_is_repeated() {
    let scripted = Scripted::start(|number, _| match number % 3 {
        2 => Act::Send(json("{}")),
        _ => Act::Reset,
    })
    .await;
    let backend = Backend::new(settings(&scripted.url()));
    call(&backend, subscribe("a")).await.unwrap();
    assert_eq!((scripted.requests().len(), backend.stats().calls.retries), (3, 2));
    // A call of the application may have had its effect.
    let error = call(&backend, rpc()).await.unwrap_err();
    assert_eq!((error.kind, scripted.requests().len()), (FailureKind::Reset, 4));
}

#[tokio::test]
async fn a_status_may_have_a_meaning() {
    let statuses = ["403 Forbidden", "401 Unauthorized", "500 Internal Server Error"];
    let scripted =
        Scripted::start(move |number, _| Act::Send(answer(statuses[number], "", "no"))).await;
    let error = TransformTarget::Error { code: 403, message: "no".to_owned(), temporary: true };
    let disconnect = TransformTarget::Disconnect { code: 4_401, reason: "go".to_owned() };
    let backend = Backend::new(BackendSettings {
        transforms: vec![
            StatusTransform { status: 403, target: error },
            StatusTransform { status: 401, target: disconnect },
        ],
        ..settings(&scripted.url())
    });
    let error = ProxyReply::Error { code: 403, message: "no".to_owned(), temporary: true };
    assert_eq!(call(&backend, rpc()).await, Ok(error));
    let disconnect = ProxyReply::Disconnect { code: 4_401, reason: "go".to_owned() };
    assert_eq!(call(&backend, rpc()).await, Ok(disconnect));
    assert_eq!(call(&backend, rpc()).await.unwrap_err().kind, FailureKind::Status);
    assert_eq!(backend.stats().calls.refusals, 2);
}

#[tokio::test]
async fn data_that_is_not_json_does_not_reach_the_backend() {
    let scripted = Scripted::start(|_, _| Act::Send(json("{}"))).await;
    let backend = Backend::new(settings(&scripted.url()));
    let data = Bytes::from_static(&[1, 2, 3]);
    let question = ProxyQuestion::Publish { channel: "a".to_owned(), data };
    let error = call(&backend, request(question)).await.unwrap_err();
    assert_eq!((error.kind, scripted.requests().len()), (FailureKind::NotJson, 0));
}
