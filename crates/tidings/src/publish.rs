//! `tidings publish`: one call of the server API for each publication.

use std::io::BufRead as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::value::RawValue;
use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::arguments::PublishArguments;
use crate::token;

const TIMEOUT: Duration = Duration::from_secs(10);

struct Api {
    agent: Agent,
    url: String,
    key: String,
}

pub(crate) fn publish(wanted: &PublishArguments) -> anyhow::Result<ExitCode> {
    let api = Api::of(wanted)?;
    if wanted.data != "-" {
        println!("{}", api.publish(&wanted.channel, &wanted.data)?);
        return Ok(ExitCode::SUCCESS);
    }
    for line in std::io::stdin().lock().lines() {
        let line = line.context("standard input cannot be read")?;
        if !line.trim().is_empty() {
            println!("{}", api.publish(&wanted.channel, &line)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Api {
    fn of(wanted: &PublishArguments) -> anyhow::Result<Api> {
        let mut url = "http://127.0.0.1:8000/api".to_owned();
        let mut key = String::new();
        if wanted.configured.config.is_some() {
            let config = token::load(&wanted.configured)?;
            let path = config.api.path.context("the server API is disabled (http_api.disabled)")?;
            let http = &config.http;
            let (host, port) = match http.internal_port {
                Some(port) => (&http.internal_address, port),
                None => (&http.address, http.port),
            };
            let is_tls = http.tls.is_some() && http.internal_port.is_none();
            let scheme = if is_tls { "https" } else { "http" };
            url = format!("{scheme}://{}:{port}{path}", reachable(host));
            key = config.api.key;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build()
            .new_agent();
        Ok(Api {
            agent,
            url: wanted.url.clone().unwrap_or(url).trim_end_matches('/').to_owned(),
            key: wanted.api_key.clone().unwrap_or(key),
        })
    }

    /// Publishes; gives the server's result.
    fn publish(&self, channel: &str, data: &str) -> anyhow::Result<String> {
        let Ok(data) = serde_json::from_str::<&RawValue>(data) else {
            bail!("the data is not JSON; text needs quotes of its own, such as '\"hello\"'");
        };
        let channel = serde_json::to_string(channel)?;
        let url = format!("{}/publish", self.url);
        let mut response = self
            .agent
            .post(&url)
            .header("X-API-Key", &self.key)
            .header("X-Centrifugo-Error-Mode", "transport")
            .send(format!("{{\"channel\":{channel},\"data\":{data}}}"))
            .with_context(|| format!("cannot reach {url}"))?;
        let text = response.body_mut().read_to_string().context("the answer cannot be read")?;
        if !response.status().is_success() {
            bail!("{url} answered {}: {}", response.status(), text.trim());
        }
        Ok(text)
    }
}

/// Where a client on this machine finds a server that listens on this address.
pub(crate) fn reachable(host: &str) -> String {
    match host {
        "" | "0.0.0.0" | "::" => "127.0.0.1".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    }
}
