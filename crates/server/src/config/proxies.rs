//! Resolves the backends that are called: which exist, and where options name them.
//!
//! Invariant: a name that is used is that of a backend with an endpoint. No message contains a
//! header value, credentials or user information of a URL.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::rules::RpcRules;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use proxy::headers::may_be_forwarded;
use proxy::tls::BackendTlsPem;
use proxy::{
    BackendAddress, BackendSettings, BackendTls, BackendTlsError, BinaryData, BreakerSettings,
    Forwarding, ProxyMethod, Share, StatusTransform, TransformTarget, WhenOpen,
};

use super::kind::{Kind, OptionValue as _, Secret};
use super::mistakes::KeyedMistakes;
use super::namespaces::name_if;
use super::options::Options;
use super::options::channel::NamespaceSection;
use super::options::proxy::{
    ProxyBreakerSection, ProxyGrpcSection, ProxySection, ProxyTlsSection, RpcNamespaceSection,
    RpcOptionsSection, RpcSection, StatusTransformSection, WhenOpenChoice,
};
use super::pem::read_pem;
use super::schema::Setting;

/// The backends of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// Proxies by method and name; those of connect and refresh have the name `default`.
    pub(crate) backends: BTreeMap<BackendKey, BackendSettings>,
}

/// What selects a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum BackendKey {
    /// The backend of this method without a name.
    Default(&'static str),
    /// One of `proxies`.
    Named(String),
}

/// Name of the proxies in `channel.proxy` and `rpc.proxy`.
pub(crate) const DEFAULT_PROXY: &str = "default";

impl BackendKey {
    /// The backend that options of this method name so.
    pub(crate) fn new(method: ProxyMethod, name: &str) -> BackendKey {
        match name {
            DEFAULT_PROXY => BackendKey::Default(method.name()),
            name => BackendKey::Named(name.to_owned()),
        }
    }
}

impl Proxies {
    /// Headers of HTTP requests that any backend gets.
    pub(crate) fn http_headers(&self) -> Vec<HeaderName> {
        self.listed(|forwarding| &forwarding.http_headers)
    }

    /// Headers in connect commands that any backend gets.
    pub(crate) fn emulated_headers(&self) -> Vec<String> {
        let listed = self.listed(|forwarding| &forwarding.emulated_headers);
        listed.iter().map(|name| name.as_str().to_owned()).collect()
    }

    fn listed(&self, list: fn(&Forwarding) -> &Vec<HeaderName>) -> Vec<HeaderName> {
        let all = self.backends.values().flat_map(|backend| list(&backend.forwarding));
        let mut all: Vec<HeaderName> = all.cloned().collect();
        all.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        all.dedup();
        all
    }
}

/// Resolves which proxies RPC methods have.
pub(super) fn resolve_rpc(rpc: &RpcSection, mistakes: &mut KeyedMistakes) -> RpcRules {
    let proxy = |options: &RpcOptionsSection| name_if(&options.proxy_enabled, &options.proxy_name);
    let mut namespaces = BTreeMap::new();
    for RpcNamespaceSection { name, options } in &rpc.namespaces {
        if !is_name(name) {
            mistakes.push(name.fault(format!("{NO_NAME} {:?}", **name)));
        } else if namespaces.insert(name.to_string(), proxy(options)).is_some() {
            let text = format!("{:?} is used twice: rename one of the namespaces", **name);
            mistakes.push(name.fault(text));
        }
    }
    if *rpc.ping.enabled && rpc.ping.method.is_empty() {
        mistakes.push(rpc.ping.method.fault("must not be empty"));
    }
    RpcRules {
        namespace_boundary: rpc.namespace_boundary.clone(),
        without_namespace: proxy(&rpc.without_namespace),
        namespaces,
        ping_method: rpc.ping.enabled.then(|| rpc.ping.method.clone()),
    }
}

