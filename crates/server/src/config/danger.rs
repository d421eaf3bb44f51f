//! Warnings about options that are valid but dangerous. `tidings check`, `serve` and `doctor`
//! report them.
//!
//! Invariant: an invalid configuration is a mistake and is detected elsewhere. No secret is part of
//! a message.

use ::events::SinkTarget;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::address::is_everywhere;
use super::certificate::validity;
use super::contradictions::useless_options;
use super::kind::{Kind, Secret};
use super::mistakes::{KeyedWarning, WarningKind};
use super::options::Options;
use super::options::client::{ClientSection, TokenSection};
use super::options::events::EventSinkSection;
use super::options::http::ApiSection;
use super::origin::{Origin, Reach};
use super::pem::read_pem;
use super::schema::Setting;
use super::secret::{SecretUse, weakness};
use super::{Config, TokenSettings};

/// Returns all warnings of this module; none in development mode.
pub(super) fn dangers(options: &Options, config: &Config, now_unix: i64) -> Vec<KeyedWarning> {
    if config.is_development {
        return Vec::new();
    }
    let mut warnings = WarningList(Vec::new());
    switches(&mut warnings, options, config);
    listening(&mut warnings, options, config);
    origins(&mut warnings, &options.client, config);
    tokens(&mut warnings, &options.client, config);
    secrets(&mut warnings, options);
    api_keys(&mut warnings, &options.http_api);
    webhooks(&mut warnings, &options.events, config);
    no_access(&mut warnings, options, config);
    bounds(&mut warnings, options, config);
    warnings.0.extend(useless_options(&options.channel, &config.rules));
    certificates(&mut warnings, options, now_unix);
    warnings.0
}

struct WarningList(Vec<KeyedWarning>);

impl WarningList {
    fn add<T>(&mut self, kind: WarningKind, setting: &Setting<T>, text: impl Into<String>) {
        let (key, text) = setting.fault(text);
        self.0.push((kind, key, text));
    }
}

/// Options that disable a check.
fn switches(warnings: &mut WarningList, options: &Options, config: &Config) {
    let client = &options.client;
    if *client.insecure {
        let text = "allows every client every operation without a token; for development only";
        warnings.add(WarningKind::Insecure, &client.insecure, text);
    }
    let skip = &client.insecure_skip_token_signature_verify;
    if **skip {
        let text = "accepts tokens with any signature, so that every client can be any user; for development only";
        warnings.add(WarningKind::Insecure, skip, text);
    }
    if *options.http_api.insecure && config.api.path.is_some() {
        let text = "allows calls of the server API without a key: publishing, reading and disconnecting; for development only";
        warnings.add(WarningKind::Insecure, &options.http_api.insecure, text);
    }
    let grpc = &options.grpc_api;
    if config.grpc_api.as_ref().is_some_and(|grpc| grpc.insecure) {
        let text = "allows calls of the server API over gRPC without a key: publishing, reading and disconnecting; for development only";
        warnings.add(WarningKind::Insecure, &grpc.insecure, text);
    }
    let is_loopback = is_loopback(&config.http.address);
    if config.admission.user_id_http_header.is_some() && !is_loopback {
        let text = "lets everyone who can reach the port without the proxy be any user: allow connections from the \
                    proxy only, and configure it to remove the header from requests of clients";
        warnings.add(WarningKind::Insecure, &client.user_id_http_header, text);
    }
    let mut proxies = client.trusted_proxies.iter();
    if let Some(network) = proxies.find(|network| network.trim().ends_with("/0")) {
        let text = format!(
            "{network} trusts every client to state its own address, so that limits per address have no effect: list the \
             addresses of the proxies"
        );
        warnings.add(WarningKind::Insecure, &client.trusted_proxies, text);
    }
    if config.demo && !is_loopback {
        let text = "serves the demo page, and allows every client every operation in channels that begin with demo:";
        warnings.add(WarningKind::Exposed, &options.demo.enabled, text);
    }
}

