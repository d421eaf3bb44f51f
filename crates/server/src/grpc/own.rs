//! The service that only this server has: one channel, clients, subscribers, revocations.
//!
//! Invariant: every call is counted and checked by the gate, and answered in the caller's error
//! mode.

use std::sync::Arc;

use engine::revocation::{Revocation, RevocationState, Subject};
use tonic::{Request, Response, Status};

use super::GrpcAdapter;
use super::descriptions::own as pb;
use super::descriptions::own::tidings_service_server::TidingsService;
use super::errors::answer;
use super::methods::number;
use crate::cluster::questions::ClientPlace;
use crate::service::call::ApiCall;
use crate::service::error::ApiError;
use crate::service::method::Method;
use crate::service::revocations::SubjectQuery;
use crate::service::subscribers::SubscriberPlace;

/// The gRPC service with the methods that only Tidings has.
pub(super) struct OwnService(pub(super) Arc<GrpcAdapter>);

/// Implements the service: each method is that of the adapter, in a response with error or result.
macro_rules! implement {
    ($($name:ident as $work:ident: $method:ident($request:ident) -> $response:ident,)*) => {
        #[tonic::async_trait]
        impl TidingsService for OwnService {
            $(
                async fn $name(
                    &self,
                    request: Request<pb::$request>,
                ) -> Result<Response<pb::$response>, Status> {
                    let (call, mode, request) = self.0.accept(request)?;
                    let work = self.0.$work(&call, request);
                    let outcome = self.0.run(&call, Method::$method, work).await;
                    answer(outcome, mode, |error, result| pb::$response { error, result })
                }
            )*
        }
    };
}

implement! {
    channel as describe: Channel(ChannelRequest) -> ChannelResponse,
    clients as clients: Clients(ClientsRequest) -> ClientsResponse,
    subscribers as subscribers: Subscribers(SubscribersRequest) -> SubscribersResponse,
    revoke as revoke: Revoke(RevokeRequest) -> RevokeResponse,
    unrevoke as unrevoke: Unrevoke(UnrevokeRequest) -> UnrevokeResponse,
    revocations as revocations: Revocations(RevocationsRequest) -> RevocationsResponse,
}

impl GrpcAdapter {
    async fn describe(
        &self,
        call: &ApiCall,
        request: pb::ChannelRequest,
    ) -> Result<pb::ChannelResult, ApiError> {
        let details = self.service.channels.details(&call.caller, &request.channel).await?;
        Ok(pb::ChannelResult {
            channel: request.channel,
            tier: details.tier.to_owned(),
            created: details.created_ms,
            ttl: details.ttl.map(|ttl| ttl.left_ms.div_ceil(1000)),
            num_clients: number(details.num_clients),
            num_nodes: number(details.num_nodes),
            missing_nodes: number(details.missing_nodes),
        })
    }

    async fn clients(
        &self,
        call: &ApiCall,
        request: pb::ClientsRequest,
    ) -> Result<pb::ClientsResult, ApiError> {
        let pb::ClientsRequest { user, client } = request;
        let found = self.service.nodes.clients(&call.caller, user, client).await?;
        Ok(pb::ClientsResult {
            clients: found.clients.into_iter().map(pb::ClientPlace::from).collect(),
            missing_nodes: number(found.missing_nodes),
            truncated: found.is_cut,
        })
    }

    async fn subscribers(
        &self,
        call: &ApiCall,
        request: pb::SubscribersRequest,
    ) -> Result<pb::SubscribersResult, ApiError> {
        let pb::SubscribersRequest { channel, limit, cursor } = request;
        let subscribers = &self.service.subscribers;
        let page = subscribers.page(&call.caller, &channel, limit.into(), &cursor).await?;
        Ok(pb::SubscribersResult {
            subscribers: page.subscribers.into_iter().map(pb::Subscriber::from).collect(),
            cursor: page.cursor.unwrap_or_default(),
            missing_nodes: number(page.missing_nodes),
        })
    }

    async fn revoke(
        &self,
        _call: &ApiCall,
        request: pb::RevokeRequest,
    ) -> Result<pb::RevokeResult, ApiError> {
        let pb::RevokeRequest { user, token_id, issued_before, all_users, expire_at } = request;
        let query = SubjectQuery { user, token_id, issued_before, all_users };
        let (subject, issued_before) = query.subject()?;
        self.service.revocations.revoke(subject, issued_before, expire_at).await?;
        Ok(pb::RevokeResult {})
    }

    async fn unrevoke(
        &self,
        _call: &ApiCall,
        request: pb::UnrevokeRequest,
    ) -> Result<pb::UnrevokeResult, ApiError> {
        let pb::UnrevokeRequest { user, token_id, issued_before, all_users } = request;
        let query = SubjectQuery { user, token_id, issued_before, all_users };
        self.service.revocations.lift(query.subject()?.0).await?;
        Ok(pb::UnrevokeResult {})
    }

    async fn revocations(
        &self,
        _call: &ApiCall,
        request: pb::RevocationsRequest,
    ) -> Result<pb::RevocationsResult, ApiError> {
        let page = self.service.revocations.page(request.limit.into(), &request.cursor)?;
        Ok(pb::RevocationsResult {
            revocations: page.revocations.iter().map(|one| (&**one).into()).collect(),
            cursor: page.cursor.unwrap_or_default(),
        })
    }
}

impl From<ClientPlace> for pb::ClientPlace {
    fn from(place: ClientPlace) -> pb::ClientPlace {
        let ClientPlace { client, user, node, connected_at, channels } = place;
        pb::ClientPlace { client, user, node, connected_at, channels }
    }
}

impl From<SubscriberPlace> for pb::Subscriber {
    fn from(place: SubscriberPlace) -> pb::Subscriber {
        let SubscriberPlace { client, user, node } = place;
        pb::Subscriber { client, user, node }
    }
}

impl From<&Revocation> for pb::Revocation {
    fn from(revocation: &Revocation) -> pb::Revocation {
        let expire_at = revocation.ends_at;
        let issued_before = match revocation.state {
            RevocationState::Revoked { issued_before } => Some(issued_before),
            RevocationState::Lifted => None,
        };
        let entry = pb::Revocation { expire_at, ..pb::Revocation::default() };
        match &revocation.subject {
            Subject::User(user) => pb::Revocation { user: Some(user.to_string()), ..entry },
            Subject::Token(id) => pb::Revocation { token_id: Some(id.to_string()), ..entry },
            Subject::IssuedTo(user) => {
                pb::Revocation { user: Some(user.to_string()), issued_before, ..entry }
            }
            Subject::IssuedToAll => pb::Revocation { all_users: true, issued_before, ..entry },
        }
    }
}
