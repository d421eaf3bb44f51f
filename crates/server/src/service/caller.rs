//! The caller of the server API and its permissions.
//!
//! Invariant: a caller reaches only methods and channels that its key permits.

use std::sync::Arc;

use engine::channel::{self, ChannelView};
use engine::rules::Rules;
use wire::protocol::ErrorCode;

use super::error::ApiError;
use crate::config::ApiKey;
use crate::telemetry::shown;

/// The caller of the server API, identified by its key.
pub(crate) struct ApiCaller {
    pub(crate) key: Arc<ApiKey>,
}

impl ApiCaller {
    /// A part of this server, which may call everything.
    pub(crate) fn internal(name: &str) -> ApiCaller {
        ApiCaller { key: Arc::new(ApiKey::unlimited(name, "")) }
    }

    /// Checks that the caller may call the method of this name.
    pub(crate) fn check_method(&self, method: &str) -> Result<(), ApiError> {
        if self.key.allows_method(method) {
            return Ok(());
        }
        let name = &self.key.name;
        Err(ApiError::denied(format!("the API key {name} is not for the method {method}")))
    }

    /// Returns whether the caller's key permits a channel.
    pub(crate) fn allows_channel(&self, channel: &str) -> bool {
        self.key.allows_channel(channel)
    }

    /// Checks that the caller's key permits a channel.
    pub(crate) fn check_channel(&self, channel: &str) -> Result<(), ApiError> {
        if self.allows_channel(channel) {
            return Ok(());
        }
        let (name, channel) = (&self.key.name, shown(channel));
        Err(ApiError::denied(format!("the API key {name} is not for the channel {channel:?}")))
    }

    /// Options of a channel, if the rules allow its name and the caller's key permits it.
    pub(crate) fn view<'r, 'n>(
        &self,
        rules: &'r Rules,
        name: &'n str,
    ) -> Result<ChannelView<'r, 'n>, ApiError> {
        self.check_channel(name)?;
        channel::server_view(&rules.channels, name).map_err(|code| match code {
            ErrorCode::BadRequest if name.is_empty() => ApiError::bad("channel is empty"),
            ErrorCode::BadRequest => ApiError::bad("no channel may have this name"),
            code => code.into(),
        })
    }
}
