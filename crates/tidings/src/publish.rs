//! `tidings publish`: one call of the server API for each publication.

use std::io::BufRead as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use client::Authority;
use serde_json::value::RawValue;
use server::telemetry::visible_json;
use ureq::Agent;
use ureq::http::HeaderValue;
use ureq::tls::TlsConfig;

use crate::arguments::PublishArguments;
use crate::misuse::{Misuse, misuse};
use crate::output::print_line;
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
        print_line(&api.publish(&wanted.channel, &wanted.data)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (line, number) in std::io::stdin().lock().lines().zip(1..) {
        let line =
            line.with_context(|| format!("line {number} of standard input cannot be read"))?;
        if !line.trim().is_empty() {
            let result = api.publish(&wanted.channel, &line);
            let stopped = || format!("line {number} of standard input");
            print_line(&result.with_context(stopped)?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the API of an address is: a scheme and the path may be left out.
fn api_url(given: &str) -> anyhow::Result<String> {
    let (scheme, rest) = given.split_once("://").unwrap_or(("http", given));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match scheme {
        "http" | "https" => {}
        "ws" | "wss" => misuse!(
            "--url {given}: the server API speaks HTTP; did you mean {}://{authority}/api?",
            scheme.replace("ws", "http")
        ),
        _ => misuse!("--url {given}: expected an address that begins with http:// or https://"),
    }
    Authority::parse(given, authority).map_err(|error| Misuse(error.to_string()))?;
    let path = match path.trim_end_matches('/') {
        "" => "/api",
        path => path,
    };
    Ok(format!("{scheme}://{authority}{path}"))
}

impl Api {
    fn of(wanted: &PublishArguments) -> anyhow::Result<Api> {
        let mut url = "http://127.0.0.1:8000/api".to_owned();
        let mut key = String::new();
        if wanted.configured.config.is_some() {
            let config = token::load(&wanted.configured)?;
            let path = config.api.path.ok_or_else(|| {
                Misuse("the server API is disabled (http_api.disabled)".to_owned())
            })?;
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
        let key = wanted.api_key.clone().unwrap_or(key);
        if HeaderValue::from_str(&key).is_err() {
            misuse!(
                "--api-key: the key holds a line break or another control character, which no header can carry"
            );
        }
        Ok(Api { agent, url: api_url(wanted.url.as_deref().unwrap_or(&url))?, key })
    }

    /// Publishes; gives the server's result.
    fn publish(&self, channel: &str, data: &str) -> anyhow::Result<String> {
        let data = match serde_json::from_str::<&RawValue>(data) {
            Ok(data) => data,
            Err(error) => misuse!(
                "the data is not JSON ({error}); text needs quotes of its own, such as '\"hello\"'"
            ),
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
        let status = response.status();
        match status.as_u16() {
            200..=299 => Ok(visible_json(text.trim()).into_owned()),
            401 if self.key.is_empty() => misuse!(
                "{url} needs a key: give --api-key, or -c FILE for the configuration's (http_api.key)"
            ),
            401 => misuse!("{url} refuses this key (401): it must be the server's http_api.key"),
            404 if !text.starts_with('{') => misuse!(
                "{url} is not there (404): does --url name the server API, and is it enabled?"
            ),
            400..=428 | 430..=499 => misuse!("{url} answered {status}: {}", text.trim()),
            _ => bail!("{url} answered {status}: {}", text.trim()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_what_is_usual() {
        for (given, url) in [
            ("127.0.0.1:8000", "http://127.0.0.1:8000/api"),
            ("localhost:8000/", "http://localhost:8000/api"),
            ("[::1]:8000", "http://[::1]:8000/api"),
            ("https://push.example", "https://push.example/api"),
            ("http://h:1/own/api/", "http://h:1/own/api"),
        ] {
            assert_eq!(api_url(given).unwrap(), url);
        }
        for (given, wanted) in [
            ("ws://h:1/connection/websocket", "did you mean http://h:1/api?"),
            ("wss://h", "did you mean https://h/api?"),
            ("ftp://h", "begins with http://"),
            ("http://", "missing host"),
        ] {
            let error = api_url(given).unwrap_err();
            assert!(error.is::<Misuse>() && error.to_string().contains(wanted), "{error}");
        }
    }
}
