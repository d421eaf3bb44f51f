//! Implementation of the methods of the server API (protocol §3.3): read the parameters, check them
//! by the rules that apply to clients, query the broker, write the result as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use engine::broker::{
    Control, HistoryQuery, NodeBusRequest, Order, PresenceRequest, PublicationsRequest,
    PublishOptions,
};
use engine::channel::{self, CONFIG, ChannelView};
use engine::claims::SubscriptionGrant;
use engine::rules::{DataFormat, Rules};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::SemaphorePermit;
use wire::protocol::{DisconnectCode, ErrorCode, PresenceStats, Publication, StreamPosition};

use super::ApiState;
use super::call::Call;
use super::error::{ApiError, MethodFailure};
use super::method::Method;
use super::request::{self, OneChannel, Publish, SessionFilter, payload, read};
use super::response::{self, AnswerGaps};
use crate::cluster::members::Answers;
use crate::cluster::questions::{ActiveChannels, ClientList, NodeInfo, Question};
use crate::cluster::survey::WorkerTimeout;
use crate::limits::{API_ANSWER_MAX, API_CONCURRENCY, API_ITEMS_MAX};
use crate::pattern::ChannelPattern;

/// Result of a method as JSON.
pub(super) type Outcome = Result<String, MethodFailure>;

pub(super) fn json(result: &impl Serialize) -> Outcome {
    Ok(serde_json::to_string(result).expect("responses are JSON"))
}

impl ApiState {
    /// Runs one method; its result is a JSON object.
    pub(super) async fn dispatch(&self, call: &Call, method: Method, params: &[u8]) -> Outcome {
        let params = match params.trim_ascii() {
            b"" | b"null" if method.works_without_parameters() => b"{}",
            b"" | b"null" => {
                let text =
                    format!("there are no parameters: {} takes a JSON object", method.name());
                return Err(MethodFailure::Unreadable(text));
            }
            params => params,
        };
        match method {
            Method::Publish => self.publish(call, params).await,
            Method::Broadcast => self.broadcast(call, params).await,
            Method::Subscribe => self.subscribe(call, params),
            Method::Unsubscribe => self.unsubscribe(call, params),
            Method::Disconnect => self.disconnect(params),
            Method::Refresh => self.refresh(params),
            Method::Presence => self.presence(call, params).await,
            Method::PresenceStats => self.presence_stats(call, params).await,
            Method::History => self.history(call, params).await,
            Method::HistoryRemove => self.history_remove(call, params).await,
            Method::Channels => self.channels(call, params).await,
            Method::Channel => self.channel(call, params).await,
            Method::Clients => self.clients(call, params).await,
            Method::Info => self.info(params).await,
            Method::Revoke => self.revoke(params).await,
            Method::Unrevoke => self.unrevoke(params).await,
            Method::Revocations => self.revocations(call, params),
            Method::BlockUser => self.block_user(params).await,
            Method::UnblockUser => self.unblock_user(params).await,
            Method::RevokeToken => self.revoke_token(params).await,
            Method::InvalidateUserTokens => self.invalidate_user_tokens(params).await,
            Method::Batch => self.batch(call, params).await,
        }
    }

    async fn publish(&self, call: &Call, params: &[u8]) -> Outcome {
        let request: Publish = read(params)?;
        let data = payload(&request.data, &request.b64data)?;
        Ok(self.publish_to(call, &request.channel, data, &request).await?)
    }

    async fn broadcast(&self, call: &Call, params: &[u8]) -> Outcome {
        let request: Publish = read(params)?;
        if request.channels.is_empty() {
            return Err(ApiError::bad("channels is empty").into());
        }
        if request.channels.len() > API_ITEMS_MAX {
            return Err(ApiError::bad("channels has too many items").into());
        }
        let data = payload(&request.data, &request.b64data)?;
        let mut responses = Vec::with_capacity(request.channels.len());
        for group in request.channels.chunks(API_CONCURRENCY) {
            let publishing =
                group.iter().map(|name| self.publish_to(call, name, data.clone(), &request));
            responses.extend(join_all(publishing).await);
        }
        let responses: Vec<String> = responses
            .into_iter()
            .map(|response| match response {
                Ok(result) => format!("{{\"result\":{result}}}"),
                Err(error) => format!("{{\"error\":{}}}", error.json()),
            })
            .collect();
        Ok(format!("{{\"responses\":[{}]}}", responses.join(",")))
    }

