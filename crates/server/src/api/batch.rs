//! Several commands in one request (protocol §3.3), in order, or concurrently when `parallel` is
//! set.
//!
//! Invariant: a command that names two methods is refused, and neither method is run.

use futures_util::future::{BoxFuture, FutureExt as _, join_all};

use super::ApiState;
use super::call::Call;
use super::error::{MethodFailure, not_found};
use super::method::Method;
use super::methods::Outcome;
use super::request::{Batch, BatchCommand, read};
use crate::limits::{API_CONCURRENCY, API_REPLY_FREE};
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
            for command in &commands {
                replies.push(self.run_one(call, command.as_ref()).await);
            }
        }
        // An empty batch has used up its token.
        call.take_paid();
        Ok(format!("{{\"replies\":[{}]}}", replies.join(",")))
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
