//! The channel options of all nodes. They should be equal, and differ while a change of the
//! configuration is rolled out.
//!
//! Each node sends its options to the others with its lease. A publication without history on one
//! node, into a channel with history on another, would be missing for clients that recover there,
//! without a detectable gap. So a node retains what it publishes as the nodes with history do. This
//! needs no look at the stream for each publication, and costs nothing while all nodes are
//! configured alike.
//!
//! Invariant: while a node with a valid lease retains a namespace's publications, all nodes do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::broker::{BrokerRequest, PublicationsRequest, PublishOptions};
use engine::channel::namespace_name;
use engine::rules::{ChannelRules, Namespace, RolePermissions, Rules};
use serde_json::{Value, json};

/// The channel options of all nodes; see the module.
#[derive(Default)]
pub(crate) struct ChannelOptions {
    /// Whether another node retains what this one would not.
    has_adopted: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Option<Arc<Rules>>,
    own: EncodedOptions,
    others: HashMap<String, Other>,
    adopted: HashMap<String, Retention>,
}

/// A node's options as sent to other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EncodedOptions {
    /// Digest of all options.
    pub(crate) digest: String,
    /// Options by namespace; the empty name stands for channels without one.
    pub(crate) text: String,
}

/// Another node with a valid lease.
pub(crate) struct OtherNode<'n> {
    pub(crate) id: &'n str,
    pub(crate) name: &'n str,
    /// Its [`EncodedOptions::text`]; empty if its digest equals this node's, or it sends none.
    pub(crate) text: &'n str,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Other {
    text: String,
    options: BTreeMap<String, Options>,
    /// Consecutive checks with this difference.
    looks: u32,
}

/// Options of one namespace as sent between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Options {
    digest: String,
    retention: Retention,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Retention {
    size: u32,
    ttl_ms: u64,
    meta_ttl_ms: u64,
}

/// Consecutive checks after which a difference is reported: a shorter one is a change that is being
/// rolled out.
const LOOKS_MIN: u32 = 2;

impl ChannelOptions {
    /// Replaces this node's options.
    pub(crate) fn set_rules(&self, rules: &Arc<Rules>) {
        let mut state = self.state();
        let options = options(&rules.channels);
        let text: BTreeMap<&String, Value> = options.iter().map(|it| (it.0, write(it.1))).collect();
        let text = json!(text).to_string();
        state.own = EncodedOptions { digest: digest(&text), text };
        state.rules = Some(rules.clone());
        self.adopt_all(&mut state);
    }

    /// Returns this node's options to send; empty before the node has options.
    pub(crate) fn encoded(&self) -> EncodedOptions {
        self.state().own.clone()
    }

