//! The methods of the server API over HTTP: read the parameters, call the service,
//! write the result as JSON.

use std::sync::Arc;

use serde::Serialize;
use wire::protocol::{PresenceStats, Publication, StreamPosition};

use super::ApiState;
use super::commands;
use super::error::{self, MethodFailure};
use super::request::{self, OneChannel, Publish, payload, read};
use super::response::{self, Incomplete};
use crate::cluster::members::Answers;
use crate::limits::{API_ITEMS_MAX, API_PUBLISHED_MAX};
use crate::service::call::ApiCall;
use crate::service::channels::{HistoryOrder, history_query};
use crate::service::method::Method;

/// Result of a method as JSON.
pub(super) type Outcome = Result<String, MethodFailure>;

pub(super) fn json(result: &impl Serialize) -> Outcome {
    Ok(serde_json::to_string(result).expect("responses are JSON"))
}

/// The result of a method that returns nothing.
pub(super) fn done() -> String {
    "{}".to_owned()
}

impl ApiState {
    /// Runs one method; its result is a JSON object.
    pub(super) async fn dispatch(&self, call: &ApiCall, method: Method, params: &[u8]) -> Outcome {
        let params = match params.trim_ascii() {
            b"" | b"null" if method.works_without_parameters() => b"{}",
            b"" | b"null" => {
                let text = format!("{} requires a JSON object as parameters", method.name());
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
            Method::Subscribers => self.subscribers(call, params).await,
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

    async fn publish(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        let mut request: Publish = read(params)?;
        let data = payload(&request.data, &request.b64data)?;
        let options = request.take_options();
        let publications = &self.service.publications;
        let position = publications.publish(&call.caller, &request.channel, data, &options).await?;
        Ok(response::published(&position))
    }

    async fn broadcast(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        let mut request: Publish = read(params)?;
        let data = payload(&request.data, &request.b64data)?;
        let options = request.take_options();
        // Space for the results is reserved first, so that the result of no publication is dropped.
        let reserved = request.channels.len().min(API_ITEMS_MAX) * API_PUBLISHED_MAX;
        call.take_room(reserved, 0)?;
        let publications = &self.service.publications;
        let results = publications.broadcast(&call.caller, &request.channels, data, &options).await;
        let responses: Vec<String> = results
            .as_deref()
            .unwrap_or_default()
            .iter()
            .map(|result| match result {
                Ok(position) => format!("{{\"result\":{}}}", response::published(position)),
                Err(error) => error::reply(call, error, API_PUBLISHED_MAX),
            })
            .collect();
        let used: usize = responses.iter().map(|one| one.len().min(API_PUBLISHED_MAX)).sum();
        call.give_back(reserved - used);
        results?;
        Ok(format!("{{\"responses\":[{}]}}", responses.join(",")))
    }

    fn subscribe(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        commands::subscribe(&self.service, &call.caller, params).map(|()| done())
    }

    fn unsubscribe(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        commands::unsubscribe(&self.service, &call.caller, params).map(|()| done())
    }

    fn disconnect(&self, params: &[u8]) -> Outcome {
        commands::disconnect(&self.service, params).map(|()| done())
    }

    fn refresh(&self, params: &[u8]) -> Outcome {
        commands::refresh(&self.service, params).map(|()| done())
    }

    async fn presence(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        let OneChannel { channel } = read(params)?;
        let channels = &self.service.channels;
        let _permit = channels.read_permit().await;
        call.check_room(1)?;
        json(&response::PresenceResponse::of(&channels.presence(&call.caller, &channel).await?))
    }

    async fn presence_stats(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        let OneChannel { channel } = read(params)?;
        let stats = self.service.channels.presence_stats(&call.caller, &channel).await?;
        let PresenceStats { num_clients, num_users } = stats;
        json(&response::PresenceStatsResponse { num_clients, num_users })
    }

    async fn history(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        let request: request::History = read(params)?;
        let since = request.since.map(StreamPosition::from);
        let order = match request.reverse {
            true => HistoryOrder::NewestFirst,
            false => HistoryOrder::OldestFirst,
        };
        let query = history_query(request.limit, since, order);
        let channels = &self.service.channels;
        let _permit = channels.read_permit().await;
        call.check_room(1)?;
        let history = channels.history(&call.caller, &request.channel, query).await?;
        let bytes = |publication: &Arc<Publication>| publication.data.len();
        call.check_room(history.publications.iter().map(bytes).sum())?;
        json(&response::HistoryResponse::of(&history))
    }

    async fn history_remove(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        commands::history_remove(&self.service, &call.caller, params).await?;
        Ok(done())
    }

    async fn channels(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        let request::Channels { pattern } = read(params)?;
        let found = self.service.channels.list(&call.caller, pattern).await?;
        let count = |(name, num_clients)| (name, response::ChannelCount { num_clients });
        json(&response::ChannelsResponse {
            channels: found.clients.into_iter().map(count).collect(),
            incomplete: Incomplete { missing_nodes: found.missing_nodes, truncated: found.is_cut },
        })
    }

    async fn channel(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        let OneChannel { channel } = read(params)?;
        let details = self.service.channels.details(&call.caller, &channel).await?;
        json(&response::ChannelResponse {
            channel: &channel,
            tier: details.tier,
            created: details.created_ms,
            ttl: details.ttl.map(|ttl| ttl.left_ms.div_ceil(1000)),
            num_clients: details.num_clients,
            num_nodes: details.num_nodes,
            incomplete: Incomplete { missing_nodes: details.missing_nodes, truncated: false },
        })
    }

    async fn clients(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        let request::Clients { user, client } = read(params)?;
        let found = self.service.nodes.clients(&call.caller, user, client).await?;
        json(&response::ClientsResponse {
            clients: found.clients,
            incomplete: Incomplete { missing_nodes: found.missing_nodes, truncated: found.is_cut },
        })
    }

    async fn subscribers(&self, call: &ApiCall, params: &[u8]) -> Outcome {
        let request::SubscribersRequest { channel, limit, cursor } = read(params)?;
        let page = self.service.subscribers.page(&call.caller, &channel, limit, &cursor).await?;
        json(&response::SubscribersResponse {
            subscribers: page.subscribers,
            cursor: page.cursor,
            incomplete: Incomplete { missing_nodes: page.missing_nodes, truncated: false },
        })
    }

    async fn info(&self, params: &[u8]) -> Outcome {
        let request::Nothing {} = read(params)?;
        let Answers { answers, missing } = self.service.nodes.info().await?;
        json(&response::Info {
            nodes: answers,
            incomplete: Incomplete { missing_nodes: missing, truncated: false },
        })
    }
}
