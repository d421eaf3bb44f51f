//! Reads about channels: presence, history, active channels; and the removal of a history.
//!
//! Invariant: at most [`API_READS_MAX`] callers hold a read permit, so that the memory of long
//! replies is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::broker::{
    ChannelTtl, HistoryQuery, HistoryRemoved, PresenceRequest, PublicationsRequest,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use wire::protocol::{ClientInfo, ErrorCode, HistoryResult, PresenceStats, StreamPosition};

use super::ServiceContext;
use super::caller::ApiCaller;
use super::error::ApiError;
use crate::cluster::members::Answers;
use crate::cluster::questions::{ActiveChannels, Question};
use crate::limits::{API_READS_MAX, API_RESPONSE_MAX};
use crate::pattern::ChannelPattern;

/// Methods that read about channels or remove a history.
pub(crate) struct ChannelService {
    context: ServiceContext,
    reads: Semaphore,
}

/// Channels with subscribers on any node.
pub(crate) struct ActiveChannelList {
    /// Number of subscribed clients by channel.
    pub(crate) clients: BTreeMap<String, usize>,
    /// Number of nodes that did not answer.
    pub(crate) missing_nodes: usize,
    /// Whether a node has more channels than its answer could hold.
    pub(crate) is_cut: bool,
}

/// What is known of one channel.
pub(crate) struct ChannelDetails {
    /// `system`, `temporary` or `business`.
    pub(crate) tier: &'static str,
    /// Age and remaining TTL of a temporary channel that exists.
    pub(crate) ttl: Option<ChannelTtl>,
    /// Unix time in milliseconds at which a temporary channel was created.
    pub(crate) created_ms: Option<i64>,
    pub(crate) num_clients: usize,
    /// Number of nodes with a subscribed client.
    pub(crate) num_nodes: usize,
    /// Number of nodes that did not answer.
    pub(crate) missing_nodes: usize,
}

/// Direction in which publications are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistoryOrder {
    OldestFirst,
    NewestFirst,
}

/// The query of a history. A negative limit requests all publications.
pub(crate) fn history_query(
    limit: i64,
    since: Option<StreamPosition>,
    order: HistoryOrder,
) -> HistoryQuery {
    HistoryQuery {
        limit: u64::try_from(limit).ok().map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)),
        since,
        reverse: order == HistoryOrder::NewestFirst,
        // Twice the limit of a response: a history that the broker truncated is then larger than
        // the limit and refused, so that no incomplete history is returned.
        bytes_max: Some(2 * API_RESPONSE_MAX),
    }
}

impl ChannelService {
    pub(super) fn new(context: ServiceContext) -> ChannelService {
        ChannelService { context, reads: Semaphore::new(API_READS_MAX) }
    }