/// Endpoints of default proxies that no option switches on.
pub(super) fn unused_proxies(options: &Options) -> KeyedMistakes {
    let (client, channel) = (&options.client.proxy, &options.channel);
    let mut unused = Vec::new();
    for section in [&client.connect, &client.refresh] {
        if section.proxy.endpoint.is_written && !section.enabled.is_written {
            let text = format!("is not used without {} = true", section.enabled.key);
            unused.push(section.proxy.endpoint.fault(text));
        }
    }
    let namespaces = channel.namespaces.iter().map(|namespace| &namespace.options);
    let namespaces: Vec<_> = namespaces.chain([&channel.without_namespace]).collect();
    let proxies = &channel.proxy;
    let uses: [(&ProxySection, &str, SwitchOf); 3] = [
        (&proxies.subscribe, "subscribe_proxy_enabled", |namespace| {
            (&namespace.subscribe_proxy_enabled, &namespace.subscribe_proxy_name)
        }),
        (&proxies.publish, "publish_proxy_enabled", |namespace| {
            (&namespace.publish_proxy_enabled, &namespace.publish_proxy_name)
        }),
        (&proxies.sub_refresh, "sub_refresh_proxy_enabled", |namespace| {
            (&namespace.sub_refresh_proxy_enabled, &namespace.sub_refresh_proxy_name)
        }),
    ];
    let mut check = |section: &ProxySection, switches: &[ProxySwitch<'_>], switch| {
        let is_used = switches.iter().any(|(enabled, name)| ***enabled && ***name == DEFAULT_PROXY);
        if section.endpoint.is_written && !is_used {
            let text = format!("is not used: no namespace has {switch} = true and this proxy");
            unused.push(section.endpoint.fault(text));
        }
    };
    for (section, switch, of) in uses {
        let switches: Vec<_> = namespaces.iter().map(|namespace| of(namespace)).collect();
        check(section, &switches, switch);
    }
    let rpc = &options.rpc;
    let methods = rpc.namespaces.iter().map(|namespace| &namespace.options);
    let methods = methods.chain([&rpc.without_namespace]);
    let switches: Vec<ProxySwitch<'_>> =
        methods.map(|methods| (&methods.proxy_enabled, &methods.proxy_name)).collect();
    check(&rpc.proxy, &switches, "proxy_enabled");
    unused
}

/// The options that switch a proxy on and name it.
type ProxySwitch<'o> = (&'o Setting<bool>, &'o Setting<String>);
type SwitchOf = fn(&NamespaceSection) -> ProxySwitch<'_>;

