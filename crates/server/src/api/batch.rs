//! Several commands in one request (§3.3): one after the other, or all at once when the caller does not mind the order.

use futures_util::future::{BoxFuture, FutureExt as _, join_all};

use super::Api;
use super::error::{ApiError, Failure};
use super::methods::{Method, Outcome};
use super::request::{Batch, BatchCommand, read};
use crate::limits::{API_CONCURRENCY, API_ITEMS_MAX};

impl Api {
    /// Boxed, because a method cannot contain itself.
    pub(super) fn batch<'a>(&'a self, params: &'a [u8]) -> BoxFuture<'a, Outcome> {
        self.run_batch(params).boxed()
    }

    async fn run_batch(&self, params: &[u8]) -> Outcome {
        let request: Batch = read(params)?;
        if request.commands.len() > API_ITEMS_MAX {
            return Err(ApiError::bad("commands has too many items").into());
        }
        let mut replies = Vec::with_capacity(request.commands.len());
        if request.parallel {
            for group in request.commands.chunks(API_CONCURRENCY) {
                replies.extend(join_all(group.iter().map(|command| self.run_one(command))).await);
            }
        } else {
            for command in &request.commands {
                replies.push(self.run_one(command).await);
            }
        }
        Ok(format!("{{\"replies\":[{}]}}", replies.join(",")))
    }

    async fn run_one(&self, command: &Option<BatchCommand>) -> String {
        let command = command.as_ref().and_then(|members| members.iter().next());
        let Some((name, params)) = command else {
            return failed(&ApiError::BAD_REQUEST);
        };
        let method = match Method::named(name) {
            // A batch in a batch could nest without end.
            None | Some(Method::Batch) => return failed(&ApiError::METHOD_NOT_FOUND),
            Some(method) => method,
        };
        match self.run(method, params.get().as_bytes()).await {
            Ok(result) => format!("{{\"{name}\":{result}}}"),
            Err(Failure::Api(error)) => failed(&error),
            Err(Failure::Unreadable(text)) => {
                failed(&ApiError { code: ApiError::BAD_REQUEST.code, message: text.into() })
            }
        }
    }
}

fn failed(error: &ApiError) -> String {
    format!("{{\"error\":{}}}", error.json())
}
