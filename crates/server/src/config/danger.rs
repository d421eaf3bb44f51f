//! Warnings about options that are valid but dangerous. `tidings check`, `serve` and `doctor`
//! report them.
//!
//! Invariant: an invalid configuration is a mistake and is detected elsewhere. No secret is part of
//! a message.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use super::address::is_everywhere;
use super::certificate::validity;
use super::contradictions::useless_options;
use super::keys::Kind;
use super::mistakes::{KeyedWarning, WarningKind};
use super::origin::{Origin, Reach};
use super::pem::read_pem;
use super::secret::{SecretUse, weakness};
use super::table::API_KEYS;
use super::values::Values;
use super::{Config, TokenSettings};

/// Returns all warnings of this module; none in development mode.
pub(super) fn dangers(values: &Values<'_>, config: &Config, now_unix: i64) -> Vec<KeyedWarning> {
    if config.is_development {
        return Vec::new();
    }
    let mut warnings = WarningList(Vec::new());
    switches(&mut warnings, values, config);
    listening(&mut warnings, config);
    origins(&mut warnings, values, config);
    tokens(&mut warnings, values, config);
    secrets(&mut warnings, values);
    api_keys(&mut warnings, values);
    no_access(&mut warnings, config);
    bounds(&mut warnings, values, config);
    warnings.0.extend(useless_options(values, &config.rules.client, &config.rules.channels));
    certificates(&mut warnings, values, now_unix);
    warnings.0
}

struct WarningList(Vec<KeyedWarning>);

impl WarningList {
    fn add(&mut self, kind: WarningKind, key: impl Into<String>, text: impl Into<String>) {
        self.0.push((kind, key.into(), text.into()));
    }
}

/// Options that disable a check.
fn switches(warnings: &mut WarningList, values: &Values<'_>, config: &Config) {
    for (key, text) in [
        (
            "client.insecure",
            "allows every client every operation without a token; for development only",
        ),
        (
            "client.insecure_skip_token_signature_verify",
            "accepts tokens with any signature, so that every client can be any user; for development only",
        ),
        (
            "http_api.insecure",
            "allows calls of the server API without a key: publishing, reading and disconnecting; for development only",
        ),
    ] {
        if values.flag(key) && !(key == "http_api.insecure" && config.api.path.is_none()) {
            warnings.add(WarningKind::Insecure, key, text);
        }
    }
    if config.admission.user_id_http_header.is_some() && !is_loopback(&config.http.address) {
        let text = "lets everyone who can reach the port without the proxy be any user: allow connections from the \
                    proxy only, and configure it to remove the header from requests of clients";
        warnings.add(WarningKind::Insecure, "client.user_id_http_header", text);
    }
    let mut proxies = values.list("client.trusted_proxies").into_iter();
    if let Some(network) = proxies.find(|network| network.trim().ends_with("/0")) {
        let text = format!(
            "{network} trusts every client to state its own address, so that limits per address have no effect: list the \
             addresses of the proxies"
        );
        warnings.add(WarningKind::Insecure, "client.trusted_proxies", text);
    }
    if config.demo && !is_loopback(&config.http.address) {
        let text = "serves the demo page, and allows every client every operation in channels that begin with demo:";
        warnings.add(WarningKind::Exposed, "demo.enabled", text);
    }
}

/// Internal endpoints that are reachable through the public port.
fn listening(warnings: &mut WarningList, config: &Config) {
    let inside: Vec<&str> =
        [config.api.path.as_deref(), config.metrics.as_deref()].into_iter().flatten().collect();
    let is_everywhere = is_everywhere(&config.http.address);
    if is_everywhere && config.http.internal_port.is_none() && !inside.is_empty() {
        let text = format!(
            "is not set and the server listens on all addresses, so that {} can be reached through the public port: \
             set it, or block these paths in a proxy",
            inside.join(" and ")
        );
        warnings.add(WarningKind::Exposed, "http_server.internal_port", text);
    }
    let address = &config.http.internal_address;
    let is_place = !address.is_empty() && *address != config.http.address;
    if config.http.internal_port.is_none() && is_place && !address.starts_with("unix:") {
        let text = "has no effect without http_server.internal_port if the server listens on all addresses, or on a port that the \
                    system chooses";
        warnings.add(WarningKind::NoEffect, "http_server.internal_address", text);
    }
}

