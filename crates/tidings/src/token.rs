//! `tidings token`: a token that the server with this configuration accepts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use server::config::{self, Config, Source};
use server::token::{
    ConnectionTokenRequest, SubscriptionTokenRequest, TokenRequest, TokenSettings, sign_connection,
    sign_subscription,
};

use crate::arguments::TokenArguments;
use crate::serve::environment;

pub(crate) fn token(wanted: TokenArguments) -> anyhow::Result<ExitCode> {
    let expires_in_ms = config::parse_duration_ms(&wanted.expires_in).with_context(|| {
        format!("--expires-in {}: expected a time such as 10m", wanted.expires_in)
    })?;
    let expires_in = u32::try_from(expires_in_ms / 1000).context("--expires-in is too long")?;
    let settings = match (&wanted.secret, wanted.config) {
        (Some(secret), None) => {
            TokenSettings { hmac_secret_key: Some(secret.clone()), ..TokenSettings::default() }
        }
        (secret, file @ Some(_)) => {
            let config = load(file)?;
            let of_subscriptions = config.subscription_token.filter(|_| wanted.channel.is_some());
            let settings = of_subscriptions.unwrap_or(config.token);
            let hmac_secret_key = secret.clone().or(settings.hmac_secret_key);
            TokenSettings { hmac_secret_key, ..settings }
        }
        (None, None) => bail!("give a configuration with -c, or a secret with --secret"),
    };
    let secret = settings.hmac_secret_key.clone().unwrap_or_default();
    let token = TokenRequest {
        user: wanted.user,
        expires_in: Some(expires_in).filter(|seconds| *seconds > 0),
        info: wanted.info,
        issuer: settings.issuer,
        audience: settings.audience,
        user_id_claim: settings.user_id_claim,
        ..TokenRequest::default()
    };
    let signed = match wanted.channel {
        Some(channel) => {
            let request = SubscriptionTokenRequest { token, channel, data: None };
            sign_subscription(&secret, &request, now_unix())
        }
        None => {
            let request = ConnectionTokenRequest { token, channels: wanted.subscribe };
            sign_connection(&secret, &request, now_unix())
        }
    };
    println!("{}", signed.context("no token could be made")?);
    Ok(ExitCode::SUCCESS)
}

/// The configuration that a client command was given.
pub(crate) fn load(file: Option<PathBuf>) -> anyhow::Result<Config> {
    let source = Source { file, environment: environment(), ..Source::default() };
    Ok(config::load(&source)?.0)
}

pub(crate) fn now_unix() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