/// Whether a text can be the name of a proxy or a namespace.
fn is_name(text: &str) -> bool {
    text.len() >= 2 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

const NO_NAME: &str = "expected at least two letters, digits, '-', '_' or '.', not";

/// Resolves all backends that are used, and those with a name.
pub(super) fn resolve_proxies(options: &Options, mistakes: &mut KeyedMistakes) -> Proxies {
    let mut resolver = Resolver {
        backends: BTreeMap::new(),
        names: BTreeSet::new(),
        failed: Vec::new(),
        mistakes,
    };
    resolver.named(options);
    let client = &options.client.proxy;
    for (method, section) in
        [(ProxyMethod::Connect, &client.connect), (ProxyMethod::Refresh, &client.refresh)]
    {
        if *section.enabled {
            resolver.default(method, &section.proxy);
        }
        let share = &section.proxy.share_answers;
        if *section.enabled && **share == Share::Channel {
            let text = "\"channel\" is for subscribe questions: all clients would be one user";
            resolver.mistakes.push(share.fault(text));
        }
    }
    let channel = &options.channel;
    let namespaces = channel.namespaces.iter().map(|namespace| &namespace.options);
    for namespace in namespaces.chain([&channel.without_namespace]) {
        let NamespaceSection { subscribe_proxy_enabled, subscribe_proxy_name, .. } = namespace;
        let NamespaceSection { publish_proxy_enabled, publish_proxy_name, .. } = namespace;
        let NamespaceSection { sub_refresh_proxy_enabled, sub_refresh_proxy_name, .. } = namespace;
        let proxies = &channel.proxy;
        resolver.used(
            ProxyMethod::Subscribe,
            (subscribe_proxy_enabled, subscribe_proxy_name),
            &proxies.subscribe,
        );
        resolver.used(
            ProxyMethod::Publish,
            (publish_proxy_enabled, publish_proxy_name),
            &proxies.publish,
        );
        resolver.used(
            ProxyMethod::SubRefresh,
            (sub_refresh_proxy_enabled, sub_refresh_proxy_name),
            &proxies.sub_refresh,
        );
    }
    let rpc = &options.rpc;
    let namespaces = rpc.namespaces.iter().map(|namespace| &namespace.options);
    for methods in namespaces.chain([&rpc.without_namespace]) {
        resolver.used(ProxyMethod::Rpc, (&methods.proxy_enabled, &methods.proxy_name), &rpc.proxy);
    }
    Proxies { backends: resolver.backends }
}

struct Resolver<'m> {
    backends: BTreeMap<BackendKey, BackendSettings>,
    /// Names of `proxies`, also of those with mistakes.
    names: BTreeSet<String>,
    /// Paths of default proxies with mistakes, each of which is reported once.
    failed: Vec<String>,
    mistakes: &'m mut KeyedMistakes,
}