    async fn publish_to(
        &self,
        call: &Call,
        name: &str,
        data: Bytes,
        request: &Publish,
    ) -> Result<String, ApiError> {
        let rules = self.node.rules();
        let view = view(call, &rules, name)?;
        if view.namespace.is_system {
            self.check_system(name, &data, request)?;
        }
        let format = view.namespace.publication_data_format;
        channel::check_data(format, &data).map_err(|_| ApiError::bad(unfit(format, &data)))?;
        let kept = match request.skip_history {
            true => PublishOptions::default(),
            false => view.namespace.publish_options(),
        };
        let options = PublishOptions {
            idempotency_key: request.idempotency_key.clone(),
            version: request.version,
            version_epoch: request.version_epoch.clone(),
            ..kept
        };
        let publication = Publication {
            data,
            tags: request.tags.iter().map(|(key, tag)| (key.clone(), tag.clone())).collect(),
            time: self.clock.unix_ms(),
            ..Publication::default()
        };
        let channel = name.into();
        let publish = |id| PublicationsRequest::Publish { id, channel, publication, options };
        Ok(response::published(&self.members.service.ask(publish).await?))
    }

    fn subscribe(&self, call: &Call, params: &[u8]) -> Outcome {
        let request: request::Subscribe = read(params)?;
        view(call, &self.node.rules(), &request.channel)?;
        let expire_at = Some(request.expire_at).filter(|at| *at > 0);
        if expire_at.is_some_and(|at| at <= self.clock.unix_ms() / 1000) {
            return Err(ErrorCode::Expired.into());
        }
        let grant = SubscriptionGrant {
            info: payload(&request.info, &request.b64info)?,
            data: payload(&request.data, &request.b64data)?,
            overrides: request.overrides.unwrap_or_default().into(),
        };
        let order = Order::Subscribe {
            channel: request.channel,
            expire_at,
            grant,
            recover_since: request.recover_since.map(StreamPosition::from),
        };
        self.order(params, order)
    }

    fn unsubscribe(&self, call: &Call, params: &[u8]) -> Outcome {
        let OneChannel { channel } = read(params)?;
        // An empty name stands for all channels.
        match channel.is_empty() {
            true => call.check_channel("")?,
            false => drop(view(call, &self.node.rules(), &channel)?),
        }
        self.order(params, Order::Unsubscribe { channel })
    }

    fn disconnect(&self, params: &[u8]) -> Outcome {
        let request: request::DisconnectCall = read(params)?;
        let disconnect = match request.disconnect {
            None => DisconnectCode::ForceDisconnect.into(),
            Some(goodbye) => goodbye.disconnect()?,
        };
        self.order(params, Order::Disconnect(disconnect))
    }

    fn refresh(&self, params: &[u8]) -> Outcome {
        let request: request::Refresh = read(params)?;
        let expire_at = Some(request.expire_at).filter(|at| *at > 0);
        let info = payload(&request.info, "")?;
        self.order(params, Order::Refresh { info, expire_at, expired: request.expired })
    }

    /// Sends an order to the workers of all nodes, without waiting for its effect.
    fn order(&self, params: &[u8], order: Order) -> Outcome {
        let whom: SessionFilter = read(params)?;
        if let Some(target) = whom.target()? {
            let control = Arc::new(Control { target, order });
            self.members.service.send(NodeBusRequest::Control(control));
        }
        Ok("{}".to_owned())
    }

    async fn presence(&self, call: &Call, params: &[u8]) -> Outcome {
        let channel = self.channel_with_presence(call, params)?;
        let _turn = self.turn_to_read().await;
        call.check_room(1)?;
        let clients =
            self.members.service.ask(|id| PresenceRequest::Clients { id, channel }).await?;
        json(&response::PresenceResponse::of(&clients))
    }