/// Internal endpoints that are reachable through the public port.
fn listening(warnings: &mut WarningList, options: &Options, config: &Config) {
    let inside: Vec<&str> =
        [config.api.path.as_deref(), config.metrics.as_deref()].into_iter().flatten().collect();
    let is_everywhere = is_everywhere(&config.http.address);
    if is_everywhere && config.http.internal_port.is_none() && !inside.is_empty() {
        let text = format!(
            "is not set and the server listens on all addresses, so that {} can be reached through the public port: \
             set it, or block these paths in a proxy",
            inside.join(" and ")
        );
        warnings.add(WarningKind::Exposed, &options.http_server.internal_port, text);
    }
    let address = &config.http.internal_address;
    let is_place = !address.is_empty() && *address != config.http.address;
    if config.http.internal_port.is_none() && is_place && !address.starts_with("unix:") {
        let text = "has no effect without http_server.internal_port if the server listens on all addresses, or on a port that the \
                    system chooses";
        warnings.add(WarningKind::NoEffect, &options.http_server.internal_address, text);
    }
}

/// Origins that admit pages of unknown sites.
fn origins(warnings: &mut WarningList, client: &ClientSection, config: &Config) {
    let origins = &client.allowed_origins;
    for written in origins.iter() {
        let Ok(origin) = Origin::read(written) else { continue };
        if let Some(adapted) = origin.adapted {
            warnings.add(
                WarningKind::Adapted,
                origins,
                format!("{written:?}: an origin {adapted}"),
            );
        }
        let admitted = match origin.reach() {
            Reach::Named => continue,
            Reach::Everywhere => "every web page",
            Reach::Opaque => "every sandboxed frame and local file",
            Reach::Lookalikes => "pages of other sites whose names begin or end in the same way",
        };
        if config.admission.user_id_http_header.is_some() {
            let text = format!(
                "{written:?} admits {admitted}, which can then act as the user whom the proxy authenticates by a cookie \
                 (client.user_id_http_header): list the sites"
            );
            warnings.add(WarningKind::Insecure, origins, text);
        } else {
            let text = format!(
                "{written:?} admits {admitted}: safe only if users are authenticated by tokens, and not by cookies or by \
                 network; better list the sites"
            );
            warnings.add(WarningKind::Exposed, origins, text);
        }
    }
}

/// Checks of tokens that accept more than intended.
fn tokens(warnings: &mut WarningList, client: &ClientSection, config: &Config) {
    let subscriptions = &client.subscription_token;
    token(warnings, &client.token, &config.token);
    if let Some(settings) = &config.subscription_token {
        return token(warnings, &subscriptions.token, settings);
    }
    let TokenSection { hmac_secret_key, rsa_public_key, ecdsa_public_key, .. } =
        &subscriptions.token;
    let text = "is not used without client.subscription_token.enabled = true";
    if subscriptions.enabled.is_written {
        return;
    }
    if !hmac_secret_key.is_empty() {
        warnings.add(WarningKind::Contradiction, hmac_secret_key, text);
    } else {
        let keys = [rsa_public_key, ecdsa_public_key, &subscriptions.token.jwks_public_endpoint];
        if let Some(key) = keys.into_iter().find(|key| !key.is_empty()) {
            warnings.add(WarningKind::Contradiction, key, text);
        }
    }
}

fn token(warnings: &mut WarningList, token: &TokenSection, settings: &TokenSettings) {
    key_set(warnings, token, settings);
    for pattern in [&token.audience_regex, &token.issuer_regex] {
        if !pattern.is_empty() && !is_anchored(pattern) {
            let text = "matches any part of the claim, so that longer values of others are accepted too: begin it with ^ \
                        and end it with $";
            warnings.add(WarningKind::Insecure, pattern, text);
        }
    }
    let previous = settings.hmac_previous_secret_key.is_some();
    if previous && settings.hmac_previous_secret_key_valid_until == 0 {
        let text = "is accepted forever: set hmac_previous_secret_key_valid_until, or remove it when all tokens signed \
                    with it have expired";
        warnings.add(WarningKind::Insecure, &token.hmac_previous_secret_key, text);
    }
}

fn key_set(warnings: &mut WarningList, token: &TokenSection, settings: &TokenSettings) {
    let Some(endpoint) = &settings.jwks_public_endpoint else { return };
    let host = endpoint.strip_prefix("http://").map(|rest| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        match authority.rsplit_once(':') {
            Some((host, _)) if !authority.ends_with(']') => host,
            _ => authority,
        }
    });
    if host.is_some_and(|host| !is_loopback(host)) {
        let text = "is fetched by plain HTTP, so that an attacker on the network can replace the keys: use https";
        warnings.add(WarningKind::Insecure, &token.jwks_public_endpoint, text);
    }
    let expects = settings.audience.is_some() || settings.audience_regex.is_some();
    if !expects {
        let text = format!(
            "accepts tokens that the issuer made for other services too: set {}",
            token.audience.key
        );
        warnings.add(WarningKind::Insecure, &token.jwks_public_endpoint, text);
    }
}