/// Origins that admit pages of unknown sites.
fn origins(warnings: &mut WarningList, values: &Values<'_>, config: &Config) {
    let key = "client.allowed_origins";
    for written in values.list(key) {
        let Ok(origin) = Origin::read(&written) else { continue };
        if let Some(adapted) = origin.adapted {
            warnings.add(WarningKind::Adapted, key, format!("{written:?}: an origin {adapted}"));
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
            warnings.add(WarningKind::Insecure, key, text);
        } else {
            let text = format!(
                "{written:?} admits {admitted}: safe only if users are authenticated by tokens, and not by cookies or by \
                 network; better list the sites"
            );
            warnings.add(WarningKind::Exposed, key, text);
        }
    }
}

/// Checks of tokens that accept more than intended.
fn tokens(warnings: &mut WarningList, values: &Values<'_>, config: &Config) {
    let subscriptions = config.subscription_token.as_ref();
    let of_subscriptions = subscriptions.map(|settings| ("client.subscription_token", settings));
    let sections = [("client.token", &config.token)].into_iter().chain(of_subscriptions);
    for (path, settings) in sections {
        key_set(warnings, path, settings);
        for name in ["audience_regex", "issuer_regex"] {
            let pattern = values.text(&format!("{path}.{name}"));
            if !pattern.is_empty() && !is_anchored(&pattern) {
                let text = "matches any part of the claim, so that longer values of others are accepted too: begin it with ^ \
                            and end it with $";
                warnings.add(WarningKind::Insecure, format!("{path}.{name}"), text);
            }
        }
        let previous = settings.hmac_previous_secret_key.is_some();
        if previous && settings.hmac_previous_secret_key_valid_until == 0 {
            let text = "is accepted forever: set hmac_previous_secret_key_valid_until, or remove it when all tokens signed \
                        with it have expired";
            warnings.add(WarningKind::Insecure, format!("{path}.hmac_previous_secret_key"), text);
        }
    }
    let is_set =
        |name: &&str| !values.text(&format!("client.subscription_token.{name}")).is_empty();
    let keys = ["hmac_secret_key", "rsa_public_key", "ecdsa_public_key", "jwks_public_endpoint"];
    if subscriptions.is_none()
        && values.raw.value("client.subscription_token.enabled").is_none()
        && let Some(name) = keys.iter().find(|name| is_set(name))
    {
        let text = "is not used without client.subscription_token.enabled = true";
        warnings.add(WarningKind::Contradiction, format!("client.subscription_token.{name}"), text);
    }
}

fn key_set(warnings: &mut WarningList, path: &str, settings: &TokenSettings) {
    let Some(endpoint) = &settings.jwks_public_endpoint else { return };
    let key = format!("{path}.jwks_public_endpoint");
    let host = endpoint.strip_prefix("http://").map(|rest| {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        match authority.rsplit_once(':') {
            Some((host, _)) if !authority.ends_with(']') => host,
            _ => authority,
        }
    });
    if host.is_some_and(|host| !is_loopback(host)) {
        let text = "is fetched by plain HTTP, so that an attacker on the network can replace the keys: use https";
        warnings.add(WarningKind::Insecure, &*key, text);
    }
    let expects = settings.audience.is_some() || settings.audience_regex.is_some();
    if !expects {
        let text = format!(
            "accepts tokens that the issuer made for other services too: set {path}.audience"
        );
        warnings.add(WarningKind::Insecure, key, text);
    }
}

/// Secrets that can be guessed or are used for two purposes.
fn secrets(warnings: &mut WarningList, values: &Values<'_>) {
    for (key, used) in [
        (SECRETS[0], SecretUse::Signing),
        (SECRETS[1], SecretUse::Signing),
        ("client.token.hmac_previous_secret_key", SecretUse::Signing),
        ("client.subscription_token.hmac_previous_secret_key", SecretUse::Signing),
        ("http_api.key", SecretUse::Password),
    ] {
        let is_used = match key {
            "http_api.key" => !values.flag("http_api.disabled"),
            key => {
                !key.starts_with("client.subscription_token")
                    || values.flag("client.subscription_token.enabled")
            }
        };
        let Some(secret) = values.some_text(key).filter(|_| is_used) else { continue };
        if let Some(weakness) = weakness(used, &secret) {
            let text = format!("{weakness}; generate one with `openssl rand -hex 32`");
            warnings.add(WarningKind::WeakSecret, key, text);
        }
        // Connection tokens and subscription tokens may share a secret.
        let other = SECRETS.iter().find(|other| values.text(other) == secret && **other != key);
        if let Some(other) = other.filter(|_| !SECRETS.contains(&key)) {
            let text = format!("is the same as {other}: use a different secret for each purpose");
            warnings.add(WarningKind::WeakSecret, key, text);
        }
    }
}