    /// Waits for the permit to read a presence or a history. The caller holds it until the result
    /// is written.
    pub(crate) async fn read_permit(&self) -> SemaphorePermit<'_> {
        self.reads.acquire().await.expect("the semaphore is never closed")
    }

    /// Reads the clients present in a channel.
    pub(crate) async fn presence(
        &self,
        caller: &ApiCaller,
        channel: &str,
    ) -> Result<Vec<Arc<ClientInfo>>, ApiError> {
        let channel = self.with_presence(caller, channel)?;
        let ask = |id| PresenceRequest::Clients { id, channel };
        Ok(self.context.members.service.ask(ask).await?)
    }

    /// Counts the clients present in a channel.
    pub(crate) async fn presence_stats(
        &self,
        caller: &ApiCaller,
        channel: &str,
    ) -> Result<PresenceStats, ApiError> {
        let channel = self.with_presence(caller, channel)?;
        let ask = |id| PresenceRequest::Stats { id, channel };
        Ok(self.context.members.service.ask(ask).await?)
    }

    fn with_presence(&self, caller: &ApiCaller, channel: &str) -> Result<Arc<str>, ApiError> {
        if !caller.view(&self.context.node.rules(), channel)?.namespace.presence {
            return Err(ErrorCode::NotAvailable.into());
        }
        Ok(channel.into())
    }

    /// Reads publications of a channel.
    pub(crate) async fn history(
        &self,
        caller: &ApiCaller,
        channel: &str,
        query: HistoryQuery,
    ) -> Result<HistoryResult, ApiError> {
        let rules = self.context.node.rules();
        let view = caller.view(&rules, channel)?;
        if !view.namespace.has_history() {
            return Err(ErrorCode::NotAvailable.into());
        }
        if query.reverse && query.since.as_ref().is_some_and(|since| since.offset == 0) {
            return Err(ApiError::bad("there is nothing before offset 0"));
        }
        let meta_ttl_ms = view.namespace.history_meta_ttl_ms;
        let channel = channel.into();
        let ask = |id| PublicationsRequest::History { id, channel, query, meta_ttl_ms };
        Ok(self.context.members.service.ask(ask).await?)
    }

    /// Removes the retained publications of a channel; offset and epoch remain.
    pub(crate) async fn remove_history(
        &self,
        caller: &ApiCaller,
        channel: &str,
    ) -> Result<HistoryRemoved, ApiError> {
        let rules = self.context.node.rules();
        let namespace = caller.view(&rules, channel)?.namespace;
        // Nodes that start later read the dynamic configuration from this history.
        if !namespace.has_history() || namespace.is_system {
            return Err(ErrorCode::NotAvailable.into());
        }
        let channel = channel.into();
        let ask = |id| PublicationsRequest::RemoveHistory { id, channel };
        Ok(self.context.members.service.ask(ask).await?)
    }

    /// Lists the active channels that the caller may see and whose name matches the pattern.
    pub(crate) async fn list(
        &self,
        caller: &ApiCaller,
        pattern: String,
    ) -> Result<ActiveChannelList, ApiError> {
        ChannelPattern::new(&pattern).map_err(|error| ApiError::bad(error.to_string()))?;
        let question = Question::Channels { pattern };
        let Answers { answers, missing } =
            self.context.members.ask::<ActiveChannels>(&question).await?;
        let is_cut = answers.iter().any(|active| active.is_cut);
        let mut clients: BTreeMap<String, usize> = BTreeMap::new();
        let named = answers.into_iter().flat_map(|active| active.channels);
        for (name, count) in named.filter(|(name, _)| caller.allows_channel(name)) {
            *clients.entry(name).or_default() += count;
        }
        Ok(ActiveChannelList { clients, missing_nodes: missing, is_cut })
    }

    /// Describes one channel.
    pub(crate) async fn details(
        &self,
        caller: &ApiCaller,
        channel: &str,
    ) -> Result<ChannelDetails, ApiError> {
        let rules = self.context.node.rules();
        let namespace = caller.view(&rules, channel)?.namespace;
        let tier = match namespace {
            namespace if namespace.is_system => "system",
            namespace if namespace.channel_ttl_ms > 0 => "temporary",
            _ => "business",
        };
        let ttl = match namespace.channel_ttl_ms {
            0 => None,
            _ => {
                let named = channel.into();
                let ask = |id| PublicationsRequest::ChannelTtl { id, channel: named };
                self.context.members.service.ask(ask).await?
            }
        };
        let question = Question::Channel { channel: channel.to_owned() };
        let Answers { answers, missing } = self.context.members.ask::<usize>(&question).await?;
        let unix_ms = self.context.clock.unix_ms();
        Ok(ChannelDetails {
            tier,
            created_ms: ttl.map(|ttl| unix_ms - i64::try_from(ttl.age_ms).unwrap_or(i64::MAX)),
            ttl,
            num_clients: answers.iter().sum(),
            num_nodes: answers.iter().filter(|clients| **clients > 0).count(),
            missing_nodes: missing,
        })
    }
}
