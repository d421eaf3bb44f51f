//! HTTP/2 on a connection of the gRPC listener.
//!
//! Invariant: a connection without a call is closed after `keep_alive_timeout`, and one whose peer
//! does not take an answer after [`ANSWER_TAKEN_TIMEOUT`]. When the server stops, calls under way
//! are answered and streams without an end are ended.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::stream::HttpPeer;
use super::{Listener, RequestOrigin};
use crate::client_address::ClientAddress;
use crate::limits::{
    ANSWER_TAKEN_TIMEOUT, HEAD_SIZE_MAX, HEADER_TIMEOUT, HTTP2_LOOK_INTERVAL, HTTP2_PING_INTERVAL,
    HTTP2_PING_TIMEOUT, HTTP2_SEND_BUFFER_MAX, HTTP2_STREAMS_MAX, HTTP2_WINDOW,
};
use crate::supervision::catch_panic::catch_panic;

/// Extension of a long-lived response, such as a watch, which its peer ends. It ends with these
/// trailers when the server stops, and its connection may be evicted.
#[derive(Clone)]
pub(crate) struct LongLived(pub(crate) HeaderMap);

/// Calls of one connection that are under way.
struct CallsUnderWay {
    http: Arc<HttpPeer>,
    state: Mutex<CallsState>,
}

#[derive(Default)]
struct CallsState {
    /// Calls that are handled or whose answer is not taken.
    calls: usize,
    endless: usize,
    /// When the connection became idle.
    idle_since: Option<Instant>,
    /// When answers were ready that are not taken.
    answers: Slab<Instant>,
}

/// One of [`CallsUnderWay`].
struct CallUnderWay {
    of: Arc<CallsUnderWay>,
    part: CallPart,
}

enum CallPart {
    Handled,
    /// The key of its answer.
    Answered(usize),
    LongLived,
}

/// Why a connection is closed.
#[derive(Debug)]
enum CloseCause {
    Stop,
    Idle,
    AnswerNotTaken,
}

/// The body of an answer; the call is under way until it is dropped.
struct AnswerBody {
    body: Body,
    _call: CallUnderWay,
    stopping: Option<Stopping>,
    is_ended: bool,
}

/// The end of an endless answer when the server stops.
struct Stopping {
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    trailers: HeaderMap,
}

impl Listener {
    /// Serves HTTP/2 until the connection ends.
    pub(super) async fn serve_http2(
        self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: ClientAddress,
        http: Arc<HttpPeer>,
    ) -> hyper::Result<()> {
        let calls = CallsUnderWay::new(http.clone());
        let (routes, trusted_proxies) = (self.routes.clone(), self.trusted_proxies.clone());
        let (of_connection, stop) = (calls.clone(), self.stop.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let client = trusted_proxies.client_of(peer, request.headers());
            request.extensions_mut().insert(RequestOrigin { client, peer: http.clone() });
            let (routes, stop) = (routes.clone(), stop.clone());
            let call = of_connection.begin();
            async move {
                let answer = catch_panic(routes.current(), request).await?;
                Ok::<_, std::convert::Infallible>(call.answer(answer, stop))
            }
        });
        let mut connection = std::pin::pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(HTTP2_STREAMS_MAX)
                .initial_stream_window_size(HTTP2_WINDOW)
                .initial_connection_window_size(HTTP2_WINDOW)
                .max_header_list_size(HEAD_SIZE_MAX as u32)
                .max_send_buf_size(HTTP2_SEND_BUFFER_MAX)
                .keep_alive_interval(HTTP2_PING_INTERVAL)
                .keep_alive_timeout(HTTP2_PING_TIMEOUT)
                .serve_connection(TokioIo::new(io), service)
        );
        let cause = tokio::select! {
            biased;
            result = &mut connection => return result,
            cause = calls.close_cause(self.stop.clone(), self.keep_alive_timeout) => cause,
        };
        debug!(%peer, ?cause, "an HTTP/2 connection is closed");
        match cause {
            // Ends with the last answer; the server bounds the time of its stop.
            CloseCause::Stop => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            // A call that is on its way is answered.
            CloseCause::Idle => {
                connection.as_mut().graceful_shutdown();
                let _late = tokio::time::timeout(HEADER_TIMEOUT, connection).await;
                Ok(())
            }
            CloseCause::AnswerNotTaken => Ok(()),
        }
    }
}

impl CallsUnderWay {
    fn new(http: Arc<HttpPeer>) -> Arc<CallsUnderWay> {
        let state = CallsState { idle_since: Some(Instant::now()), ..CallsState::default() };
        Arc::new(CallsUnderWay { http, state: Mutex::new(state) })
    }

    fn begin(self: &Arc<CallsUnderWay>) -> CallUnderWay {
        let mut state = self.state();
        state.calls += 1;
        state.idle_since = None;
        if state.calls == 1 {
            self.http.begin_request(0);
        }
        drop(state);
        CallUnderWay { of: self.clone(), part: CallPart::Handled }
    }

    /// A call is not handled any more, and its answer is taken.
    fn end_call(&self, state: &mut CallsState) {
        state.calls -= 1;
        if state.calls == 0 {
            self.http.end_request();
        }
    }

    /// Waits until the connection must be closed.
    async fn close_cause(
        &self,
        mut stop: watch::Receiver<bool>,
        idle_timeout: Duration,
    ) -> CloseCause {
        loop {
            tokio::select! {
                // An error means that the server has been dropped.
                _ = stop.wait_for(|stop| *stop) => return CloseCause::Stop,
                () = tokio::time::sleep(HTTP2_LOOK_INTERVAL.min(idle_timeout)) => {}
            }
            let state = self.state();
            if state.idle_since.is_some_and(|since| since.elapsed() >= idle_timeout) {
                return CloseCause::Idle;
            }
            if state.answers.iter().any(|(_, ready)| ready.elapsed() >= ANSWER_TAKEN_TIMEOUT) {
                return CloseCause::AnswerNotTaken;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, CallsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallUnderWay {
    /// The call is handled; it is under way until its answer is taken.
    fn answer(mut self, answer: Response, stop: watch::Receiver<bool>) -> Response<AnswerBody> {
        let (mut head, body) = answer.into_parts();
        let endless: Option<LongLived> = head.extensions.remove();
        let mut state = self.of.state();
        self.part = if endless.is_some() {
            self.of.end_call(&mut state);
            state.endless += 1;
            CallPart::LongLived
        } else {
            CallPart::Answered(state.answers.insert(Instant::now()))
        };
        drop(state);
        let stopping =
            endless.map(|LongLived(trailers)| Stopping { stopped: until(stop), trailers });
        let body = AnswerBody { body, _call: self, stopping, is_ended: false };
        Response::from_parts(head, body)
    }
}

fn until(mut stop: watch::Receiver<bool>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let _gone = stop.wait_for(|stop| *stop).await.is_err();
    })
}

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        let mut state = self.of.state();
        match self.part {
            CallPart::Handled => self.of.end_call(&mut state),
            CallPart::Answered(key) => {
                state.answers.remove(key);
                self.of.end_call(&mut state);
            }
            CallPart::LongLived => state.endless -= 1,
        }
        if state.calls == 0 && state.endless == 0 {
            state.idle_since = Some(Instant::now());
        }
    }
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.stopped.as_mut().poll(context).is_ready()
        {
            let trailers = std::mem::take(&mut stopping.trailers);
            self.is_ended = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.stopping {
            None => self.body.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}
