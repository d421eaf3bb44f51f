//! The breaker, pauses and old answers around real calls.

use std::time::Duration;

use proxy::{
    Backend, BackendSettings, BreakerSettings, BreakerState, FailureKind, ProxyReply, Share,
    WhenOpen,
};

use crate::scripted::{Act, Scripted, answer, call, json, rpc, settings, subscribe};

fn breaker(url: &str) -> BackendSettings {
    let settings = settings(url);
    let breaker = BreakerSettings { error_percent: 50, open_ms: 200, ..settings.breaker };
    BackendSettings { breaker, timeout: Duration::from_secs(1), ..settings }
}

#[tokio::test]
async fn a_failing_backend_is_left_alone_until_a_probe_succeeds() {
    let scripted = Scripted::start(|number, _| match number {
        0..3 => Act::Send(answer("500 Internal Server Error", "", "")),
        _ => Act::Send(json("{}")),
    })
    .await;
    let backend = Backend::new(breaker(&scripted.url()));
    for _ in 0..3 {
        assert_eq!(call(&backend, rpc()).await.unwrap_err().kind, FailureKind::Status);
    }
    assert_eq!(backend.stats().breaker, BreakerState::Open);
    for _ in 0..50 {
        assert_eq!(call(&backend, rpc()).await.unwrap_err().kind, FailureKind::BreakerOpen);
    }
    assert_eq!(scripted.requests().len(), 3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    call(&backend, rpc()).await.unwrap();
    let stats = backend.stats();
    assert_eq!((stats.breaker, stats.opened), (BreakerState::Closed, 1));
    assert_eq!(stats.calls.failures_of(FailureKind::BreakerOpen), 50);
}

#[tokio::test]
async fn a_hanging_backend_fails_fast_after_the_first_deadlines() {
    let scripted = Scripted::start(|_, _| Act::Hang).await;
    let timeout = Duration::from_millis(100);
    let backend = Backend::new(BackendSettings { timeout, ..breaker(&scripted.url()) });
    for _ in 0..3 {
        assert_eq!(call(&backend, rpc()).await.unwrap_err().kind, FailureKind::Timeout);
    }
    let begin = tokio::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(call(&backend, rpc()).await.unwrap_err().kind, FailureKind::BreakerOpen);
    }
    assert!(begin.elapsed() < Duration::from_millis(100));
}

#[tokio::test]
async fn retry_after_pauses_calls_without_opening_the_breaker() {
    let scripted = Scripted::start(|number, _| match number {
        0 => Act::Send(answer("429 Too Many Requests", "Retry-After: 1\r\n", "")),
        _ => Act::Send(json("{}")),
    })
    .await;
    let backend = Backend::new(breaker(&scripted.url()));
    for _ in 0..20 {
        assert_eq!(call(&backend, rpc()).await.unwrap_err().kind, FailureKind::Throttled);
    }
    assert_eq!((scripted.requests().len(), backend.stats().breaker), (1, BreakerState::Closed));
    tokio::time::sleep(Duration::from_secs(1)).await;
    call(&backend, rpc()).await.unwrap();
}

#[tokio::test]
async fn the_last_answer_holds_while_the_breaker_is_open() {
    let scripted = Scripted::start(|number, _| match number {
        0 => Act::Send(json(r#"{"result": {"info": {"n": 1}}}"#)),
        1 => Act::Send(json(r#"{"error": {"code": 103}}"#)),
        _ => Act::Send(answer("500 Internal Server Error", "", "")),
    })
    .await;
    let backend = Backend::new(BackendSettings {
        share: Share::User,
        when_open: WhenOpen::Allow { stale_max_age: Duration::from_secs(60) },
        ..breaker(&scripted.url())
    });
    let allowed = call(&backend, subscribe("a")).await.unwrap();
    let refused = call(&backend, subscribe("b")).await.unwrap();
    assert!(matches!(refused, ProxyReply::Error { code: 103, .. }));
    // A failure is not papered over before the breaker knows.
    for _ in 0..2 {
        let error = call(&backend, subscribe("a")).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Status);
    }
    assert_eq!(backend.stats().breaker, BreakerState::Open);
    assert_eq!(call(&backend, subscribe("a")).await, Ok(allowed));
    // What was refused or never asked stays refused.
    for channel in ["b", "c"] {
        let error = call(&backend, subscribe(channel)).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::BreakerOpen);
    }
    assert_eq!(backend.stats().calls.stale, 1);
}
