//! Options of namespaces that change while nodes run, as they are published in `sys:config`.
//!
//! Invariant: what holds after some changes is what would hold had the options been written in the file; a change that
//! makes a mistake changes nothing.

use std::collections::BTreeMap;

use engine::rules::{Namespace, Rules};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::check::check_keys;
use super::engine::NO_TTL_WITH_NATS;
use super::namespaces::resolve_channels;
use super::resolve::Values;
use super::source::Found;

/// What was written about channels, and what was changed since.
#[derive(Clone, Debug)]
pub struct Changeable {
    /// The part of the configuration below `channel`.
    written: Value,
    /// Options by namespace; an empty name for channels without one.
    changes: BTreeMap<String, Map<String, Value>>,
    /// Whether the broker can end channels.
    can_end_channels: bool,
}

/// A change: `{"namespace":"chat","options":{"history_size":100,"history_ttl":"1h"}}`. An option that is null is what the file
/// says again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    namespace: String,
    options: Map<String, Value>,
}

impl Changeable {
    pub(super) fn new(tree: &Value, can_end_channels: bool) -> Changeable {
        let written = tree.get("channel").cloned().unwrap_or_else(|| json!({}));
        Changeable { written, changes: BTreeMap::new(), can_end_channels }
    }

    /// As if nothing had been changed.
    pub fn reset(&mut self) {
        self.changes.clear();
    }

    /// Everything that was changed, by namespace, each as one change.
    pub fn changes(&self) -> Vec<(String, Vec<u8>)> {
        let changes = self.changes.iter().filter(|(_, options)| !options.is_empty());
        let change = |(namespace, options): (&String, &Map<String, Value>)| {
            let change = json!({ "namespace": namespace, "options": options });
            (namespace.clone(), change.to_string().into_bytes())
        };
        changes.map(change).collect()
    }

    /// Applies a change to the rules that hold.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub fn change(&mut self, change: &[u8], rules: &Rules) -> Result<Rules, String> {
        let Change { namespace, options } = serde_json::from_slice(change).map_err(|error| {
            format!("expected {{\"namespace\":NAME,\"options\":{{…}}}}: {error}")
        })?;
        let mut changes = self.changes.clone();
        let of_namespace = changes.entry(namespace).or_default();
        if options.contains_key("name") {
            return Err("a namespace keeps its name".to_owned());
        }
        for (name, value) in options {
            match value {
                Value::Null => drop(of_namespace.remove(&name)),
                value => drop(of_namespace.insert(name, value)),
            }
        }
        let changed = self.rules(&changes, rules)?;
        self.changes = changes;
        Ok(changed)
    }

    /// The rules with all changes.
    fn rules(
        &self,
        changes: &BTreeMap<String, Map<String, Value>>,
        rules: &Rules,
    ) -> Result<Rules, String> {
        let mut channel = self.written.clone();
        for (name, options) in changes {
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
        let mut found = Found::of(json!({ "channel": channel }));
        check_keys(&mut found, false);
        let mut mistakes = Vec::new();
        let mut channels =
            resolve_channels(&Values { found: &found, overrides: &[] }, &mut mistakes);
        for (place, text) in mistakes {
            found.mistake(place, text);
        }
        let (_, mistakes) = found.judge();
        if !mistakes.is_empty() {
            let texts: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            return Err(texts.join("; "));
        }
        let has_end = |namespace: &Namespace| namespace.channel_ttl_ms > 0;
        let any_has_end = channels.namespaces.values().any(has_end);
        if !self.can_end_channels && (any_has_end || has_end(&channels.without_namespace)) {
            return Err(NO_TTL_WITH_NATS.to_owned());
        }
        // Those that no file names, such as the demo's.
        for (name, namespace) in &rules.channels.namespaces {
            channels.namespaces.entry(name.clone()).or_insert_with(|| namespace.clone());
        }
        Ok(Rules { channels, ..rules.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (Changeable, Rules) {
        let written = json!({"channel": {"namespaces": [{"name": "chat", "presence": true}]}});
        let mut changeable = Changeable::new(&written, false);
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
        // Another node comes to the same by what is changed now.
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
            (br#"{"namespace":"chat","options":{"name":"other"}}"#, "keeps its name"),
            (br#"{"namespace":"nope","options":{"presence":true}}"#, "nope"),
            (br#"{"namespace":"chat","options":{"channel_ttl":"1m"}}"#, "NATS"),
            (br#"{"options":{}}"#, "namespace"),
            (b"[]", "expected"),
        ] {
            let error = changeable.change(change, &rules).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(changeable.changes["chat"], Map::new());
    }
}
