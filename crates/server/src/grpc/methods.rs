//! The methods of the server API over gRPC: read the request, call the service,
//! write the result.

use bytes::Bytes;
use engine::broker::Target;
use engine::claims::{Overrides, SubscriptionGrant};
use engine::revocation::Subject;
use prost::Message as _;
use wire::protocol::{self, StreamPosition};

use super::GrpcAdapter;
use super::descriptions::compatible as pb;
use super::errors::fitting;
use crate::cluster::questions::NodeInfo;
use crate::limits::{API_ITEMS_MAX, API_PUBLISHED_MAX};
use crate::service::call::ApiCall;
use crate::service::channels::{HistoryOrder, history_query};
use crate::service::error::ApiError;
use crate::service::payload::payload;
use crate::service::publications::PublicationOptions;
use crate::service::revocations::identifier;
use crate::service::sessions::{
    ServerSubscription, SessionFilter, SessionRefresh, disconnect_advice,
};

impl GrpcAdapter {
    pub(super) async fn publish(
        &self,
        call: &ApiCall,
        request: pb::PublishRequest,
    ) -> Result<pb::PublishResult, ApiError> {
        let data = payload(request.data, &request.b64data)?;
        let options = PublicationOptions {
            tags: request.tags.into_iter().collect(),
            skip_history: request.skip_history,
            idempotency_key: request.idempotency_key,
            version: request.version,
            version_epoch: request.version_epoch,
        };
        let publications = &self.service.publications;
        let position = publications.publish(&call.caller, &request.channel, data, &options).await?;
        Ok(position.into())
    }

    pub(super) async fn broadcast(
        &self,
        call: &ApiCall,
        request: pb::BroadcastRequest,
    ) -> Result<pb::BroadcastResult, ApiError> {
        let data = payload(request.data, &request.b64data)?;
        let options = PublicationOptions {
            tags: request.tags.into_iter().collect(),
            skip_history: request.skip_history,
            idempotency_key: request.idempotency_key,
            version: request.version,
            version_epoch: request.version_epoch,
        };
        // Space for the results is reserved first, so that the result of no publication is dropped.
        let reserved = request.channels.len().min(API_ITEMS_MAX) * API_PUBLISHED_MAX;
        call.take_room(reserved, 0)?;
        let publications = &self.service.publications;
        let results = publications.broadcast(&call.caller, &request.channels, data, &options).await;
        let response = |result: Result<StreamPosition, ApiError>| match result {
            Ok(position) => pb::PublishResponse { error: None, result: Some(position.into()) },
            Err(error) => pb::PublishResponse {
                error: Some(fitting(call, &error, API_PUBLISHED_MAX)),
                result: None,
            },
        };
        let results = results.inspect_err(|_| call.give_back(reserved))?;
        let responses: Vec<_> = results.into_iter().map(response).collect();
        let used: usize =
            responses.iter().map(|one| one.encoded_len().min(API_PUBLISHED_MAX)).sum();
        call.give_back(reserved - used);
        Ok(pb::BroadcastResult { responses })
    }

    pub(super) async fn subscribe(
        &self,
        call: &ApiCall,
        request: pb::SubscribeRequest,
    ) -> Result<pb::SubscribeResult, ApiError> {
        let subscription = ServerSubscription {
            channel: request.channel,
            expire_at: Some(request.expire_at).filter(|at| *at > 0),
            grant: SubscriptionGrant {
                info: payload(request.info, &request.b64info)?,
                data: payload(request.data, &request.b64data)?,
                overrides: request.r#override.map(Overrides::from).unwrap_or_default(),
                expire_at: None,
            },
            recover_since: request.recover_since.map(StreamPosition::from),
        };
        let target = target(request.user, request.client, request.session);
        self.service.sessions.subscribe(&call.caller, target, subscription)?;
        Ok(pb::SubscribeResult {})
    }

    pub(super) async fn unsubscribe(
        &self,
        call: &ApiCall,
        request: pb::UnsubscribeRequest,
    ) -> Result<pb::UnsubscribeResult, ApiError> {
        let target = target(request.user, request.client, request.session);
        self.service.sessions.unsubscribe(&call.caller, target, request.channel)?;
        Ok(pb::UnsubscribeResult {})
    }

