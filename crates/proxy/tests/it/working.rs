//! What travels to a backend and back over HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderName;
use proxy::headers::TransportHeaders;
use proxy::{
    Backend, BackendSettings, CallerHeaders, Forwarding, ProxyQuestion, ProxyReply, ProxyResult,
};

use crate::scripted::{Act, Scripted, call, header_map, json, request, rpc, settings, subscribe};

#[tokio::test]
async fn a_call_is_a_post_of_json_with_the_listed_headers() {
    let scripted =
        Scripted::start(|_, _| Act::Send(json(r#"{"result": {"data": {"sum": 3}}}"#))).await;
    let url = scripted.url().replace("http://", "http://name:pass@");
    let backend = Backend::new(BackendSettings {
        forwarding: Forwarding {
            http_headers: vec![HeaderName::from_static("cookie"), HeaderName::from_static("x-a")],
            emulated_headers: vec![HeaderName::from_static("x-app")],
            ..Forwarding::default()
        },
        static_headers: header_map(&[("x-key", "secret"), ("x-a", "static")]),
        includes_meta: true,
        ..settings(&url)
    });
    let transport = header_map(&[("cookie", "session"), ("x-a", "client"), ("x-no", "no")]);
    let headers = CallerHeaders {
        transport: TransportHeaders::Http(Arc::new(transport)),
        emulated: vec![("x-app".to_owned(), "7".to_owned()), ("x-key".to_owned(), "no".to_owned())],
    };
    let question =
        ProxyQuestion::Rpc { method: "sum".to_owned(), data: Bytes::from_static(b"[1,2]") };
    let reply = backend.call(request(question), &headers).await.unwrap();
    let data = Bytes::from_static(br#"{"sum": 3}"#);
    assert_eq!(reply, ProxyReply::Result(ProxyResult::Rpc(data)));
    let request = &scripted.requests()[0];
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
    for line in [
        "content-type: application/json",
        "cookie: session",
        "x-a: client",
        "x-app: 7",
        "x-key: secret",
        "authorization: Basic bmFtZTpwYXNz",
    ] {
        assert_eq!(head.lines().filter(|one| *one == line).count(), 1, "{line} in {head}");
    }
    assert!(!head.contains("x-no"), "{head}");
    assert_eq!(
        body,
        r#"{"client":"c1","transport":"websocket","protocol":"json","encoding":"json","user":"42","method":"sum","meta":{"tenant":7},"data":[1,2]}"#
    );
    assert!(!format!("{backend:?}").contains("secret") && !format!("{backend:?}").contains("pass"));
}

#[tokio::test]
async fn connections_are_kept_and_concurrent_calls_are_bounded() {
    let scripted =
        Scripted::start(|_, _| Act::SendLate(Duration::from_millis(20), json("{}"))).await;
    let backend =
        Backend::new(BackendSettings { concurrency: 2, queue: 3, ..settings(&scripted.url()) });
    let calls = (0..6).map(|_| call(&backend, rpc()));
    let mut outcomes = Vec::new();
    for outcome in futures_join(calls).await {
        outcomes.push(outcome.map_err(|error| error.kind.name()).map(drop));
    }
    outcomes.sort();
    assert_eq!(outcomes, [Ok(()), Ok(()), Ok(()), Ok(()), Ok(()), Err("overloaded")]);
    let stats = backend.stats();
    assert_eq!((stats.calls.results, stats.in_flight, stats.waiting), (5, 0, 0));
    assert_eq!(stats.calls.durations.iter().sum::<u64>(), 5);
    assert!(stats.calls.seconds >= 0.1);
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_meanwhile_costs_no_call() {
    let scripted = Scripted::start(|_, _| Act::SendAndClose(json("{}"))).await;
    let backend = Backend::new(settings(&scripted.url()));
    for _ in 0..20 {
        call(&backend, subscribe("a")).await.unwrap();
    }
    assert_eq!(backend.stats().calls.results, 20);
}

/// Runs futures at the same time.
pub(crate) async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(move |cx| {
        for (future, output) in &mut pinned {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        match pinned.iter().all(|(_, output)| output.is_some()) {
            true => {
                let outputs = pinned.iter_mut().map(|(_, output)| output.take().unwrap());
                std::task::Poll::Ready(outputs.collect())
            }
            false => std::task::Poll::Pending,
        }
    })
    .await
}
