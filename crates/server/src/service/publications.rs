//! Publish and broadcast.
//!
//! Invariant: a publication that is reported as published has been accepted by the broker.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::broker::{PublicationsRequest, PublishOptions};
use engine::channel::{self, CONFIG};
use engine::rules::DataFormat;
use futures_util::future::join_all;
use wire::protocol::{Publication, StreamPosition};

use super::ServiceContext;
use super::caller::ApiCaller;
use super::error::ApiError;
use crate::limits::{API_CONCURRENCY, API_ITEMS_MAX};

/// The methods publish and broadcast.
pub(crate) struct PublicationService {
    context: ServiceContext,
}

/// How to publish.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublicationOptions {
    pub(crate) tags: BTreeMap<String, String>,
    /// The publication is delivered, and not retained.
    pub(crate) skip_history: bool,
    /// See [`PublishOptions`].
    pub(crate) idempotency_key: String,
    /// See [`PublishOptions`].
    pub(crate) version: u64,
    /// See [`PublishOptions`].
    pub(crate) version_epoch: String,
}

impl PublicationService {
    pub(super) fn new(context: ServiceContext) -> PublicationService {
        PublicationService { context }
    }

    /// Publishes to one channel. Returns the position of the publication; zero without history.
    pub(crate) async fn publish(
        &self,
        caller: &ApiCaller,
        channel: &str,
        data: Bytes,
        options: &PublicationOptions,
    ) -> Result<StreamPosition, ApiError> {
        // A broker in this process answers at once, so that a broadcast would have no pause.
        tokio::task::consume_budget().await;
        let rules = self.context.node.rules();
        let view = caller.view(&rules, channel)?;
        if view.namespace.is_system {
            self.check_system(channel, &data, options)?;
        }
        let format = view.namespace.publication_data_format;
        channel::check_data(format, &data).map_err(|_| ApiError::bad(unfit(format, &data)))?;
        let retention = match options.skip_history {
            true => PublishOptions::default(),
            false => view.namespace.publish_options(),
        };
        let publish_options = PublishOptions {
            idempotency_key: options.idempotency_key.clone(),
            version: options.version,
            version_epoch: options.version_epoch.clone(),
            ..retention
        };
        let publication = Publication {
            data,
            tags: options.tags.iter().map(|(key, tag)| (key.clone(), tag.clone())).collect(),
            time: self.context.clock.unix_ms(),
            ..Publication::default()
        };
        let channel = channel.into();
        let publish = |id| PublicationsRequest::Publish {
            id,
            channel,
            publication,
            options: publish_options,
        };
        Ok(self.context.members.service.ask(publish).await?)
    }

    /// Publishes to several channels. The results are in the order of the channels.
    pub(crate) async fn broadcast(
        &self,
        caller: &ApiCaller,
        channels: &[String],
        data: Bytes,
        options: &PublicationOptions,
    ) -> Result<Vec<Result<StreamPosition, ApiError>>, ApiError> {
        if channels.is_empty() {
            return Err(ApiError::bad("channels is empty"));
        }
        if channels.len() > API_ITEMS_MAX {
            return Err(ApiError::bad("channels has too many items"));
        }
        let mut results = Vec::with_capacity(channels.len());
        for group in channels.chunks(API_CONCURRENCY) {
            let publishing =
                group.iter().map(|channel| self.publish(caller, channel, data.clone(), options));
            results.extend(join_all(publishing).await);
        }
        Ok(results)
    }

    /// Checks a publication to one of the server's own channels. Only `sys:config` accepts them.
    fn check_system(
        &self,
        channel: &str,
        data: &[u8],
        options: &PublicationOptions,
    ) -> Result<(), ApiError> {
        if channel != CONFIG {
            return Err(ApiError::bad("cannot publish to sys:* channels except sys:config"));
        }
        if options.skip_history {
            return Err(ApiError::bad(
                "skip_history is not allowed in sys:config: nodes that start later read its history",
            ));
        }
        self.context.members.dynamic_config.check(data).map_err(ApiError::bad)
    }
}

/// Reason for which a channel does not accept the data.
fn unfit(format: DataFormat, data: &[u8]) -> &'static str {
    match format {
        _ if data.is_empty() => "data is missing: give data, or b64data for bytes",
        DataFormat::JsonObject => "data must be a JSON object (publication_data_format)",
        _ => "data must be JSON (publication_data_format)",
    }
}
