//! Resolves the options of channels and namespaces into the rules of the engine.

use std::collections::BTreeMap;

use engine::channel::SYSTEM;
use engine::rules::{
    ChannelRules, DataFormat, Namespace, Permission, RecoveryMode, RolePermissions,
    SubscribePermission,
};
use serde_json::Value;

use super::coerce::shown;
use super::mistakes::KeyedMistakes;
use super::values::Values;
use crate::expression::compile;

pub(super) fn resolve_channels(values: &Values<'_>, mistakes: &mut KeyedMistakes) -> ChannelRules {
    let without = "channel.without_namespace";
    let without_namespace = resolve_namespace(values, without, mistakes);
    let mut namespaces = BTreeMap::new();
    let list = values.raw.value("channel.namespaces").and_then(Value::as_array);
    for (index, entry) in list.into_iter().flatten().enumerate() {
        let path = format!("channel.namespaces[{index}]");
        if entry.is_null() {
            continue;
        }
        let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        let is_name = name.len() >= 2
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name {
            let text = match name {
                "" => "is needed: names of channels in a namespace begin with its name".to_owned(),
                name => format!(
                    "expected at least two letters, digits, '-', '_' or '.', not {}",
                    shown(&name.into())
                ),
            };
            mistakes.push((format!("{path}.name"), text));
            continue;
        }
        if SYSTEM.strip_suffix(':') == Some(name) {
            let text =
                format!("{name:?} is reserved for channels of the server: choose another name");
            mistakes.push((format!("{path}.name"), text));
            continue;
        }
        let namespace = resolve_namespace(values, &path, mistakes);
        if namespaces.insert(name.to_owned(), namespace).is_some() {
            mistakes.push((
                format!("{path}.name"),
                format!("{name:?} is used twice: rename one of the namespaces"),
            ));
        }
    }
    let user_separator = values.text("channel.user_separator");
    if user_separator.is_empty() {
        mistakes.push(("channel.user_separator".to_owned(), "must not be empty".to_owned()));
    }
    ChannelRules {
        max_length: values.count("channel.max_length"),
        private_prefix: values.text("channel.private_prefix"),
        namespace_boundary: values.text("channel.namespace_boundary"),
        user_boundary: values.text("channel.user_boundary"),
        user_separator,
        without_namespace,
        namespaces,
        ..ChannelRules::default()
    }
}

fn resolve_namespace(values: &Values<'_>, path: &str, mistakes: &mut KeyedMistakes) -> Namespace {
    let at = |name: &str| format!("{path}.{name}");
    let flag = |name: &str| values.flag(&at(name));
    let permission = |what: &str| Permission {
        client: flag(&format!("allow_{what}_for_client")),
        subscriber: flag(&format!("allow_{what}_for_subscriber")),
        anonymous: flag(&format!("allow_{what}_for_anonymous")),
    };
    let channel_regex = values.some_text(&at("channel_regex")).and_then(|pattern| {
        compile(&pattern).map_err(|fault| mistakes.push((at("channel_regex"), fault))).ok()
    });
    let format = values
        .some_text(&at("publication_data_format"))
        .unwrap_or_else(|| values.text("channel.publication_data_format"));
    let meta_ttl_ms = match values.ms(&at("history_meta_ttl")) {
        0 => values.ms("channel.history_meta_ttl"),
        ms => ms,
    };
    let namespace = Namespace {
        is_system: false,
        presence: flag("presence"),
        join_leave: flag("join_leave"),
        force_push_join_leave: flag("force_push_join_leave"),
        history_size: values.u32(&at("history_size")),
        history_ttl_ms: values.ms(&at("history_ttl")),
        history_meta_ttl_ms: meta_ttl_ms,
        channel_ttl_ms: values.ms(&at("channel_ttl")),
        force_positioning: flag("force_positioning"),
        allow_positioning: flag("allow_positioning"),
        force_recovery: flag("force_recovery"),
        allow_recovery: flag("allow_recovery"),
        recovery_mode: match &*values.text(&at("force_recovery_mode")) {
            "cache" => RecoveryMode::Cache,
            _ => RecoveryMode::Stream,
        },
        auto_cache_recover: flag("auto_cache_recover"),
        subscribe: SubscribePermission {
            client: flag("allow_subscribe_for_client"),
            anonymous: flag("allow_subscribe_for_anonymous"),
        },
        publish: permission("publish"),
        presence_read: permission("presence"),
        history_read: permission("history"),
        roles: RolePermissions {
            subscribe: values.list(&at("allow_subscribe_for_roles")),
            publish: values.list(&at("allow_publish_for_roles")),
            presence: values.list(&at("allow_presence_for_roles")),
            history: values.list(&at("allow_history_for_roles")),
        },
        allow_user_limited_channels: flag("allow_user_limited_channels"),
        channel_regex,
        publication_data_format: match &*format {
            "json" => DataFormat::Json,
            "json_object" => DataFormat::JsonObject,
            "binary" => DataFormat::Binary,
            _ => DataFormat::NonEmpty,
        },
    };
    check_namespace(&namespace, path, mistakes);
    namespace
}

/// Checks that options of a namespace which need each other are set together.
fn check_namespace(namespace: &Namespace, path: &str, mistakes: &mut KeyedMistakes) {
    let mut refuse = |name: &str, text: &str| {
        mistakes.push((format!("{path}.{name}"), text.to_owned()));
    };
    if namespace.history_size > 0 && namespace.history_ttl_ms == 0 {
        refuse("history_ttl", "is needed when history_size is set");
    }
    if namespace.history_ttl_ms > 0 && namespace.history_size == 0 {
        refuse("history_size", "is needed when history_ttl is set");
    }
    if namespace.history_meta_ttl_ms < namespace.history_ttl_ms {
        refuse("history_meta_ttl", "must not be less than history_ttl");
    }
    if (namespace.force_recovery || namespace.allow_recovery) && !namespace.has_history() {
        refuse("force_recovery", "recovery needs history_size and history_ttl");
    }
    if (namespace.force_positioning || namespace.allow_positioning) && !namespace.has_history() {
        refuse("force_positioning", "positioning needs history_size and history_ttl");
    }
    if namespace.auto_cache_recover
        && !(namespace.force_recovery && namespace.recovery_mode == RecoveryMode::Cache)
    {
        refuse("auto_cache_recover", "needs force_recovery and force_recovery_mode = \"cache\"");
    }
}

/// The namespace of the demo page. All clients that may connect have all permissions.
pub(super) fn demo_namespace() -> Namespace {
    let everyone = Permission { client: true, subscriber: true, anonymous: true };
    Namespace {
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        history_size: 100,
        history_ttl_ms: 300_000,
        history_meta_ttl_ms: 30 * 24 * 3_600_000,
        force_recovery: true,
        subscribe: SubscribePermission { client: true, anonymous: true },
        publish: everyone,
        presence_read: everyone,
        history_read: everyone,
        ..Namespace::default()
    }
}
