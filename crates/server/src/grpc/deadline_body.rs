//! The body of a request, which must have arrived within some time.
//!
//! Invariant: from the first poll that has to wait, the body ends or fails within the time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::limits::BODY_TIMEOUT;

/// A request body with a deadline.
struct DeadlineBody {
    body: Body,
    limit: Duration,
    /// Armed when data is waited for: most bodies arrive with their head.
    end: Option<Pin<Box<Sleep>>>,
}

/// Gives the body of a request [`BODY_TIMEOUT`].
pub(super) async fn with_deadline(request: Request) -> Request {
    request.map(|body| Body::new(DeadlineBody { body, limit: BODY_TIMEOUT, end: None }))
}

impl hyper::body::Body for DeadlineBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = self.limit;
        let end = self.end.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(end.as_mut().poll(context));
        let late = Status::deadline_exceeded("the message took too long to arrive");
        Poll::Ready(Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_fails_after_its_time() {
        let whole = with_deadline(Request::new(Body::from("message"))).await;
        assert_eq!(whole.into_body().collect().await.unwrap().to_bytes(), "message");
        let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let late = with_deadline(Request::new(Body::from_stream(silent))).await;
        let begun = Instant::now();
        let error = late.into_body().collect().await.unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        assert_eq!(begun.elapsed(), BODY_TIMEOUT);
    }
}
