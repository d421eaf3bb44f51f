//! The methods of the server API (§3.3): read the parameters, check them by the same rules as everybody's, ask the
//! broker, put the answer into JSON.

use std::sync::Arc;

use bytes::Bytes;
use engine::broker::{
    BrokerReply, BrokerRequest, Control, HistoryQuery, Order, PublishOptions, Target,
};
use engine::channel::{self, ChannelView};
use engine::claims::SubscriptionGrant;
use futures_util::future::join_all;
use globset::GlobBuilder;
use serde::Serialize;
use wire::limits::CLOSE_REASON_MAX;
use wire::protocol::{Disconnect, DisconnectCode, ErrorCode, Publication, StreamPosition};

use super::Api;
use super::error::{ApiError, Failure};
use super::request::{self, InChannel, Publish, Whom, payload, read};
use super::response;
use crate::limits::{API_CONCURRENCY, API_ITEMS_MAX};

/// A method, under the name that it has in paths and in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Publish,
    Broadcast,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Refresh,
    Presence,
    PresenceStats,
    History,
    HistoryRemove,
    Channels,
    Info,
    Batch,
}

pub(super) const METHODS: &[(&str, Method)] = &[
    ("publish", Method::Publish),
    ("broadcast", Method::Broadcast),
    ("subscribe", Method::Subscribe),
    ("unsubscribe", Method::Unsubscribe),
    ("disconnect", Method::Disconnect),
    ("refresh", Method::Refresh),
    ("presence", Method::Presence),
    ("presence_stats", Method::PresenceStats),
    ("history", Method::History),
    ("history_remove", Method::HistoryRemove),
    ("channels", Method::Channels),
    ("info", Method::Info),
    ("batch", Method::Batch),
];

impl Method {
    pub(super) fn named(name: &str) -> Option<Method> {
        METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    }

    pub(super) fn name(self) -> &'static str {
        let named = METHODS.iter().find(|(_, method)| *method == self);
        named.expect("every method has a name").0
    }
}

/// A result as JSON, or why there is none.
pub(super) type Outcome = Result<String, Failure>;

fn json(result: &impl Serialize) -> Outcome {
    Ok(serde_json::to_string(result).expect("responses are JSON"))
}

impl Api {
    /// Runs one method; its result is a JSON object.
    pub(super) async fn dispatch(&self, method: Method, params: &[u8]) -> Outcome {
        // No parameters at all are an object without fields.
        let params = if matches!(params.trim_ascii(), b"" | b"null") { b"{}" } else { params };
        match method {
            Method::Publish => self.publish(params).await,
            Method::Broadcast => self.broadcast(params).await,
            Method::Subscribe => self.subscribe(params),
            Method::Unsubscribe => self.unsubscribe(params),
            Method::Disconnect => self.disconnect(params),
            Method::Refresh => self.refresh(params),
            Method::Presence => self.presence(params).await,
            Method::PresenceStats => self.presence_stats(params).await,
            Method::History => self.history(params).await,
            Method::HistoryRemove => self.history_remove(params).await,
            Method::Channels => self.channels(params).await,
            Method::Info => self.info().await,
            Method::Batch => self.batch(params).await,
        }
    }

    async fn publish(&self, params: &[u8]) -> Outcome {
        let request: Publish = read(params)?;
        let data = payload(&request.data, &request.b64data)?;
        Ok(self.publish_to(&request.channel, data, &request).await?)
    }

