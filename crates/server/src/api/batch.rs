//! Several commands in one request, as JSON.
//!
//! Invariant: a command that names two methods is refused, and neither method is run.

use futures_util::future::{BoxFuture, FutureExt as _};

use super::ApiState;
use super::error::{self, MethodFailure};
use super::methods::Outcome;
use super::request::{Batch, BatchCommand, read};
use crate::limits::API_REPLY_FREE;
use crate::service::batch::{BatchCommands, BatchOrder, one_method, run_batch};
use crate::service::call::ApiCall;
use crate::service::error::ApiError;
use crate::service::method::Method;

impl ApiState {
    /// Boxed, because an `async fn` cannot contain its own future.
    pub(super) fn batch<'a>(
        &'a self,
        call: &'a ApiCall,
        params: &'a [u8],
    ) -> BoxFuture<'a, Outcome> {
        self.run_commands(call, params).boxed()
    }

    async fn run_commands(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        let request: Batch = read(params)?;
        let commands = request.commands.ok_or_else(|| ApiError::bad("commands is missing"))?;
        let order = match request.parallel {
            true => BatchOrder::Parallel,
            false => BatchOrder::Sequential,
        };
        let run = |command| self.run_one(call, command);
        let commands = BatchCommands { commands: &commands, is_publish };
        let replies = run_batch(call, commands, order, run).await?;
        Ok(format!("{{\"replies\":[{}]}}", replies.join(",")))
    }

    async fn run_one(&self, call: &ApiCall, command: &Option<BatchCommand>) -> String {
        let failed = |error: &ApiError| error::reply(call, error, API_REPLY_FREE);
        let Some(BatchCommand(named)) = command else {
            return failed(&ApiError::bad("a command is null"));
        };
        let methods: Vec<Method> = named.iter().map(|(method, _)| *method).collect();
        let (method, params) = match (one_method(&methods), &named[..]) {
            (Ok(method), [(_, params), ..]) => (method, params),
            (Err(error), _) => return failed(&error),
            (Ok(_), []) => return failed(&ApiError::BAD_REQUEST),
        };
        let name = method.name();
        match self.run(call, method, params.get().as_bytes()).await {
            Ok(result) => format!("{{\"{name}\":{result}}}"),
            Err(MethodFailure::Api(error)) => failed(&error),
            Err(MethodFailure::Unreadable(text)) => failed(&ApiError::bad(text)),
        }
    }
}

fn is_publish(command: &Option<BatchCommand>) -> bool {
    let Some(BatchCommand(methods)) = command else { return false };
    matches!(&methods[..], [(Method::Publish, _)])
}