/// Events that others on the network can read.
fn webhooks(warnings: &mut WarningList, sections: &[EventSinkSection], config: &Config) {
    for sink in &config.events {
        let SinkTarget::Webhook(webhook) = &sink.target;
        let is_plain = webhook.uri.scheme_str() == Some("http");
        let section = sections.iter().find(|section| *section.name == *sink.name);
        let (Some(host), Some(section)) = (webhook.uri.host(), section) else { continue };
        if is_plain && !is_loopback(host) {
            let text = "sends events by plain HTTP, so that others on the network can read user ids and channels: use \
                        https";
            warnings.add(WarningKind::Exposed, &section.webhook.endpoint, text);
        }
    }
}

/// Secrets that can be guessed or are used for two purposes.
fn secrets(warnings: &mut WarningList, options: &Options) {
    let subscriptions = &options.client.subscription_token;
    let (token, subscription_token) = (&options.client.token, &subscriptions.token);
    let has_subscriptions = *subscriptions.enabled;
    // Secrets with which tokens are signed now. They may be the same.
    let current = [&token.hmac_secret_key, &subscription_token.hmac_secret_key];
    let previous = [&token.hmac_previous_secret_key, &subscription_token.hmac_previous_secret_key];
    let api_key = &options.http_api.key;
    for (secret, used, is_used) in [
        (current[0], SecretUse::Signing, true),
        (current[1], SecretUse::Signing, has_subscriptions),
        (previous[0], SecretUse::Signing, true),
        (previous[1], SecretUse::Signing, has_subscriptions),
        (api_key, SecretUse::Password, !*options.http_api.disabled),
        (&options.grpc_api.key, SecretUse::Password, *options.grpc_api.enabled),
    ] {
        if secret.is_empty() || !is_used {
            continue;
        }
        weak_secret(warnings, secret, used);
        let is_current = current.iter().any(|one| one.key == secret.key);
        let other = current.iter().find(|other| other.as_str() == secret.as_str());
        if let Some(other) = other.filter(|_| !is_current) {
            let text =
                format!("is the same as {}: use a different secret for each purpose", other.key);
            warnings.add(WarningKind::WeakSecret, secret, text);
        }
    }
}

fn weak_secret(warnings: &mut WarningList, secret: &Setting<Secret>, used: SecretUse) {
    if let Some(weakness) = weakness(used, secret) {
        let text = format!("{weakness}; generate one with `openssl rand -hex 32`");
        warnings.add(WarningKind::WeakSecret, secret, text);
    }
}

/// Keys of `http_api.keys` that can be guessed.
fn api_keys(warnings: &mut WarningList, api: &ApiSection) {
    for key in api.keys.iter().map(|one| &one.key).filter(|key| !key.is_empty()) {
        weak_secret(warnings, key, SecretUse::Password);
    }
}

/// Options with which no client can connect.
fn no_access(warnings: &mut WarningList, options: &Options, config: &Config) {
    if config.websocket.path.is_none() {
        let text = "prevents all clients from connecting: WebSocket is the only transport";
        return warnings.add(WarningKind::Contradiction, &options.websocket.disabled, text);
    }
    let client = &config.rules.client;
    let token = &config.token;
    let has_key = token.hmac_secret_key.is_some()
        || token.rsa_public_key.is_some()
        || token.ecdsa_public_key.is_some()
        || token.jwks_public_endpoint.is_some()
        || token.insecure_skip_signature_verify;
    let is_open = client.insecure
        || client.allow_anonymous_connect_without_token
        || client.connect_proxy
        || config.admission.user_id_http_header.is_some();
    if !has_key && !is_open {
        let text = "is not set, and neither is another key for tokens: no client can connect";
        warnings.add(WarningKind::Contradiction, &options.client.token.hmac_secret_key, text);
    }
    if client.allow_anonymous_connect_without_token && client.disallow_anonymous_connection_tokens {
        let text = "refuses tokens without a user, but clients without a token are accepted \
                    (client.allow_anonymous_connect_without_token)";
        warnings.add(
            WarningKind::Contradiction,
            &options.client.disallow_anonymous_connection_tokens,
            text,
        );
    }
}

