//! Dynamic configuration: options of namespaces, and limits, that are changed at run time by
//! publications in `sys:config`.
//!
//! Invariant: the rules after some changes equal those of a file with the same options. A change
//! with a mistake changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use engine::rules::{Namespace, Rules};
use proxy::ProxyMethod;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Unknown;
use super::check::check_keys;
use super::contradictions::unsafe_personal_channel;
use super::engine::Engine;
use super::namespaces::resolve_channels;
use super::options::Options;
use super::proxies::{BackendKey, Proxies};
use super::rates::resolve_rates;
use super::raw_config::RawConfig;
use super::schema::Section as _;

/// The options of channels and limits in the file, with the changes since the start.
#[derive(Clone, Debug)]
pub struct Changeable {
    /// The part of the configuration below `channel`.
    written: Value,
    /// The part below `limits`.
    written_limits: Value,
    changes: Changed,
    bounds: Bounds,
    /// Backends that the file names.
    backends: BTreeSet<BackendKey>,
}

/// All changes since the start.
#[derive(Clone, Debug, Default)]
struct Changed {
    /// Options by namespace; the empty name means channels without a namespace.
    namespaces: BTreeMap<String, Map<String, Value>>,
    /// Rates by name of the bucket.
    limits: Map<String, Value>,
}

/// Limits of the broker that were fixed at start by the file. No change may exceed them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bounds {
    /// No limits: memory and Redis.
    None,
    /// The stream in NATS was created with these limits.
    Stream {
        /// Maximum number of publications per channel.
        history_size: u32,
        /// Maximum time for which messages are kept, in milliseconds.
        kept_ms: u64,
    },
    /// NATS without JetStream, which keeps nothing.
    NothingKept,
}

impl Bounds {
    pub(super) fn of(engine: &Engine) -> Bounds {
        let Engine::Nats(options) = engine else { return Bounds::None };
        options.jetstream.as_ref().map_or(Bounds::NothingKept, |jetstream| Bounds::Stream {
            history_size: jetstream.history_size_max,
            kept_ms: jetstream.kept_ms_max,
        })
    }

    fn check(self, namespace: &Namespace) -> Result<(), String> {
        let Bounds::Stream { history_size, kept_ms } = self else { return Ok(()) };
        for (name, is, most, unit) in [
            ("history_size", namespace.history_size.into(), u64::from(history_size), ""),
            ("history_meta_ttl", namespace.history_meta_ttl_ms, kept_ms, "ms"),
            ("channel_ttl", namespace.channel_ttl_ms, kept_ms, "ms"),
        ] {
            if is > most {
                return Err(format!(
                    "{name} is at most {most}{unit} with NATS, whose stream was created with this limit: \
                     for more, change the file and restart the nodes"
                ));
            }
        }
        Ok(())
    }
}

/// A change of options: `{"namespace":"chat","options":{"history_size":100,"history_ttl":"1h"}}`.
/// An option that is null returns to its value in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct NamespaceChange {
    namespace: String,
    options: Map<String, Value>,
}

/// A change of limits: `{"limits":{"connection.publishes":"10/s burst 20"}}`. A limit that is null
/// returns to its value in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct LimitsChange {
    limits: Map<String, Value>,
}

impl Changeable {
    pub(super) fn new(tree: &Value, bounds: Bounds) -> Changeable {
        let part = |name: &str| tree.get(name).cloned().unwrap_or_else(|| json!({}));
        let (written, written_limits) = (part("channel"), part("limits"));
        let backends = BTreeSet::new();
        Changeable { written, written_limits, changes: Changed::default(), bounds, backends }
    }

    /// Sets the backends that changes may name.
    pub(super) fn with_backends(self, proxies: &Proxies) -> Changeable {
        Changeable { backends: proxies.backends.keys().cloned().collect(), ..self }
    }

