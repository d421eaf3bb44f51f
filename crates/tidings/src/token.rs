//! `tidings token`: a token that the server with this configuration accepts.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use server::config::{self, Config, Source, WarningKind};
use server::token::{
    ConnectionTokenRequest, SubscriptionTokenRequest, TokenRequest, TokenSettings, sign_connection,
    sign_subscription,
};

use crate::arguments::{Configured, TokenArguments};
use crate::misuse::{duration_ms, misuse};
use crate::output::{print_error, print_line};
use crate::serve::{environment, print_warnings};

pub(crate) fn token(wanted: TokenArguments) -> anyhow::Result<ExitCode> {
    let expires_in = match duration_ms("--expires-in", &wanted.expires_in)? {
        ms @ 1..1000 => {
            misuse!("--expires-in {ms}ms: a token counts whole seconds; the least is 1s")
        }
        ms => ms / 1000,
    };
    let Ok(expires_in) = u32::try_from(expires_in) else {
        misuse!("--expires-in {}: the most is 1193046h", wanted.expires_in);
    };
    if let Some(info) = &wanted.info
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(info)
    {
        misuse!("--info is not JSON ({error}); a text needs quotes of its own, such as '\"Ann\"'");
    }
    let settings = match (&wanted.secret, &wanted.configured.config) {
        (Some(_), None) => TokenSettings::default(),
        _ => settings(&wanted)?,
    };
    if settings.jwks_public_endpoint.is_some() && !settings.insecure_skip_signature_verify {
        misuse!(
            "jwks_public_endpoint is set: the server would refuse every token but those of its keys"
        );
    }
    let Some(secret) = wanted.secret.or(settings.hmac_secret_key) else {
        misuse!(
            "there is no hmac_secret_key; give a configuration with -c, or a secret with --secret"
        );
    };
    let user = wanted.user.unwrap_or_default();
    if user.is_empty() {
        print_error("the token is for an anonymous user; give --user for one with an id");
    }
    let token = TokenRequest {
        user,
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
    match signed {
        Ok(token) => print_line(&token)?,
        Err(error) => misuse!("no token could be made: {error}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// What holds for the token that is wanted: subscription tokens may have settings of their own.
fn settings(wanted: &TokenArguments) -> anyhow::Result<TokenSettings> {
    let config = load(&wanted.configured)?;
    let of_subscriptions = config.subscription_token.filter(|_| wanted.channel.is_some());
    Ok(of_subscriptions.unwrap_or(config.token))
}

/// The configuration that a client command was given; its mistakes have an exit status of their
/// own.
pub(crate) fn load(configured: &Configured) -> anyhow::Result<Config> {
    let source = Source {
        file: configured.config.clone(),
        environment: environment(),
        unknown: configured.unknown(),
        ..Source::default()
    };
    let (config, warnings) =
        config::load(&source).inspect_err(|mistakes| print_warnings(&mistakes.warnings))?;
    // `serve` and `check` warn about the effect on the server.
    for warning in warnings.iter().filter(|warning| warning.kind == WarningKind::UnknownKey) {
        print_error(&warning.to_string());
    }
    Ok(config)
}

pub(crate) fn now_unix() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
