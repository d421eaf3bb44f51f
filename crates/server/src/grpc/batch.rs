//! Several commands in one gRPC call.
//!
//! Invariant: the replies are in the order of the commands; a command that names no method or two
//! has an error as its reply.

use tonic::{Request, Response, Status};

use super::GrpcAdapter;
use super::compatible::unknown_rpc;
use super::descriptions::compatible as pb;
use super::errors::{fitting, status};
use crate::limits::API_REPLY_FREE;
use crate::service::batch::{BatchCommands, BatchOrder, one_method, run_batch};
use crate::service::call::ApiCall;
use crate::service::error::ApiError;
use crate::service::method::Method;

/// Runs the one method that a command names, and puts its result into the reply.
macro_rules! run_command {
    ($adapter:expr, $call:expr, $command:expr; $($name:ident: $method:ident,)*) => {{
        let command: &pb::Command = $command;
        let named = [$(command.$name.as_ref().map(|_| Method::$method)),*];
        let named: Vec<Method> = named.into_iter().flatten().collect();
        match one_method(&named)? {
            $(
                Method::$method => {
                    let request = command.$name.clone().unwrap_or_default();
                    let work = $adapter.$name($call, request);
                    let result = $adapter.run($call, Method::$method, work).await?;
                    Ok(pb::Reply { $name: Some(result), ..pb::Reply::default() })
                }
            )*
            _ => Err(ApiError::not_found("this method has no place in a batch")),
        }
    }};
}

impl GrpcAdapter {
    /// An error of the batch itself is a status in both error modes: its response has no error.
    pub(super) async fn batch(
        &self,
        request: Request<pb::BatchRequest>,
    ) -> Result<Response<pb::BatchResponse>, Status> {
        let (call, _, request) = self.accept(request)?;
        let outcome = self.run(&call, Method::Batch, self.run_commands(&call, &request)).await;
        outcome.map(Response::new).map_err(|error| status(&error))
    }

    async fn run_commands(
        &self,
        call: &ApiCall,
        request: &pb::BatchRequest,
    ) -> Result<pb::BatchResponse, ApiError> {
        let order = match request.parallel {
            true => BatchOrder::Parallel,
            false => BatchOrder::Sequential,
        };
        let run = async |command| match self.run_one(call, command).await {
            Ok(reply) => reply,
            Err(error) => {
                let error = Some(fitting(call, &error, API_REPLY_FREE));
                pb::Reply { error, ..pb::Reply::default() }
            }
        };
        let commands = BatchCommands { commands: &request.commands, is_publish };
        let replies = run_batch(call, commands, order, run).await?;
        Ok(pb::BatchResponse { replies })
    }

    async fn run_one(&self, call: &ApiCall, command: &pb::Command) -> Result<pb::Reply, ApiError> {
        if let Some(request) = &command.rpc {
            return Err(unknown_rpc(request));
        }
        run_command! { self, call, command;
            publish: Publish,
            broadcast: Broadcast,
            subscribe: Subscribe,
            unsubscribe: Unsubscribe,
            disconnect: Disconnect,
            presence: Presence,
            presence_stats: PresenceStats,
            history: History,
            history_remove: HistoryRemove,
            info: Info,
            refresh: Refresh,
            channels: Channels,
            block_user: BlockUser,
            unblock_user: UnblockUser,
            revoke_token: RevokeToken,
            invalidate_user_tokens: InvalidateUserTokens,
        }
    }
}

/// Whether a command publishes. One that names a second method is refused when it runs.
fn is_publish(command: &pb::Command) -> bool {
    command.publish.is_some()
}