    async fn broadcast(&self, params: &[u8]) -> Outcome {
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
            let publishing = group.iter().map(|name| self.publish_to(name, data.clone(), &request));
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
        name: &str,
        data: Bytes,
        request: &Publish,
    ) -> Result<String, ApiError> {
        let view = self.view(name)?;
        channel::check_data(view.namespace.publication_data_format, &data)?;
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
            time: self.clock.now().unix_ms,
            ..Publication::default()
        };
        let channel = name.into();
        let publish = |id| BrokerRequest::Publish { id, channel, publication, options };
        match self.asker.ask(publish).await? {
            BrokerReply::Published(position) => Ok(response::published(&position)),
            _ => Err(ErrorCode::Internal.into()),
        }
    }

    fn subscribe(&self, params: &[u8]) -> Outcome {
        let request: request::Subscribe = read(params)?;
        self.view(&request.channel)?;
        let grant = SubscriptionGrant {
            info: payload(&request.info, &request.b64info)?,
            data: payload(&request.data, &request.b64data)?,
            overrides: request.overrides.into(),
        };
        let order = Order::Subscribe {
            channel: request.channel,
            expire_at: Some(request.expire_at).filter(|at| *at > 0),
            grant,
            recover_since: request.recover_since.map(StreamPosition::from),
        };
        self.order(params, order)
    }

    fn unsubscribe(&self, params: &[u8]) -> Outcome {
        let InChannel { channel } = read(params)?;
        self.order(params, Order::Unsubscribe { channel })
    }

    fn disconnect(&self, params: &[u8]) -> Outcome {
        let request: request::Disconnect = read(params)?;
        let disconnect = match request.disconnect {
            None => DisconnectCode::ForceDisconnect.into(),
            Some(goodbye) if !(3000..5000).contains(&goodbye.code) => {
                return Err(ApiError::bad("a disconnect code is 3000 to 4999").into());
            }
            Some(goodbye) if goodbye.reason.len() > CLOSE_REASON_MAX => {
                return Err(ApiError::bad("a disconnect reason has 123 bytes at most").into());
            }
            Some(goodbye) => {
                Disconnect::Custom { code: goodbye.code, reason: goodbye.reason.into() }
            }
        };
        self.order(params, Order::Disconnect(disconnect))
    }

    fn refresh(&self, params: &[u8]) -> Outcome {
        let request: request::Refresh = read(params)?;
        let expire_at = Some(request.expire_at).filter(|at| *at > 0);
        let info = payload(&request.info, "")?;
        self.order(params, Order::Refresh { info, expire_at, expired: request.expired })
    }

    /// Tells every worker of every node; nobody waits for them.
    fn order(&self, params: &[u8], order: Order) -> Outcome {
        let whom: Whom = read(params)?;
        if !whom.session.is_empty() {
            return Err(ApiError {
                code: ErrorCode::NotAvailable.number(),
                message: "sessions of unidirectional transports do not exist here".into(),
            }
            .into());
        }
        let Whom { user, client, whitelist, .. } = whom;
        let target = Target { user, client, except: whitelist, admitted_before: None };
        self.asker.tell(BrokerRequest::Control(Arc::new(Control { target, order })));
        Ok("{}".to_owned())
    }

    async fn presence(&self, params: &[u8]) -> Outcome {
        let channel = self.channel_with_presence(params)?;
        match self.asker.ask(|id| BrokerRequest::Presence { id, channel }).await? {
            BrokerReply::Presence(clients) => json(&response::Presence::of(&clients)),
            _ => Err(ErrorCode::Internal.into()),
        }
    }

    async fn presence_stats(&self, params: &[u8]) -> Outcome {
        let channel = self.channel_with_presence(params)?;
        match self.asker.ask(|id| BrokerRequest::PresenceStats { id, channel }).await? {
            BrokerReply::PresenceStats(stats) => json(&response::PresenceStats {
                num_clients: stats.num_clients,
                num_users: stats.num_users,
            }),
            _ => Err(ErrorCode::Internal.into()),
        }
    }

    fn channel_with_presence(&self, params: &[u8]) -> Result<Arc<str>, Failure> {
        let InChannel { channel } = read(params)?;
        if !self.view(&channel)?.namespace.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        Ok(channel.into())
    }

    async fn history(&self, params: &[u8]) -> Outcome {
        let request: request::History = read(params)?;
        let view = self.view(&request.channel)?;
        if !view.namespace.has_history() {
            return Err(ErrorCode::NotAvailable.into());
        }
        let since = request.since.map(StreamPosition::from);
        if request.reverse && since.as_ref().is_some_and(|since| since.offset == 0) {
            return Err(ApiError::bad("there is nothing before offset 0").into());
        }
        let query = HistoryQuery {
            // A negative limit asks for all.
            limit: u64::try_from(request.limit)
                .ok()
                .map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
            since,
            reverse: request.reverse,
        };
        let meta_ttl_ms = view.namespace.history_meta_ttl_ms;
        let channel = request.channel.into();
        let ask = |id| BrokerRequest::History { id, channel, query, meta_ttl_ms };
        match self.asker.ask(ask).await? {
            BrokerReply::History(history) => json(&response::History::of(&history)),
            _ => Err(ErrorCode::Internal.into()),
        }
    }

    async fn history_remove(&self, params: &[u8]) -> Outcome {
        let InChannel { channel } = read(params)?;
        if !self.view(&channel)?.namespace.has_history() {
            return Err(ErrorCode::NotAvailable.into());
        }
        let channel = channel.into();
        self.asker.ask(|id| BrokerRequest::RemoveHistory { id, channel }).await?;
        Ok("{}".to_owned())
    }

    async fn channels(&self, params: &[u8]) -> Outcome {
        let request: request::Channels = read(params)?;
        let pattern = if request.pattern.is_empty() { "*" } else { &request.pattern };
        let glob = GlobBuilder::new(pattern)
            .build()
            .map_err(|_| ApiError::bad("pattern is not a glob"))?
            .compile_matcher();
        let census = self.node.census().await.map_err(|_| ErrorCode::Internal)?;
        let channels = census
            .iter()
            .filter(|(name, _)| glob.is_match(&***name))
            .map(|(name, clients)| (&**name, response::Heard { num_clients: *clients }))
            .collect();
        json(&response::Channels { channels })
    }

    async fn info(&self) -> Outcome {
        let totals = self.node.totals().await.map_err(|_| ErrorCode::Internal)?;
        let node = response::NodeInfo {
            uid: &self.node.uid,
            name: &self.node.name,
            version: &self.rules.version,
            num_clients: totals.connections,
            num_users: totals.users(),
            num_subs: totals.subscriptions,
            num_channels: totals.channels(),
            uptime: self.node.uptime_seconds(),
        };
        json(&response::Info { nodes: vec![node] })
    }

    /// A channel that exists by the rules.
    fn view<'n>(&self, name: &'n str) -> Result<ChannelView<'_, 'n>, ApiError> {
        channel::view(&self.rules.channels, name).map_err(|code| match code {
            ErrorCode::BadRequest if name.is_empty() => ApiError::bad("channel is empty"),
            ErrorCode::BadRequest => ApiError::bad("no channel may have this name"),
            code => code.into(),
        })
    }
}