impl Resolver<'_> {
    fn named(&mut self, options: &Options) {
        for section in &options.proxies {
            let name = &section.name;
            if !is_name(name) {
                self.mistakes.push(name.fault(format!("{NO_NAME} {:?}", **name)));
            } else if **name == DEFAULT_PROXY {
                let text = "\"default\" is reserved for the proxies in channel.proxy and rpc.proxy: choose another name";
                self.mistakes.push(name.fault(text));
            } else if self.names.contains(&**name) {
                let text = format!("{:?} is used twice: rename one of the proxies", **name);
                self.mistakes.push(name.fault(text));
            }
            self.names.insert(name.to_string());
            let settings = self.resolve(&section.proxy, format!("proxies.{}", **name));
            let key = BackendKey::Named(name.to_string());
            settings.map(|settings| self.backends.insert(key, settings));
        }
    }

    /// Notes the use of a proxy by options with a switch and a name.
    fn used(
        &mut self,
        method: ProxyMethod,
        (enabled, name): (&Setting<bool>, &Setting<String>),
        default: &ProxySection,
    ) {
        if name.is_empty() && !**enabled {
            return;
        }
        if **name != DEFAULT_PROXY && !self.names.contains(&**name) {
            let others =
                self.names.iter().map(|name| &**name).filter(|name| *name != DEFAULT_PROXY);
            let known = [DEFAULT_PROXY].into_iter().chain(others);
            let known: Vec<String> = known.map(|name| format!("{name:?}")).collect();
            let text = format!(
                "there is no proxy {:?} in proxies; the names are {}",
                **name,
                known.join(", ")
            );
            return self.mistakes.push(name.fault(text));
        }
        if **enabled && **name == DEFAULT_PROXY {
            self.default(method, default);
        }
    }

    fn default(&mut self, method: ProxyMethod, section: &ProxySection) {
        let key = BackendKey::Default(method.name());
        let path = section.endpoint.section().to_owned();
        if self.backends.contains_key(&key) || self.failed.contains(&path) {
            return;
        }
        match self.resolve(section, path.clone()) {
            Some(settings) => drop(self.backends.insert(key, settings)),
            None => self.failed.push(path),
        }
    }

    fn resolve(&mut self, section: &ProxySection, name: String) -> Option<BackendSettings> {
        let before = self.mistakes.len();
        if section.timeout.is_zero() {
            self.mistakes.push(section.timeout.fault("must not be 0: a call would never succeed"));
        }
        if section.max_concurrency.count() == 0 {
            let text = "must not be 0: no call could be made";
            self.mistakes.push(section.max_concurrency.fault(text));
        }
        let address = BackendAddress::parse(&section.endpoint)
            .map_err(|fault| self.mistakes.push(section.endpoint.fault(fault.to_string())));
        let is_grpc = matches!(address, Ok(BackendAddress::Grpc { .. }));
        let forwarding = Forwarding {
            http_headers: self.names_of(&section.http_headers),
            grpc_metadata: self.names_of(&section.grpc_metadata),
            emulated_headers: self.names_of(&section.emulated_headers),
        };
        let tls =
            resolve_tls(if is_grpc { &section.grpc.tls } else { &section.http.tls }, self.mistakes);
        let static_headers = match is_grpc {
            true => self.static_metadata(&section.grpc),
            false => resolve_static_headers(&section.http.static_headers, self.mistakes),
        };
        let transforms = &section.http.status_to_code_transforms;
        let transforms = transforms.iter().filter_map(|section| self.transform(section)).collect();
        let when_open = self.when_open(section);
        let settings = BackendSettings {
            name,
            address: address.ok()?,
            timeout: *section.timeout,
            forwarding,
            static_headers,
            data: match *section.binary_encoding {
                true => BinaryData::Base64,
                false => BinaryData::Json,
            },
            includes_meta: *section.include_connection_meta,
            transforms,
            compression: *section.grpc.compression,
            tls,
            breaker: breaker(&section.breaker),
            concurrency: section.max_concurrency.count(),
            queue: section.max_queue.count(),
            share: *section.share_answers,
            when_open,
        };
        (self.mistakes.len() == before).then_some(settings)
    }

    fn names_of(&mut self, setting: &Setting<Vec<String>>) -> Vec<HeaderName> {
        let names = setting.iter().filter_map(|text| {
            let name = HeaderName::from_bytes(text.as_bytes()).ok();
            if name.as_ref().is_none_or(|name| !may_be_forwarded(name)) {
                let text = format!("{text:?} is not the name of a header that can be forwarded");
                self.mistakes.push(setting.fault(text));
                return None;
            }
            name
        });
        names.collect()
    }

    /// Static metadata and credentials of calls over gRPC.
    fn static_metadata(&mut self, grpc: &ProxyGrpcSection) -> HeaderMap {
        let mut headers = resolve_static_headers(&grpc.static_metadata, self.mistakes);
        if !grpc.credentials_key.is_empty() {
            let name = HeaderName::from_bytes(grpc.credentials_key.as_bytes());
            match (name, HeaderValue::from_str(grpc.credentials_value.as_str())) {
                (Ok(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.insert(name, value);
                }
                (Err(_), _) => {
                    self.mistakes.push(grpc.credentials_key.fault("is not a name of metadata"));
                }
                (_, Err(_)) => {
                    self.mistakes.push(grpc.credentials_value.fault("is not a value of metadata"));
                }
            }
        }
        headers
    }

    fn transform(&mut self, section: &StatusTransformSection) -> Option<StatusTransform> {
        let StatusTransformSection { status_code, to_error, to_disconnect } = section;
        let status = u16::try_from(status_code.number()).ok().filter(|status| *status >= 100);
        let Some(status) = status else {
            self.mistakes.push(status_code.fault("is required: a status of 100 to 599"));
            return None;
        };
        for text in [&to_error.message, &to_disconnect.reason] {
            if text.len() > REASON_LENGTH_MAX || !text.is_ascii() {
                let fault = format!("expected at most {REASON_LENGTH_MAX} ASCII characters");
                self.mistakes.push(text.fault(fault));
            }
        }
        let target = match (*to_error.code, *to_disconnect.code) {
            (0, 0) => {
                let text = "to_error.code or to_disconnect.code is required";
                self.mistakes.push(to_error.code.fault(text));
                return None;
            }
            (code, 0) => TransformTarget::Error {
                code,
                message: to_error.message.clone(),
                temporary: *to_error.temporary,
            },
            (0, code) => TransformTarget::Disconnect { code, reason: to_disconnect.reason.clone() },
            _ => {
                let text = "to_error and to_disconnect exclude each other: remove one of them";
                self.mistakes.push(to_disconnect.code.fault(text));
                return None;
            }
        };
        Some(StatusTransform { status, target })
    }

    fn when_open(&mut self, section: &ProxySection) -> WhenOpen {
        match *section.breaker.when_open {
            WhenOpenChoice::Deny => WhenOpen::Deny,
            WhenOpenChoice::Allow => {
                if *section.share_answers == Share::Off {
                    let text =
                        "\"allow\" needs share_answers, which says whose answer may be given again";
                    self.mistakes.push(section.breaker.when_open.fault(text));
                }
                WhenOpen::Allow { stale_max_age: *section.breaker.stale_max_age }
            }
        }
    }
}