/// Keys of `http_api.keys` that can be guessed.
fn api_keys(warnings: &mut WarningList, values: &Values<'_>) {
    let list = values.raw.value(API_KEYS).and_then(Value::as_array);
    for (index, group) in list.into_iter().flatten().enumerate() {
        let key = group.get("key").and_then(Value::as_str).unwrap_or_default();
        if let Some(weakness) = weakness(SecretUse::Password, key).filter(|_| !key.is_empty()) {
            let text = format!("{weakness}; generate one with `openssl rand -hex 32`");
            warnings.add(WarningKind::WeakSecret, format!("{API_KEYS}[{index}].key"), text);
        }
    }
}

/// Secrets with which tokens are signed now.
const SECRETS: [&str; 2] =
    ["client.token.hmac_secret_key", "client.subscription_token.hmac_secret_key"];

/// Options with which no client can connect.
fn no_access(warnings: &mut WarningList, config: &Config) {
    if config.websocket.path.is_none() {
        let text = "prevents all clients from connecting: WebSocket is the only transport";
        return warnings.add(WarningKind::Contradiction, "websocket.disabled", text);
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
        || config.admission.user_id_http_header.is_some();
    if !has_key && !is_open {
        let text = "is not set, and neither is another key for tokens: no client can connect";
        warnings.add(WarningKind::Contradiction, "client.token.hmac_secret_key", text);
    }
    if client.allow_anonymous_connect_without_token && client.disallow_anonymous_connection_tokens {
        let text = "refuses tokens without a user, but clients without a token are accepted \
                    (client.allow_anonymous_connect_without_token)";
        warnings.add(
            WarningKind::Contradiction,
            "client.disallow_anonymous_connection_tokens",
            text,
        );
    }
}

/// Limits that are too high to protect the server.
fn bounds(warnings: &mut WarningList, values: &Values<'_>, config: &Config) {
    for (key, most, what) in [
        (
            "websocket.message_size_limit",
            16 << 20,
            "one client can make the server use this much memory",
        ),
        (
            "websocket.decompressed_message_size_limit",
            64 << 20,
            "a small compressed message can become this large",
        ),
        (
            "client.queue_max_size",
            64 << 20,
            "this much memory can be queued for each client that does not read",
        ),
    ] {
        let bytes = values.number(key);
        if bytes > most {
            let text =
                format!("is {bytes} bytes: {what}; usual values are up to {} MiB", most >> 20);
            warnings.add(WarningKind::Limit, key, text);
        }
    }
    let client = &config.rules.client;
    if client.ping_interval_ms == 0 {
        let text = "is 0, so that no pings are sent and broken connections are never detected";
        warnings.add(WarningKind::Limit, "client.ping_interval", text);
    }
    if client.stale_close_delay_ms > 60_000 {
        let text = "lets connections without a connect command stay open for more than a minute; the default is 10s";
        warnings.add(WarningKind::Limit, "client.stale_close_delay", text);
    }
    let cert_pem = values.text("http_server.tls.cert_pem");
    if !cert_pem.is_empty() && values.raw.value("http_server.tls.enabled").is_none() {
        let text =
            "is not used without http_server.tls.enabled = true: the server speaks plain HTTP";
        warnings.add(WarningKind::Contradiction, "http_server.tls.cert_pem", text);
    }
}

/// Certificates that expire within this number of days are reported.
const CERTIFICATE_DAYS: i64 = 14;

/// Certificates that are not valid, or expire soon.
fn certificates(warnings: &mut WarningList, values: &Values<'_>, now_unix: i64) {
    for (switch, key) in [
        ("http_server.tls.enabled", "http_server.tls.cert_pem"),
        ("engine.redis.tls.enabled", "engine.redis.tls.cert_pem"),
        ("engine.redis.tls.enabled", "engine.redis.tls.server_ca_pem"),
        ("broker.nats.tls.enabled", "broker.nats.tls.cert_pem"),
        ("broker.nats.tls.enabled", "broker.nats.tls.server_ca_pem_file"),
        ("broker.nats.tls.enabled", "broker.nats.tls.server_ca_pem"),
    ] {
        let pem = values.some_text(key).filter(|_| values.flag(switch));
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
        warnings.add(WarningKind::Certificate, key, text);
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