    /// Replaces the set of other nodes with valid leases. Returns new warnings for the operator.
    pub(crate) fn note<'n>(&self, nodes: impl Iterator<Item = OtherNode<'n>>) -> Vec<String> {
        let mut state = self.state();
        let Some(own) = state.rules.as_ref().map(|rules| options(&rules.channels)) else {
            return Vec::new();
        };
        let (mut others, mut warnings) = (HashMap::new(), Vec::new());
        for node in nodes.filter(|node| !node.text.is_empty()) {
            let known = state.others.remove(node.id).filter(|known| known.text == node.text);
            let mut other = known.unwrap_or_else(|| Other {
                text: node.text.to_owned(),
                options: read(node.text),
                looks: 0,
            });
            other.looks = other.looks.saturating_add(1);
            let differing = differing(&own, &other.options);
            if other.looks >= LOOKS_MIN && !differing.is_empty() {
                warnings.push(warning(node.name, &differing));
            }
            others.insert(node.id.to_owned(), other);
        }
        state.others = others;
        self.adopt_all(&mut state);
        warnings
    }

    /// Gives a publication the retention of another node that would retain it.
    pub(crate) fn adopt(&self, request: &mut BrokerRequest) {
        if !self.has_adopted.load(Ordering::Relaxed) {
            return;
        }
        let BrokerRequest::Publications(PublicationsRequest::Publish { channel, options, .. }) =
            request
        else {
            return;
        };
        let state = self.state();
        let Some(rules) = state.rules.as_ref().filter(|_| options.history_size == 0) else {
            return;
        };
        let name = namespace_name(&rules.channels, channel);
        if let Some(kept) = name.and_then(|name| state.adopted.get(name)) {
            let (history_size, history_ttl_ms) = (kept.size, kept.ttl_ms);
            let history_meta_ttl_ms = kept.meta_ttl_ms;
            let key = std::mem::take(options);
            *options = PublishOptions { history_size, history_ttl_ms, history_meta_ttl_ms, ..key };
        }
    }

    fn adopt_all(&self, state: &mut State) {
        let own = state.rules.as_ref().map(|rules| options(&rules.channels)).unwrap_or_default();
        let mut adopted: HashMap<String, Retention> = HashMap::new();
        for (name, options) in state.others.values().flat_map(|other| &other.options) {
            let kept = options.retention;
            let is_kept_here = own.get(name).is_none_or(|own| own.retention.size > 0);
            if kept.size == 0 || is_kept_here {
                continue;
            }
            let most = adopted.entry(name.clone()).or_default();
            most.size = most.size.max(kept.size);
            most.ttl_ms = most.ttl_ms.max(kept.ttl_ms);
            most.meta_ttl_ms = most.meta_ttl_ms.max(kept.meta_ttl_ms);
        }
        self.has_adopted.store(!adopted.is_empty(), Ordering::Relaxed);
        state.adopted = adopted;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Namespaces that retain publications under one of the rules only.
pub(crate) fn switched_retention(earlier: &Rules, later: &Rules) -> HashSet<String> {
    let retained = |rules: &Rules| -> HashSet<String> {
        let options = options(&rules.channels).into_iter();
        options.filter(|(_, it)| it.retention.size > 0).map(|(name, _)| name).collect()
    };
    retained(earlier).symmetric_difference(&retained(later)).cloned().collect()
}

fn options(rules: &ChannelRules) -> BTreeMap<String, Options> {
    let named = rules.namespaces.iter().map(|(name, namespace)| (name.clone(), namespace));
    let all = named.chain([(String::new(), &rules.without_namespace)]);
    all.map(|(name, namespace)| (name, of_namespace(namespace))).collect()
}

fn of_namespace(namespace: &Namespace) -> Options {
    let is_kept = namespace.history_size > 0 && namespace.history_ttl_ms > 0;
    let size = if is_kept { namespace.history_size } else { 0 };
    let (ttl_ms, meta_ttl_ms) = (namespace.history_ttl_ms, namespace.history_meta_ttl_ms);
    let retention = Retention { size, ttl_ms, meta_ttl_ms };
    let mut text = format!("{size} {ttl_ms} {meta_ttl_ms} {}", namespace.channel_ttl_ms);
    let flags = [
        namespace.presence,
        namespace.join_leave,
        namespace.force_push_join_leave,
        namespace.force_positioning,
        namespace.allow_positioning,
        namespace.force_recovery,
        namespace.allow_recovery,
        namespace.auto_cache_recover,
        namespace.allow_user_limited_channels,
        namespace.subscribe.client,
        namespace.subscribe.anonymous,
    ];
    flags.iter().for_each(|flag| text.push_str(if *flag { " 1" } else { " 0" }));
    for permission in [namespace.publish, namespace.presence_read, namespace.history_read] {
        let (client, subscriber) = (permission.client, permission.subscriber);
        // Writing to a string does not fail.
        let _written = write!(text, " {client} {subscriber} {}", permission.anonymous);
    }
    let pattern = namespace.channel_regex.as_ref().map(|regex| regex.as_str());
    let (mode, format) = (namespace.recovery_mode, namespace.publication_data_format);
    let _written = write!(text, " {mode:?} {format:?} {pattern:?}");
    // Only where there are some: versions that do not know roles have the same digest otherwise.
    if namespace.roles != RolePermissions::default() {
        let _written = write!(text, " {:?}", namespace.roles);
    }
    Options { digest: digest(&text), retention }
}

fn write(options: &Options) -> Value {
    let Retention { size, ttl_ms, meta_ttl_ms } = options.retention;
    json!([options.digest, size, ttl_ms, meta_ttl_ms])
}

/// Parses options. Entries that are not understood are skipped: they are of another version.
fn read(text: &str) -> BTreeMap<String, Options> {
    let Ok(Value::Object(all)) = serde_json::from_str(text) else { return BTreeMap::new() };
    let read_one = |value: &Value| {
        let size = u32::try_from(value.get(1)?.as_u64()?).ok()?;
        let (ttl_ms, meta_ttl_ms) = (value.get(2)?.as_u64()?, value.get(3)?.as_u64()?);
        let retention = Retention { size, ttl_ms, meta_ttl_ms };
        Some(Options { digest: value.get(0)?.as_str()?.to_owned(), retention })
    };
    all.into_iter().filter_map(|(name, value)| Some((name, read_one(&value)?))).collect()
}

/// Namespaces whose options differ, or that exist on one node only.
fn differing<'o>(
    own: &'o BTreeMap<String, Options>,
    other: &'o BTreeMap<String, Options>,
) -> Vec<&'o String> {
    let changed = own.iter().filter(|(name, options)| other.get(*name) != Some(options));
    let added = other.iter().filter(|(name, _)| !own.contains_key(*name));
    changed.chain(added).map(|(name, _)| name).collect()
}

