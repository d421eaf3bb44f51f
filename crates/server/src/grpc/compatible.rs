//! The service that the compatible server has too.
//!
//! Invariant: every call is counted and checked by the gate, and answered in the caller's error
//! mode.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::GrpcAdapter;
use super::descriptions::compatible as pb;
use super::descriptions::compatible::centrifugo_api_server::CentrifugoApi;
use super::errors::answer;
use crate::service::error::ApiError;
use crate::service::method::Method;

/// The gRPC service that is compatible with Centrifugo.
pub(super) struct CompatibleService(pub(super) Arc<GrpcAdapter>);

/// Implements the service: each method is that of the adapter, in a response with error or result.
macro_rules! implement {
    ($($name:ident: $method:ident($request:ident) -> $response:ident,)*) => {
        #[tonic::async_trait]
        impl CentrifugoApi for CompatibleService {
            $(
                async fn $name(
                    &self,
                    request: Request<pb::$request>,
                ) -> Result<Response<pb::$response>, Status> {
                    let (call, mode, request) = self.0.accept(request)?;
                    let work = self.0.$name(&call, request);
                    let outcome = self.0.run(&call, Method::$method, work).await;
                    answer(outcome, mode, |error, result| pb::$response { error, result })
                }
            )*

            async fn batch(
                &self,
                request: Request<pb::BatchRequest>,
            ) -> Result<Response<pb::BatchResponse>, Status> {
                self.0.batch(request).await
            }

            async fn rpc(
                &self,
                request: Request<pb::RpcRequest>,
            ) -> Result<Response<pb::RpcResponse>, Status> {
                let (_, mode, request) = self.0.accept(request)?;
                let outcome = Err(unknown_rpc(&request));
                answer(outcome, mode, |error, result| pb::RpcResponse { error, result })
            }
        }
    };
}

implement! {
    publish: Publish(PublishRequest) -> PublishResponse,
    broadcast: Broadcast(BroadcastRequest) -> BroadcastResponse,
    subscribe: Subscribe(SubscribeRequest) -> SubscribeResponse,
    unsubscribe: Unsubscribe(UnsubscribeRequest) -> UnsubscribeResponse,
    disconnect: Disconnect(DisconnectRequest) -> DisconnectResponse,
    presence: Presence(PresenceRequest) -> PresenceResponse,
    presence_stats: PresenceStats(PresenceStatsRequest) -> PresenceStatsResponse,
    history: History(HistoryRequest) -> HistoryResponse,
    history_remove: HistoryRemove(HistoryRemoveRequest) -> HistoryRemoveResponse,
    info: Info(InfoRequest) -> InfoResponse,
    refresh: Refresh(RefreshRequest) -> RefreshResponse,
    channels: Channels(ChannelsRequest) -> ChannelsResponse,
    block_user: BlockUser(BlockUserRequest) -> BlockUserResponse,
    unblock_user: UnblockUser(UnblockUserRequest) -> UnblockUserResponse,
    revoke_token: RevokeToken(RevokeTokenRequest) -> RevokeTokenResponse,
    invalidate_user_tokens: InvalidateUserTokens(InvalidateUserTokensRequest)
        -> InvalidateUserTokensResponse,
}

/// This server has no extensions that a caller could name.
pub(super) fn unknown_rpc(request: &pb::RpcRequest) -> ApiError {
    match request.method.is_empty() {
        true => ApiError::bad("method is empty"),
        false => ApiError::not_found("this server has no RPC extension of this name"),
    }
}