    pub(super) async fn disconnect(
        &self,
        _call: &ApiCall,
        request: pb::DisconnectRequest,
    ) -> Result<pb::DisconnectResult, ApiError> {
        let advice = request.disconnect.map(|pb::Disconnect { code, reason }| {
            // A number beyond u16 becomes an invalid code, which `disconnect_advice` refuses.
            disconnect_advice(u16::try_from(code).unwrap_or(u16::MAX), reason)
        });
        let filter = SessionFilter {
            user: request.user,
            client: request.client,
            session: request.session,
            whitelist: request.whitelist,
        };
        self.service.sessions.disconnect(filter.target(), advice.transpose()?);
        Ok(pb::DisconnectResult {})
    }

    pub(super) async fn refresh(
        &self,
        _call: &ApiCall,
        request: pb::RefreshRequest,
    ) -> Result<pb::RefreshResult, ApiError> {
        let info = payload(request.info, "")?;
        let expire_at = Some(request.expire_at).filter(|at| *at > 0);
        let refresh = SessionRefresh { info, expire_at, expired: request.expired };
        let target = target(request.user, request.client, request.session);
        self.service.sessions.refresh(target, refresh);
        Ok(pb::RefreshResult {})
    }

    pub(super) async fn presence(
        &self,
        call: &ApiCall,
        request: pb::PresenceRequest,
    ) -> Result<pb::PresenceResult, ApiError> {
        let channels = &self.service.channels;
        let _permit = channels.read_permit().await;
        call.check_room(1)?;
        let clients = channels.presence(&call.caller, &request.channel).await?;
        let presence = clients.iter().map(|info| (info.client.clone(), (&**info).into()));
        Ok(pb::PresenceResult { presence: presence.collect() })
    }

    pub(super) async fn presence_stats(
        &self,
        call: &ApiCall,
        request: pb::PresenceStatsRequest,
    ) -> Result<pb::PresenceStatsResult, ApiError> {
        let stats = self.service.channels.presence_stats(&call.caller, &request.channel).await?;
        let protocol::PresenceStats { num_clients, num_users } = stats;
        Ok(pb::PresenceStatsResult { num_clients, num_users })
    }

    pub(super) async fn history(
        &self,
        call: &ApiCall,
        request: pb::HistoryRequest,
    ) -> Result<pb::HistoryResult, ApiError> {
        let since = request.since.map(StreamPosition::from);
        let order = match request.reverse {
            true => HistoryOrder::NewestFirst,
            false => HistoryOrder::OldestFirst,
        };
        let query = history_query(request.limit.into(), since, order);
        let channels = &self.service.channels;
        let _permit = channels.read_permit().await;
        call.check_room(1)?;
        let history = channels.history(&call.caller, &request.channel, query).await?;
        call.check_room(history.publications.iter().map(|one| one.data.len()).sum())?;
        let publication = |one: &protocol::Publication| pb::Publication {
            data: one.data.clone(),
            info: one.info.as_ref().map(pb::ClientInfo::from),
            offset: one.offset,
            tags: one.tags.iter().cloned().collect(),
        };
        Ok(pb::HistoryResult {
            publications: history.publications.iter().map(|one| publication(one)).collect(),
            epoch: history.epoch,
            offset: history.offset,
        })
    }

    pub(super) async fn history_remove(
        &self,
        call: &ApiCall,
        request: pb::HistoryRemoveRequest,
    ) -> Result<pb::HistoryRemoveResult, ApiError> {
        self.service.channels.remove_history(&call.caller, &request.channel).await?;
        Ok(pb::HistoryRemoveResult {})
    }

    pub(super) async fn info(
        &self,
        _call: &ApiCall,
        _request: pb::InfoRequest,
    ) -> Result<pb::InfoResult, ApiError> {
        let nodes = self.service.nodes.info().await?.answers;
        Ok(pb::InfoResult { nodes: nodes.into_iter().map(pb::NodeResult::from).collect() })
    }