fn warning(node: &str, differing: &[&String]) -> String {
    let (first, more) = (differing[0], differing.len() - 1);
    let of = match first.is_empty() {
        true => "channels without a namespace".to_owned(),
        false => format!("namespace {first:?}"),
    };
    let more = if more > 0 { format!(" and {more} others") } else { String::new() };
    format!(
        "node {node:?} has other options for {of}{more} than this node: clients are treated differently depending on where \
         they connect; configure all nodes alike (channel)"
    )
}

/// FNV-1a, because it is equal on every node and in every version.
fn digest(text: &str) -> String {
    let hash = text.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use engine::broker::RequestId;
    use wire::protocol::Publication;

    use super::*;

    fn rules(history_size: u32) -> Arc<Rules> {
        let namespace = Namespace {
            history_size,
            history_ttl_ms: 1_000,
            history_meta_ttl_ms: 9_000,
            ..Namespace::default()
        };
        let mut rules = Rules::default();
        rules.channels.namespaces.insert("chat".to_owned(), namespace);
        Arc::new(rules)
    }

    fn with(history_size: u32) -> ChannelOptions {
        let options = ChannelOptions::default();
        options.set_rules(&rules(history_size));
        options
    }

    fn look(at: &ChannelOptions, other: Option<&ChannelOptions>) -> Vec<String> {
        let encoded = other.map(ChannelOptions::encoded);
        let node =
            encoded.as_ref().map(|encoded| OtherNode { id: "2", name: "two", text: &encoded.text });
        at.note(node.into_iter())
    }

    fn kept(options: &ChannelOptions, channel: &str) -> u32 {
        let publish = PublicationsRequest::Publish {
            id: RequestId::new(1),
            channel: channel.into(),
            publication: Publication::default(),
            options: PublishOptions::default(),
        };
        let mut request = publish.into();
        options.adopt(&mut request);
        match request {
            BrokerRequest::Publications(PublicationsRequest::Publish { options, .. }) => {
                options.history_size
            }
            other => panic!("not a publish request any more: {other:?}"),
        }
    }

    #[test]
    fn the_retention_of_another_node_is_adopted() {
        let (off, on) = (with(0), with(10));
        assert_ne!(off.encoded().digest, on.encoded().digest);
        assert_eq!(kept(&off, "chat:a"), 0, "nobody is known");
        assert_eq!(look(&off, Some(&on)), [""; 0], "it may be going round");
        assert_eq!([kept(&off, "chat:a"), kept(&off, "$chat:a"), kept(&off, "a")], [10, 10, 0]);
        let warnings = look(&off, Some(&on));
        assert!(
            warnings[0].contains("\"two\"") && warnings[0].contains("\"chat\""),
            "{warnings:?}"
        );
        assert_eq!(look(&on, Some(&off)).len() + kept(&on, "chat:a") as usize, 0);
        // The other node has ended or has the same options now.
        assert_eq!(look(&off, None), [""; 0]);
        assert_eq!(kept(&off, "chat:a"), 0);
        assert_eq!(look(&off, Some(&on)), [""; 0]);
        off.set_rules(&rules(10));
        assert_eq!(kept(&off, "chat:a"), 0, "the engine says so itself");
        assert_eq!(look(&off, Some(&on)), [""; 0]);
    }

    #[test]
    fn malformed_messages_decode_to_none() {
        let off = with(0);
        for text in ["", "{", "[]", r#"{"chat":["x"]}"#, r#"{"chat":["x",-1,2,3]}"#] {
            off.note([OtherNode { id: "2", name: "two", text }].into_iter());
            assert_eq!(kept(&off, "chat:a"), 0);
        }
    }
}