    async fn presence_stats(&self, call: &Call, params: &[u8]) -> Outcome {
        let channel = self.channel_with_presence(call, params)?;
        let ask = |id| PresenceRequest::Stats { id, channel };
        let PresenceStats { num_clients, num_users } = self.members.service.ask(ask).await?;
        json(&response::PresenceStatsResponse { num_clients, num_users })
    }

    fn channel_with_presence(&self, call: &Call, params: &[u8]) -> Result<Arc<str>, MethodFailure> {
        let OneChannel { channel } = read(params)?;
        if !view(call, &self.node.rules(), &channel)?.namespace.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        Ok(channel.into())
    }

    async fn history(&self, call: &Call, params: &[u8]) -> Outcome {
        let request: request::History = read(params)?;
        let rules = self.node.rules();
        let view = view(call, &rules, &request.channel)?;
        if !view.namespace.has_history() {
            return Err(ErrorCode::NotAvailable.into());
        }
        let since = request.since.map(StreamPosition::from);
        if request.reverse && since.as_ref().is_some_and(|since| since.offset == 0) {
            return Err(ApiError::bad("there is nothing before offset 0").into());
        }
        let query = HistoryQuery {
            // A negative limit requests all publications.
            limit: u64::try_from(request.limit)
                .ok()
                .map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
            since,
            reverse: request.reverse,
            // More than a response may hold: `check_room` then refuses a history that the broker
            // has cut, and no incomplete history is returned.
            bytes_max: Some(2 * API_ANSWER_MAX),
        };
        let meta_ttl_ms = view.namespace.history_meta_ttl_ms;
        let channel = request.channel.into();
        let ask = |id| PublicationsRequest::History { id, channel, query, meta_ttl_ms };
        let _turn = self.turn_to_read().await;
        call.check_room(1)?;
        let history = self.members.service.ask(ask).await?;
        let bytes = |publication: &Arc<Publication>| publication.data.len();
        call.check_room(history.publications.iter().map(bytes).sum())?;
        json(&response::HistoryResponse::of(&history))
    }