/// Limits that are too high to protect the server.
fn bounds(warnings: &mut WarningList, options: &Options, config: &Config) {
    for (size, most, what) in [
        (
            &options.websocket.message_size_limit,
            16 << 20,
            "one client can make the server use this much memory",
        ),
        (
            &options.websocket.decompressed_message_size_limit,
            64 << 20,
            "a small compressed message can become this large",
        ),
        (
            &options.client.queue_max_size,
            64 << 20,
            "this much memory can be queued for each client that does not read",
        ),
    ] {
        let bytes = size.number();
        if bytes > most {
            let text =
                format!("is {bytes} bytes: {what}; usual values are up to {} MiB", most >> 20);
            warnings.add(WarningKind::Limit, size, text);
        }
    }
    let client = &config.rules.client;
    if client.ping_interval_ms == 0 {
        let text = "is 0, so that no pings are sent and broken connections are never detected";
        warnings.add(WarningKind::Limit, &options.client.ping_interval, text);
    }
    if client.stale_close_delay_ms > 60_000 {
        let text = "lets connections without a connect command stay open for more than a minute; the default is 10s";
        warnings.add(WarningKind::Limit, &options.client.stale_close_delay, text);
    }
    let grpc_tls = Some(&options.grpc_api.tls).filter(|_| *options.grpc_api.enabled);
    for tls in [Some(&options.http_server.tls), grpc_tls].into_iter().flatten() {
        if !tls.cert_pem.is_empty() && !tls.enabled.is_written {
            let text = format!(
                "is not used without {} = true: the server http_version without TLS",
                tls.enabled.key
            );
            warnings.add(WarningKind::Contradiction, &tls.cert_pem, text);
        }
    }
}

/// Certificates that expire within this number of days are reported.
const CERTIFICATE_DAYS: i64 = 14;

/// Certificates that are not valid, or expire soon.
fn certificates(warnings: &mut WarningList, options: &Options, now_unix: i64) {
    let (server, redis) = (&options.http_server.tls, &options.engine.redis.tls);
    let grpc = &options.grpc_api.tls;
    let nats = &options.broker.nats.tls;
    for (switch, certificate) in [
        (&server.enabled, &server.cert_pem),
        (&grpc.enabled, &grpc.cert_pem),
        (&redis.enabled, &redis.cert_pem),
        (&redis.enabled, &redis.server_ca_pem),
        (&nats.enabled, &nats.cert_pem),
        (&nats.enabled, &nats.server_ca_pem_file),
        (&nats.enabled, &nats.server_ca_pem),
    ] {
        let pem = certificate.some().filter(|_| **switch);
        // A certificate that cannot be read is reported where it is used.
        let Some(pem) = pem.and_then(|value| read_pem(Kind::Text, &value).ok()) else { continue };
        let all = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
        let mut all = all.filter_map(|certificate| validity(&certificate));
        let first = all.next();
        let ends_first = first.into_iter().chain(all).min_by_key(|(_, until)| *until);
        let (Some((from, _)), Some((_, until))) = (first, ends_first) else { continue };
        let days = |seconds: i64| seconds / 86_400;
        let text = match () {
            () if from > now_unix => {
                format!("becomes valid only in {} days", 1 + days(from - now_unix))
            }
            () if until <= now_unix => {
                format!("expired {} days ago: renew it", days(now_unix - until))
            }
            () if days(until - now_unix) < CERTIFICATE_DAYS => {
                format!("expires in {} days: renew it", days(until - now_unix))
            }
            () => continue,
        };
        warnings.add(WarningKind::Certificate, certificate, text);
    }
}

fn is_anchored(pattern: &str) -> bool {
    let begins = pattern.starts_with('^') || pattern.starts_with("\\A");
    let ends = (pattern.ends_with('$') && !pattern.ends_with("\\$")) || pattern.ends_with("\\z");
    begins && ends
}

/// Whether an address can be reached from this machine only.
fn is_loopback(address: &str) -> bool {
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    address == "localhost"
        || address.starts_with("unix:")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
