//! Resolves the options of channels and namespaces into the rules of the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::channel::SYSTEM;
use engine::rules::{
    ChannelRules, DataFormat, Namespace, Permission, RecoveryMode, RolePermissions,
    SubscribePermission,
};

use super::coerce::shown;
use super::mistakes::KeyedMistakes;
use super::options::channel::{ChannelSection, NamedNamespaceSection, NamespaceSection};
use super::schema::Setting;
use crate::expression::compile;

pub(super) fn resolve_channels(
    channel: &ChannelSection,
    mistakes: &mut KeyedMistakes,
) -> ChannelRules {
    let without_namespace = resolve_namespace(channel, &channel.without_namespace, mistakes);
    let mut namespaces = BTreeMap::new();
    for NamedNamespaceSection { name, options } in &channel.namespaces {
        let is_name = name.len() >= 2
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name {
            let text = match name.as_str() {
                "" => {
                    "is required: names of channels in a namespace begin with its name".to_owned()
                }
                name => format!(
                    "expected at least two letters, digits, '-', '_' or '.', not {}",
                    shown(&name.into())
                ),
            };
            mistakes.push(name.fault(text));
            continue;
        }
        if SYSTEM.strip_suffix(':') == Some(name) {
            let name_text = &**name;
            let text = format!(
                "{name_text:?} is reserved for channels of the server: choose another name"
            );
            mistakes.push(name.fault(text));
            continue;
        }
        let namespace = resolve_namespace(channel, options, mistakes);
        if namespaces.insert(name.to_string(), namespace).is_some() {
            let text = format!("{:?} is used twice: rename one of the namespaces", **name);
            mistakes.push(name.fault(text));
        }
    }
    if channel.user_separator.is_empty() {
        mistakes.push(channel.user_separator.fault("must not be empty"));
    }
    ChannelRules {
        max_length: channel.max_length.count(),
        private_prefix: channel.private_prefix.clone(),
        namespace_boundary: channel.namespace_boundary.clone(),
        user_boundary: channel.user_boundary.clone(),
        user_separator: channel.user_separator.clone(),
        without_namespace,
        namespaces,
        ..ChannelRules::default()
    }
}

fn resolve_namespace(
    channel: &ChannelSection,
    options: &NamespaceSection,
    mistakes: &mut KeyedMistakes,
) -> Namespace {
    let channel_regex = options.channel_regex.some().and_then(|pattern| {
        compile(&pattern).map_err(|fault| mistakes.push(options.channel_regex.fault(fault))).ok()
    });
    let namespace = Namespace {
        is_system: false,
        subscribe_proxy: name_if(&options.subscribe_proxy_enabled, &options.subscribe_proxy_name),
        publish_proxy: name_if(&options.publish_proxy_enabled, &options.publish_proxy_name),
        sub_refresh_proxy: name_if(
            &options.sub_refresh_proxy_enabled,
            &options.sub_refresh_proxy_name,
        ),
        presence: *options.presence,
        join_leave: *options.join_leave,
        force_push_join_leave: *options.force_push_join_leave,
        history_size: *options.history_size,
        history_ttl_ms: options.history_ttl.ms(),
        history_meta_ttl_ms: match options.history_meta_ttl.ms() {
            0 => channel.history_meta_ttl.ms(),
            ms => ms,
        },
        channel_ttl_ms: options.channel_ttl.ms(),
        force_positioning: *options.force_positioning,
        allow_positioning: *options.allow_positioning,
        force_recovery: *options.force_recovery,
        allow_recovery: *options.allow_recovery,
        recovery_mode: *options.force_recovery_mode,
        auto_cache_recover: *options.auto_cache_recover,
        subscribe: SubscribePermission {
            client: *options.allow_subscribe_for_client,
            anonymous: *options.allow_subscribe_for_anonymous,
        },
        publish: Permission {
            client: *options.allow_publish_for_client,
            subscriber: *options.allow_publish_for_subscriber,
            anonymous: *options.allow_publish_for_anonymous,
        },
        presence_read: Permission {
            client: *options.allow_presence_for_client,
            subscriber: *options.allow_presence_for_subscriber,
            anonymous: *options.allow_presence_for_anonymous,
        },
        history_read: Permission {
            client: *options.allow_history_for_client,
            subscriber: *options.allow_history_for_subscriber,
            anonymous: *options.allow_history_for_anonymous,
        },
        roles: RolePermissions {
            subscribe: options.allow_subscribe_for_roles.clone(),
            publish: options.allow_publish_for_roles.clone(),
            presence: options.allow_presence_for_roles.clone(),
            history: options.allow_history_for_roles.clone(),
        },
        allow_user_limited_channels: *options.allow_user_limited_channels,
        channel_regex,
        publication_data_format: match *options.publication_data_format {
            // The empty text.
            DataFormat::NonEmpty => *channel.publication_data_format,
            format => format,
        },
    };
    check_namespace(&namespace, options, mistakes);
    namespace
}

/// The name of a proxy that is switched on.
pub(super) fn name_if(enabled: &Setting<bool>, name: &Setting<String>) -> Option<Arc<str>> {
    enabled.then(|| Arc::from(name.as_str()))
}

/// Checks that options of a namespace which need each other are set together.
fn check_namespace(
    namespace: &Namespace,
    options: &NamespaceSection,
    mistakes: &mut KeyedMistakes,
) {
    let is_cache = namespace.force_recovery && namespace.recovery_mode == RecoveryMode::Cache;
    let recovers = namespace.force_recovery || namespace.allow_recovery;
    let positions = namespace.force_positioning || namespace.allow_positioning;
    if namespace.history_size > 0 && namespace.history_ttl_ms == 0 {
        mistakes.push(options.history_ttl.fault("is required when history_size is set"));
    }
    if namespace.history_ttl_ms > 0 && namespace.history_size == 0 {
        mistakes.push(options.history_size.fault("is required when history_ttl is set"));
    }
    if namespace.history_meta_ttl_ms < namespace.history_ttl_ms {
        mistakes.push(options.history_meta_ttl.fault("must not be less than history_ttl"));
    }
    if recovers && !namespace.has_history() {
        let text = "recovery needs history_size and history_ttl";
        mistakes.push(options.force_recovery.fault(text));
    }
    if positions && !namespace.has_history() {
        let text = "positioning needs history_size and history_ttl";
        mistakes.push(options.force_positioning.fault(text));
    }
    if namespace.auto_cache_recover && !is_cache {
        let text = "needs force_recovery and force_recovery_mode = \"cache\"";
        mistakes.push(options.auto_cache_recover.fault(text));
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