    /// Waits for one of the permits that limit concurrent reads.
    async fn turn_to_read(&self) -> SemaphorePermit<'_> {
        self.reads.acquire().await.expect("the semaphore is never closed")
    }

    async fn history_remove(&self, call: &Call, params: &[u8]) -> Outcome {
        let OneChannel { channel } = read(params)?;
        let rules = self.node.rules();
        let namespace = view(call, &rules, &channel)?.namespace;
        // Nodes that start later read the dynamic configuration from this history.
        if !namespace.has_history() || namespace.is_system {
            return Err(ErrorCode::NotAvailable.into());
        }
        let channel = channel.into();
        self.members.service.ask(|id| PublicationsRequest::RemoveHistory { id, channel }).await?;
        Ok("{}".to_owned())
    }

    /// Checks a publication to one of the server's own channels. Only `sys:config` accepts them.
    fn check_system(&self, name: &str, data: &[u8], request: &Publish) -> Result<(), ApiError> {
        if name != CONFIG {
            return Err(ApiError::bad(
                "only sys:config of the server's own channels takes publications",
            ));
        }
        if request.skip_history {
            return Err(ApiError::bad(
                "nodes that start later must know what was changed: no skip_history",
            ));
        }
        self.members.dynamic_config.check(data).map_err(ApiError::bad)
    }

    async fn channels(&self, call: &Call, params: &[u8]) -> Outcome {
        let request::Channels { pattern } = read(params)?;
        ChannelPattern::new(&pattern).map_err(|error| ApiError::bad(error.to_string()))?;
        let Answers { answers, missing } = self
            .members
            .ask::<ActiveChannels>(&Question::Channels { pattern })
            .await
            .map_err(internal)?;
        let mut channels: BTreeMap<String, response::ChannelCount> = BTreeMap::new();
        let is_cut = answers.iter().any(|active| active.is_cut);
        let named = answers.into_iter().flat_map(|active| active.channels);
        for (name, clients) in named.filter(|(name, _)| call.key.allows_channel(name)) {
            channels.entry(name).or_default().num_clients += clients;
        }
        json(&response::ChannelsResponse {
            channels,
            gaps: AnswerGaps { missing_nodes: missing, truncated: is_cut },
        })
    }

    async fn channel(&self, call: &Call, params: &[u8]) -> Outcome {
        let OneChannel { channel } = read(params)?;
        let rules = self.node.rules();
        let namespace = view(call, &rules, &channel)?.namespace;
        let tier = match namespace {
            namespace if namespace.is_system => "system",
            namespace if namespace.channel_ttl_ms > 0 => "temporary",
            _ => "business",
        };
        let name = channel.as_str().into();
        let ttl = match namespace.channel_ttl_ms {
            0 => None,
            _ => {
                let ask = |id| PublicationsRequest::ChannelTtl { id, channel: name };
                self.members.service.ask(ask).await?
            }
        };
        let question = Question::Channel { channel: channel.clone() };
        let Answers { answers, missing } =
            self.members.ask::<usize>(&question).await.map_err(internal)?;
        json(&response::ChannelResponse {
            channel: &channel,
            tier,
            created: ttl
                .map(|ttl| self.clock.unix_ms() - i64::try_from(ttl.age_ms).unwrap_or(i64::MAX)),
            ttl: ttl.map(|ttl| ttl.left_ms.div_ceil(1000)),
            num_clients: answers.iter().sum(),
            num_nodes: answers.iter().filter(|clients| **clients > 0).count(),
            gaps: AnswerGaps { missing_nodes: missing, truncated: false },
        })
    }

    async fn clients(&self, call: &Call, params: &[u8]) -> Outcome {
        let request::Clients { user, client } = read(params)?;
        if user.is_none() && client.is_none() {
            return Err(ApiError::bad("user or client is needed").into());
        }
        let Answers { answers, missing } = self
            .members
            .ask::<ClientList>(&Question::Clients { user, client })
            .await
            .map_err(internal)?;
        let is_cut = answers.iter().any(|present| present.is_cut);
        let mut clients: Vec<_> = answers.into_iter().flat_map(|present| present.clients).collect();
        clients.iter_mut().for_each(|client| {
            client.channels.retain(|channel| call.key.allows_channel(channel));
        });
        json(&response::ClientsResponse {
            clients,
            gaps: AnswerGaps { missing_nodes: missing, truncated: is_cut },
        })
    }

    async fn info(&self, params: &[u8]) -> Outcome {
        let request::Nothing {} = read(params)?;
        let Answers { answers, missing } =
            self.members.ask::<NodeInfo>(&Question::Info).await.map_err(internal)?;
        json(&response::Info {
            nodes: answers,
            gaps: AnswerGaps { missing_nodes: missing, truncated: false },
        })
    }
}

fn internal(_: WorkerTimeout) -> ErrorCode {
    ErrorCode::Internal
}

/// Reason for which a channel does not accept the data.
fn unfit(format: DataFormat, data: &[u8]) -> &'static str {
    match format {
        _ if data.is_empty() => "data is missing: give data, or b64data for bytes",
        DataFormat::JsonObject => {
            "data is no JSON object, and the channel takes nothing else (publication_data_format)"
        }
        _ => "data is not JSON, and the channel takes nothing else (publication_data_format)",
    }
}

/// Options of a channel, if the rules allow its name and the caller's key permits it.
fn view<'r, 'n>(
    call: &Call,
    rules: &'r Rules,
    name: &'n str,
) -> Result<ChannelView<'r, 'n>, ApiError> {
    call.check_channel(name)?;
    channel::server_view(&rules.channels, name).map_err(|code| match code {
        ErrorCode::BadRequest if name.is_empty() => ApiError::bad("channel is empty"),
        ErrorCode::BadRequest => ApiError::bad("no channel may have this name"),
        code => code.into(),
    })
}
