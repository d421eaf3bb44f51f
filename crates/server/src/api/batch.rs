//! Several commands in one request (protocol §3.3), in order, or concurrently when `parallel` is
//! set. Consecutive publications in order do not wait for each other's replies.
//!
//! Invariant: a command that names two methods is refused, and neither method is run.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::future::{BoxFuture, FutureExt as _, join_all, maybe_done};
use tokio::task::coop::unconstrained;

use super::ApiState;
use super::call::Call;
use super::error::{MethodFailure, not_found};
use super::method::Method;
use super::methods::Outcome;
use super::request::{Batch, BatchCommand, read};
use crate::limits::{API_CONCURRENCY, API_PIPELINE, API_REPLY_FREE};
use crate::service::error::ApiError;

impl ApiState {
    /// Boxed, because an `async fn` cannot contain its own future.
    pub(super) fn batch<'a>(&'a self, call: &'a Call, params: &'a [u8]) -> BoxFuture<'a, Outcome> {
        self.run_batch(call, params).boxed()
    }

    async fn run_batch(&self, call: &Call, params: &[u8]) -> Outcome {
        let request: Batch = read(params)?;
        let commands = request.commands.ok_or_else(|| ApiError::bad("commands is missing"))?;
        call.take_commands(commands.len())?;
        call.set_paid();
        let mut replies = Vec::with_capacity(commands.len());
        if request.parallel {
            for group in commands.chunks(API_CONCURRENCY) {
                let running = group.iter().map(|command| self.run_one(call, command.as_ref()));
                replies.extend(join_all(running).await);
            }
        } else {
            for group in commands.chunk_by(|one, next| is_publish(one) && is_publish(next)) {
                for group in group.chunks(API_PIPELINE) {
                    replies.extend(self.run_group(call, group).await);
                }
            }
        }
        // An empty batch has used up its token.
        call.take_paid();
        Ok(format!("{{\"replies\":[{}]}}", replies.join(",")))
    }

    /// Runs a command, or publications that do not wait for each other.
    async fn run_group(&self, call: &Call, group: &[Option<BatchCommand>]) -> Vec<String> {
        if let [command] = group {
            return vec![self.run_one(call, command.as_ref()).await];
        }
        // Other requests run between two groups.
        tokio::task::yield_now().await;
        run_in_order(group.iter().map(|command| self.run_one(call, command.as_ref()))).await
    }

    async fn run_one(&self, call: &Call, command: Option<&BatchCommand>) -> String {
        let failed = |error: &ApiError| call.failed(error, API_REPLY_FREE);
        let (method, params) = match command.map(|BatchCommand(methods)| &**methods) {
            None => return failed(&ApiError::bad("a command is null")),
            Some([]) => {
                let text = "a command names no method: it is an object such as {\"publish\": {…}}";
                return failed(&not_found(text));
            }
            // Nesting would be unbounded.
            Some([(Method::Batch, _)]) => {
                return failed(&not_found("a batch has no place in a batch"));
            }
            Some([(method, params)]) => (*method, params),
            Some([(one, _), (other, _), ..]) => {
                let (one, other) = (one.name(), other.name());
                return failed(&ApiError::bad(format!(
                    "one command names two methods, {one} and {other}, and none was run: make each a command of its own"
                )));
            }
        };
        let name = method.name();
        match self.run(call, method, params.get().as_bytes()).await {
            Ok(result) => format!("{{\"{name}\":{result}}}"),
            Err(MethodFailure::Api(error)) => failed(&error),
            Err(MethodFailure::Unreadable(text)) => failed(&ApiError::bad(text)),
        }
    }
}

/// Whether a command publishes. The broker keeps the order of such commands in each channel, so the
/// next one need not wait for the reply to the one before it.
fn is_publish(command: &Option<BatchCommand>) -> bool {
    let Some(BatchCommand(methods)) = command else { return false };
    matches!(&methods[..], [(Method::Publish, _)])
}

/// Starts all futures in their order, then waits for all. A publication is submitted when its
/// future is polled first, which the budget of the task would prevent.
async fn run_in_order<T: Default>(
    futures: impl Iterator<Item = impl Future<Output = T>>,
) -> Vec<T> {
    let start = |one| Box::pin(maybe_done(unconstrained(one)));
    let mut running: Vec<_> = futures.map(start).collect();
    poll_fn(|context| {
        for one in &mut running {
            // Whether it is done is asked below.
            let _started = one.as_mut().poll(context);
        }
        Poll::Ready(())
    })
    .await;
    let mut outputs = Vec::with_capacity(running.len());
    for mut one in running {
        one.as_mut().await;
        outputs.push(one.as_mut().take_output().unwrap_or_default());
    }
    outputs
}