    /// Why no option can be changed; `None` if options can be changed.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        matches!(self.bounds, Bounds::NothingKept).then_some(NOTHING_KEPT)
    }

    /// Removes all changes.
    pub fn reset(&mut self) {
        self.changes = Changed::default();
    }

    /// All changes as key and publication: one per namespace, and one for the limits.
    pub fn changes(&self) -> Vec<(String, Vec<u8>)> {
        let Changed { namespaces, limits } = &self.changes;
        let changes = namespaces.iter().filter(|(_, options)| !options.is_empty());
        let change = |(namespace, options): (&String, &Map<String, Value>)| {
            let change = json!({ "namespace": namespace, "options": options });
            (namespace.clone(), change.to_string().into_bytes())
        };
        let limits = (!limits.is_empty()).then(|| {
            let change = json!({ "limits": limits });
            ("limits".to_owned(), change.to_string().into_bytes())
        });
        changes.map(change).chain(limits).collect()
    }

    /// Applies a change and returns the new rules.
    ///
    /// # Errors
    /// The mistake in the change. Nothing has changed then.
    pub fn change(&mut self, change: &[u8], rules: &Rules) -> Result<Rules, String> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal.to_owned());
        }
        let mut changes = self.changes.clone();
        if let Ok(LimitsChange { limits }) = serde_json::from_slice(change) {
            put_limits("", limits, &mut changes.limits);
        } else {
            let change = serde_json::from_slice(change);
            let NamespaceChange { namespace, options } = change.map_err(|error| {
                format!(
                    "expected {{\"namespace\":NAME,\"options\":{{…}}}} or {{\"limits\":{{…}}}}: {error}"
                )
            })?;
            if options.contains_key("name") {
                return Err("the name of a namespace cannot be changed".to_owned());
            }
            let of_namespace = changes.namespaces.entry(namespace).or_default();
            options.into_iter().for_each(|(name, value)| put(of_namespace, name, value));
        }
        let changed = self.rules(&changes, rules)?;
        self.changes = changes;
        Ok(changed)
    }

    /// Resolves the file with these changes.
    fn rules(&self, changes: &Changed, rules: &Rules) -> Result<Rules, String> {
        let mut channel = self.written.clone();
        for (name, options) in &changes.namespaces {
            let place = match &**name {
                "" => {
                    let place = &mut channel["without_namespace"];
                    if place.is_null() {
                        *place = json!({});
                    }
                    Some(place)
                }
                name => channel["namespaces"]
                    .as_array_mut()
                    .and_then(|list| list.iter_mut().find(|one| one["name"] == name)),
            };
            let place = place.and_then(Value::as_object_mut);
            let place = place.ok_or_else(|| format!("there is no namespace {name:?}"))?;
            place.extend(options.clone());
        }
        let mut limits = self.written_limits.clone();
        for (bucket, rate) in &changes.limits {
            let place = bucket.split('.').try_fold(&mut limits, |place, part| {
                (place.is_object() || place.is_null()).then(|| &mut place[part])
            });
            *place.ok_or_else(|| format!("there is no limit {bucket:?}"))? = rate.clone();
        }
        let mut raw = RawConfig::of(json!({ "channel": channel, "limits": limits }));
        check_keys(&mut raw, Unknown::Mistake);
        let mut mistakes = Vec::new();
        let options = Options::read("", &raw.tree);
        let mut channels = resolve_channels(&options.channel, &mut mistakes);
        let rates = resolve_rates(&options.limits, rules.client.channel_limit, &mut mistakes);
        for (place, text) in mistakes {
            raw.mistake(place, text);
        }
        let (_, mistakes) = raw.into_messages();
        if !mistakes.is_empty() {
            let texts: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            return Err(texts.join("; "));
        }
        for namespace in channels.namespaces.values().chain([&channels.without_namespace]) {
            self.bounds.check(namespace)?;
            self.check_backends(namespace)?;
        }
        if let Some(text) = unsafe_personal_channel(&rules.client, &channels) {
            return Err(format!("allow_user_limited_channels {text}"));
        }
        // Keeps namespaces that are not in the file, such as the one of the demo.
        for (name, namespace) in &rules.channels.namespaces {
            channels.namespaces.entry(name.clone()).or_insert_with(|| namespace.clone());
        }
        Ok(Rules { channels, rates, ..rules.clone() })
    }

    /// Backends are connected to at start.
    fn check_backends(&self, namespace: &Namespace) -> Result<(), String> {
        for (method, name) in [
            (ProxyMethod::Subscribe, &namespace.subscribe_proxy),
            (ProxyMethod::Publish, &namespace.publish_proxy),
            (ProxyMethod::SubRefresh, &namespace.sub_refresh_proxy),
        ] {
            let Some(name) = name else { continue };
            if !self.backends.contains(&BackendKey::new(method, name)) {
                let option = method.name();
                return Err(format!(
                    "{option}_proxy_enabled needs a proxy that the file uses or names in proxies: change the file \
                     and restart the nodes"
                ));
            }
        }
        Ok(())
    }
}

