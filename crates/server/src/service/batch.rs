//! Several commands in one request, in order, or concurrently. Consecutive
//! publications in order do not wait for each other's replies.
//!
//! Invariant: the replies are in the order of the commands, and a command that names two methods
//! runs neither.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::future::{join_all, maybe_done};
use tokio::task::coop::unconstrained;

use super::call::ApiCall;
use super::error::ApiError;
use super::method::Method;
use crate::limits::{API_CONCURRENCY, API_PIPELINE};

/// Order in which the commands of a batch run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchOrder {
    Sequential,
    Parallel,
}

/// The commands of a batch, in the form of an adapter.
pub(crate) struct BatchCommands<'c, C> {
    pub(crate) commands: &'c [C],
    /// Whether a command publishes and does nothing else. The broker keeps the order of such
    /// commands in each channel, so that the next one need not wait for the reply to the one before
    /// it.
    pub(crate) is_publish: fn(&C) -> bool,
}

/// Runs all commands. The replies are in their order.
pub(crate) async fn run_batch<'c, C, F>(
    call: &ApiCall,
    BatchCommands { commands, is_publish }: BatchCommands<'c, C>,
    order: BatchOrder,
    run: impl Fn(&'c C) -> F,
) -> Result<Vec<F::Output>, ApiError>
where
    F: Future,
    F::Output: Default,
{
    call.take_commands(commands.len())?;
    call.return_permit();
    let mut replies = Vec::with_capacity(commands.len());
    match order {
        BatchOrder::Parallel => {
            for group in commands.chunks(API_CONCURRENCY) {
                replies.extend(join_all(group.iter().map(&run)).await);
            }
        }
        BatchOrder::Sequential => {
            for group in commands.chunk_by(|one, next| is_publish(one) && is_publish(next)) {
                for group in group.chunks(API_PIPELINE) {
                    run_group(group, &run, &mut replies).await;
                }
            }
        }
    }
    // An empty batch has used up its token.
    call.use_permit();
    Ok(replies)
}

/// Runs a command, or publications that do not wait for each other.
async fn run_group<'c, C, F>(
    group: &'c [C],
    run: &impl Fn(&'c C) -> F,
    replies: &mut Vec<F::Output>,
) where
    F: Future,
    F::Output: Default,
{
    if let [command] = group {
        return replies.push(run(command).await);
    }
    // Other requests run between two groups.
    tokio::task::yield_now().await;
    replies.extend(run_in_order(group.iter().map(run)).await);
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

/// The method of a command that names these methods.
pub(crate) fn one_method(named: &[Method]) -> Result<Method, ApiError> {
    match named {
        [] => Err(ApiError::not_found(
            "a command names no method: it is an object such as {\"publish\": {…}}",
        )),
        // Nesting would be unbounded.
        [Method::Batch] => Err(ApiError::not_found("batch cannot be nested")),
        [method] => Ok(*method),
        [one, other, ..] => {
            let (one, other) = (one.name(), other.name());
            Err(ApiError::bad(format!(
                "one command names two methods, {one} and {other}, and none was run: make each a command of its own"
            )))
        }
    }
}