    pub(super) async fn channels(
        &self,
        call: &ApiCall,
        request: pb::ChannelsRequest,
    ) -> Result<pb::ChannelsResult, ApiError> {
        let found = self.service.channels.list(&call.caller, request.pattern).await?;
        let channels = found.clients.into_iter();
        let channels = channels
            .map(|(name, clients)| (name, pb::ChannelInfo { num_clients: number(clients) }));
        Ok(pb::ChannelsResult { channels: channels.collect() })
    }

    pub(super) async fn block_user(
        &self,
        _call: &ApiCall,
        request: pb::BlockUserRequest,
    ) -> Result<pb::BlockUserResult, ApiError> {
        let subject = Subject::User(identifier("user", &request.user)?);
        self.service.revocations.revoke(subject, 0, request.expire_at).await?;
        Ok(pb::BlockUserResult {})
    }

    pub(super) async fn unblock_user(
        &self,
        _call: &ApiCall,
        request: pb::UnblockUserRequest,
    ) -> Result<pb::UnblockUserResult, ApiError> {
        let subject = Subject::User(identifier("user", &request.user)?);
        self.service.revocations.lift(subject).await?;
        Ok(pb::UnblockUserResult {})
    }

    pub(super) async fn revoke_token(
        &self,
        _call: &ApiCall,
        request: pb::RevokeTokenRequest,
    ) -> Result<pb::RevokeTokenResult, ApiError> {
        let subject = Subject::Token(identifier("uid", &request.uid)?);
        self.service.revocations.revoke(subject, 0, request.expire_at).await?;
        Ok(pb::RevokeTokenResult {})
    }

    pub(super) async fn invalidate_user_tokens(
        &self,
        _call: &ApiCall,
        request: pb::InvalidateUserTokensRequest,
    ) -> Result<pb::InvalidateUserTokensResult, ApiError> {
        let pb::InvalidateUserTokensRequest { user, issued_before, expire_at, channel } = request;
        let user = identifier("user", &user)?;
        let revocations = &self.service.revocations;
        revocations.invalidate(user, issued_before, expire_at, &channel).await?;
        Ok(pb::InvalidateUserTokensResult {})
    }
}

fn target(user: String, client: String, session: String) -> Option<Target> {
    SessionFilter { user, client, session, whitelist: Vec::new() }.target()
}

/// A count in the width of the protocol.
pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl From<StreamPosition> for pb::PublishResult {
    fn from(StreamPosition { offset, epoch }: StreamPosition) -> pb::PublishResult {
        match epoch.is_empty() {
            true => pb::PublishResult::default(),
            false => pb::PublishResult { offset, epoch },
        }
    }
}

impl From<pb::StreamPosition> for StreamPosition {
    fn from(pb::StreamPosition { offset, epoch }: pb::StreamPosition) -> StreamPosition {
        StreamPosition { offset, epoch }
    }
}

impl From<pb::SubscribeOptionOverride> for Overrides {
    fn from(given: pb::SubscribeOptionOverride) -> Overrides {
        let value = |switch: Option<pb::BoolValue>| switch.map(|switch| switch.value);
        Overrides {
            presence: value(given.presence),
            join_leave: value(given.join_leave),
            force_push_join_leave: value(given.force_push_join_leave),
            force_recovery: value(given.force_recovery),
            force_positioning: value(given.force_positioning),
        }
    }
}

impl From<&protocol::ClientInfo> for pb::ClientInfo {
    fn from(info: &protocol::ClientInfo) -> pb::ClientInfo {
        let bytes = Bytes::clone;
        pb::ClientInfo {
            user: info.user.clone(),
            client: info.client.clone(),
            conn_info: bytes(&info.conn_info),
            chan_info: bytes(&info.chan_info),
        }
    }
}

impl From<NodeInfo> for pb::NodeResult {
    fn from(node: NodeInfo) -> pb::NodeResult {
        pb::NodeResult {
            uid: node.uid,
            name: node.name,
            version: node.version,
            num_clients: number(node.num_clients),
            num_users: number(node.num_users),
            num_channels: number(node.num_channels),
            uptime: u32::try_from(node.uptime).unwrap_or(u32::MAX),
            metrics: None,
            process: None,
            num_subs: number(node.num_subs),
        }
    }
}