/// Sets an option, or removes the change if the value is null.
fn put(place: &mut Map<String, Value>, name: String, value: Value) {
    match value {
        Value::Null => drop(place.remove(&name)),
        value => drop(place.insert(name, value)),
    }
}

/// Flattens nested limits to the names of their buckets: `connection.publishes`.
fn put_limits(prefix: &str, limits: Map<String, Value>, place: &mut Map<String, Value>) {
    for (name, value) in limits {
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Object(inner) => put_limits(&name, inner, place),
            value => put(place, name, value),
        }
    }
}

const NOTHING_KEPT: &str = "options cannot be changed: without JetStream, NATS does not keep changes for nodes that start later. \
     JetStream is used if a namespace of the file has history, presence or channel_ttl";

#[cfg(test)]
mod tests {
    use engine::rates::{Bucket, Rate};

    use super::*;

    fn fresh() -> (Changeable, Rules) {
        let written = json!({"channel": {"namespaces": [{"name": "chat", "presence": true}]}});
        let bounds = Bounds::Stream { history_size: 1_000, kept_ms: 2_592_000_000 };
        let mut changeable = Changeable::new(&written, bounds);
        let rules = changeable
            .change(br#"{"namespace":"chat","options":{}}"#, &Rules::default())
            .expect("nothing changes");
        (changeable, rules)
    }

    #[test]
    fn options_change_and_come_back() {
        let (mut changeable, rules) = fresh();
        assert!(rules.channels.namespaces["chat"].presence);
        let change = br#"{"namespace":"chat","options":{"presence":false,"history_size":5,"history_ttl":"1m"}}"#;
        let rules = changeable.change(change, &rules).unwrap();
        let chat = &rules.channels.namespaces["chat"];
        assert!(!chat.presence && chat.history_size == 5 && chat.history_ttl_ms == 60_000);
        let change = br#"{"namespace":"","options":{"allow_subscribe_for_client":true}}"#;
        let rules = changeable.change(change, &rules).unwrap();
        assert!(rules.channels.without_namespace.subscribe.client);
        assert_eq!(rules.channels.namespaces["chat"].history_size, 5, "earlier changes hold");
        let change = br#"{"namespace":"chat","options":{"presence":null}}"#;
        assert!(changeable.change(change, &rules).unwrap().channels.namespaces["chat"].presence);
        // Another node that applies these changes gets the same rules.
        let (mut other, mut others) = fresh();
        for (_, change) in changeable.changes() {
            others = other.change(&change, &others).unwrap();
        }
        let kept = |from: &Changeable| from.changes();
        assert_eq!(kept(&other), kept(&changeable));
        assert!(others.channels.without_namespace.subscribe.client);
    }

    #[test]
    fn a_mistake_changes_nothing_and_is_named() {
        let (mut changeable, rules) = fresh();
        for (change, expected) in [
            (&br#"{"namespace":"chat","options":{"history_sise":5}}"#[..], "history_size"),
            (br#"{"namespace":"chat","options":{"history_size":5}}"#, "history_ttl"),
            (br#"{"namespace":"chat","options":{"presence":"yes"}}"#, "true or false"),
            (br#"{"namespace":"chat","options":{"name":"other"}}"#, "cannot be changed"),
            (br#"{"namespace":"nope","options":{"presence":true}}"#, "nope"),
            (br#"{"namespace":"chat","options":{"channel_ttl":"721h"}}"#, "channel_ttl is at most"),
            (br#"{"namespace":"chat","options":{"history_size":1001,"history_ttl":"1m"}}"#, "at most 1000"),
            (
                br#"{"namespace":"chat","options":{"history_size":5,"history_ttl":"30h","history_meta_ttl":"721h"}}"#,
                "at most 2592000000ms",
            ),
            (br#"{"options":{}}"#, "namespace"),
            (b"[]", "expected"),
        ] {
            let error = changeable.change(change, &rules).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(changeable.changes.namespaces["chat"], Map::new());
    }

    #[test]
    fn limits_change_and_come_back() {
        let written = json!({"limits": {"connection": {"publishes": "7/s"}}});
        let mut changeable = Changeable::new(&written, Bounds::None);
        let change = |changeable: &mut Changeable, change: Value| {
            changeable.change(change.to_string().as_bytes(), &Rules::default())
        };
        let amount = |rules: &Rules, bucket| rules.rates.of(bucket).map(Rate::amount);
        let rules = change(&mut changeable, json!({"limits": {"user.publishes": "3/m"}})).unwrap();
        assert_eq!(amount(&rules, Bucket::ConnectionPublishes), Some(7));
        assert_eq!(amount(&rules, Bucket::UserPublishes), Some(3));
        let nested = json!({"limits": {"connection": {"publishes": "off", "commands": "9/s"}}});
        let rules = change(&mut changeable, nested).unwrap();
        assert_eq!(amount(&rules, Bucket::ConnectionPublishes), None);
        assert_eq!(amount(&rules, Bucket::ConnectionCommands), Some(9));
        let of_namespace = json!({"namespace": "", "options": {"presence": true}});
        let rules = change(&mut changeable, of_namespace).unwrap();
        assert_eq!(amount(&rules, Bucket::UserPublishes), Some(3), "earlier changes hold");
        // Another node that applies these changes gets the same rules.
        let mut other = Changeable::new(&written, Bounds::None);
        let mut others = Rules::default();
        for (_, change) in changeable.changes() {
            others = other.change(&change, &others).unwrap();
        }
        assert_eq!(amount(&others, Bucket::ConnectionCommands), Some(9));
        assert!(others.channels.without_namespace.presence);
        let rules = change(&mut changeable, json!({"limits": {"connection.publishes": null}}));
        assert_eq!(amount(&rules.unwrap(), Bucket::ConnectionPublishes), Some(7));
        for (limits, expected) in [
            (json!({"connection.publish": "1/s"}), "publishes"),
            (json!({"connection.publishes": "1"}), "expected a rate"),
            (json!({"connection.publishes.x": "1/s"}), "no limit"),
            (json!({"connection": "1/s"}), "connection"),
        ] {
            let error = change(&mut changeable, json!({"limits": limits})).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(changeable.changes().len(), 2);
    }

    #[test]
    fn only_backends_of_the_file_can_be_asked() {
        let written = json!({"channel": {"without_namespace": {}}});
        let name = "orders".to_owned();
        let change = br#"{"namespace":"","options":{"publish_proxy_enabled":true,"publish_proxy_name":"orders"}}"#;
        let mut changeable = Changeable::new(&written, Bounds::None);
        let error = changeable.change(change, &Rules::default()).unwrap_err();
        assert!(error.contains("publish_proxy_enabled"), "{error}");
        changeable.backends.insert(BackendKey::Named(name));
        let rules = changeable.change(change, &Rules::default()).unwrap();
        assert_eq!(rules.channels.without_namespace.publish_proxy.as_deref(), Some("orders"));
    }

    #[test]
    fn nothing_changes_where_nothing_is_kept() {
        let mut changeable = Changeable::new(&json!({}), Bounds::NothingKept);
        let change = br#"{"namespace":"","options":{"allow_subscribe_for_client":true}}"#;
        let error = changeable.change(change, &Rules::default()).unwrap_err();
        assert!(error.contains("JetStream"), "{error}");
    }
}