/// Headers of every request.
pub(super) fn resolve_static_headers(
    setting: &Setting<BTreeMap<String, String>>,
    mistakes: &mut KeyedMistakes,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (text, value) in &**setting {
        let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(may_be_forwarded);
        match (name, HeaderValue::from_str(value)) {
            (Some(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            _ => {
                let text = format!("{text:?} is not a header that can be sent");
                mistakes.push(setting.fault(text));
            }
        }
    }
    headers
}

/// TLS settings, if they are enabled.
pub(super) fn resolve_tls(
    section: &ProxyTlsSection,
    mistakes: &mut KeyedMistakes,
) -> Option<BackendTls> {
    if !*section.enabled {
        return None;
    }
    let mut pem = |setting: &Setting<String>| {
        let read = read_pem(Kind::Text, &setting.some()?);
        read.map_err(|error| mistakes.push(setting.fault(error))).ok()
    };
    let (roots, cert) = (pem(&section.server_ca_pem), pem(&section.cert_pem));
    let key = (!section.key_pem.is_empty()).then(|| {
        let read = read_pem(Secret::KIND, &section.key_pem);
        read.map_err(|error| mistakes.push(section.key_pem.fault(error))).ok()
    });
    let key = key.flatten();
    if section.cert_pem.is_empty() != section.key_pem.is_empty() {
        let text = "cert_pem and key_pem are required together";
        mistakes.push(section.cert_pem.fault(text));
    }
    let server_name = section.server_name.some();
    let tls = BackendTls::new(BackendTlsPem {
        roots: roots.as_deref(),
        own: cert.as_deref().zip(key.as_deref()),
        server_name: server_name.as_deref(),
    });
    tls.map_err(|error| {
        let text = error.to_string();
        mistakes.push(match error {
            BackendTlsError::Roots => section.server_ca_pem.fault(text),
            BackendTlsError::Own(_) => section.cert_pem.fault(text),
            BackendTlsError::ServerName => section.server_name.fault(text),
        });
    })
    .ok()
}

/// Bytes of a reason in a close frame (RFC 6455 §5.5), less its code.
const REASON_LENGTH_MAX: usize = 123;

fn breaker(section: &ProxyBreakerSection) -> BreakerSettings {
    // A percentage above 100 is never reached.
    let percent = |setting: u64| match u32::try_from(setting) {
        Ok(percent) if percent > 0 && *section.enabled => percent,
        _ => NEVER_PERCENT,
    };
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    BreakerSettings {
        error_percent: percent(section.error_rate.number()),
        slow_call_ms: ms(*section.slow_call),
        slow_percent: percent(section.slow_call_rate.number()),
        window_ms: ms(*section.window),
        calls_min: *section.min_calls,
        open_ms: ms(*section.open_for),
        probes: u32::try_from(section.probes.number()).unwrap_or(u32::MAX),
    }
}

const NEVER_PERCENT: u32 = 101;
