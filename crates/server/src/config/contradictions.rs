//! Options that contradict each other, have no effect, or open private channels to other users.
//!
//! Invariant: a combination that opens private channels is a mistake. One that has no effect is a
//! warning.

use engine::personal::breaks_escapes;
use engine::rules::{ChannelRules, ClientRules, Namespace, Permission, RecoveryMode, Rules};

use super::mistakes::{KeyedMistakes, KeyedWarning, WarningKind};
use super::options::channel::{ChannelSection, NamespaceSection};
use super::schema::Setting;

/// Why the personal channels are readable by other users, if they are.
pub(super) fn unsafe_personal_channel(
    client: &ClientRules,
    channels: &ChannelRules,
) -> Option<&'static str> {
    let personal = client.personal_channel.as_ref()?;
    let namespace = match &*personal.namespace {
        "" => &channels.without_namespace,
        name => channels.namespaces.get(name)?,
    };
    // If clients may not subscribe without a token, no other user can read them.
    let is_open = namespace.subscribe.client || !namespace.roles.subscribe.is_empty();
    (is_open && !namespace.allow_user_limited_channels).then_some(
        "must be true in the namespace of personal channels \
         (client.subscribe_to_user_personal_channel): otherwise every user who may subscribe in this \
         namespace can read the personal channels of others",
    )
}

/// Checks that each channel name can be parsed in one way only.
pub(super) fn check_names(channel: &ChannelSection, rules: &Rules, mistakes: &mut KeyedMistakes) {
    let ChannelSection { private_prefix, namespace_boundary, user_boundary, .. } = channel;
    let marks = [private_prefix, namespace_boundary, user_boundary, &channel.user_separator];
    for (index, mark) in marks.iter().enumerate() {
        let is_same = |other: &&&Setting<String>| other.as_str() == mark.as_str();
        let same = marks[..index].iter().find(|other| is_same(other) && !mark.is_empty());
        if let Some(other) = same {
            let text = format!(
                "{:?} is also {}, which makes channel names ambiguous: choose another one",
                ***mark, other.key
            );
            mistakes.push(mark.fault(text));
        }
    }
    for mark in marks.iter().filter(|mark| mark.chars().any(char::is_control)) {
        let text = format!("{:?} has a control character, which no channel name may have", ***mark);
        mistakes.push(mark.fault(text));
    }
    for name in channel.namespaces.iter().map(|namespace| &namespace.name) {
        let text = &**name;
        if !namespace_boundary.is_empty() && text.contains(&***namespace_boundary) {
            let text = format!(
                "{text:?} contains channel.namespace_boundary, so that no channel can be in it: rename it"
            );
            mistakes.push(name.fault(text));
        }
        if !private_prefix.is_empty() && text.starts_with(&***private_prefix) {
            let text = format!(
                "{text:?} begins with channel.private_prefix, so that no channel can be in it: rename it"
            );
            mistakes.push(name.fault(text));
        }
    }
    check_personal_channels(channel, &marks[1..], rules, mistakes);
}

/// Checks that no user can read the personal channels of others.
fn check_personal_channels(
    channel: &ChannelSection,
    marks: &[&Setting<String>],
    rules: &Rules,
    mistakes: &mut KeyedMistakes,
) {
    let Some(personal) = &rules.client.personal_channel else { return };
    for mark in marks.iter().filter(|mark| breaks_escapes(mark)) {
        let text = format!(
            "{:?} contains a character of percent-encoding (%2C), which encodes user ids in the names of \
             personal channels, so that other users could read them: choose one without %, digits and the \
             letters A to F",
            ***mark
        );
        mistakes.push(mark.fault(text));
    }
    if channel.user_boundary.is_empty() {
        let text =
            "must not be empty with personal channels, because it precedes the user in their names";
        mistakes.push(channel.user_boundary.fault(text));
    } else if let Some(text) = unsafe_personal_channel(&rules.client, &rules.channels) {
        let named = channel.namespaces.iter().find(|one| *one.name == personal.namespace);
        let options = named.map_or(&channel.without_namespace, |named| &named.options);
        mistakes.push(options.allow_user_limited_channels.fault(text));
    }
}

/// Options of namespaces that have no effect, or a larger one than expected.
pub(super) fn useless_options(channel: &ChannelSection, rules: &Rules) -> Vec<KeyedWarning> {
    let Rules { client, channels, .. } = rules;
    let named = channel
        .namespaces
        .iter()
        .filter_map(|named| Some((&named.options, channels.namespaces.get(named.name.as_str())?)));
    let without = (&channel.without_namespace, &channels.without_namespace);
    let mut dangers = Vec::new();
    for (options, namespace) in [without].into_iter().chain(named) {
        let mut warn = |kind, (key, text)| dangers.push((kind, key, text));
        for fault in without_effect(options, namespace) {
            warn(WarningKind::Contradiction, fault);
        }
        let anonymous_come = client.insecure || client.allow_anonymous_connect_without_token;
        if anonymous_come && namespace.publish.anonymous && is_for_clients(namespace.publish) {
            let text = "everyone who can reach the server may publish here anonymously";
            warn(WarningKind::Insecure, options.allow_publish_for_anonymous.fault(text));
        }
        let recovers = namespace.force_recovery || namespace.allow_recovery;
        let most = client.recovery_max_publication_limit;
        if recovers
            && namespace.recovery_mode == RecoveryMode::Stream
            && namespace.history_size > most
        {
            let text = format!(
                "is {}, but a client recovers at most {most} publications (client.recovery_max_publication_limit)",
                namespace.history_size
            );
            warn(WarningKind::Contradiction, options.history_size.fault(text));
        }
        if let Some(regex) = &namespace.channel_regex
            && !regex.as_str().contains(['^', '$'])
            && !regex.as_str().contains("\\A")
        {
            let text = "matches any part of a name, so that longer names are allowed too: begin it with ^ and end it with $";
            warn(WarningKind::Exposed, options.channel_regex.fault(text));
        }
    }
    dangers
}

fn is_for_clients(permission: Permission) -> bool {
    permission.client || permission.subscriber
}

/// Options without effect, because another option is missing.
fn without_effect(options: &NamespaceSection, namespace: &Namespace) -> KeyedMistakes {
    let mut faults = KeyedMistakes::new();
    if namespace.force_push_join_leave && !namespace.join_leave {
        faults.push(options.force_push_join_leave.fault("has no effect without join_leave"));
    }
    if !namespace.presence && is_for_clients(namespace.presence_read) {
        let text = "is false, so that clients that may read presence get error 108 (not available)";
        faults.push(options.presence.fault(text));
    }
    if !namespace.has_history() && is_for_clients(namespace.history_read) {
        let text = "is 0, so that clients that may read history get error 108 (not available)";
        faults.push(options.history_size.fault(text));
    }
    let has_mode = namespace.force_recovery || namespace.allow_recovery;
    if namespace.recovery_mode == RecoveryMode::Cache && !has_mode {
        let text = "has no effect without force_recovery or allow_recovery";
        faults.push(options.force_recovery_mode.fault(text));
    }
    if namespace.subscribe.anonymous && !namespace.subscribe.client {
        let text = "has no effect without allow_subscribe_for_client";
        faults.push(options.allow_subscribe_for_anonymous.fault(text));
    }
    if namespace.publish.anonymous && !is_for_clients(namespace.publish) {
        let text = "has no effect without allow_publish_for_client or allow_publish_for_subscriber";
        faults.push(options.allow_publish_for_anonymous.fault(text));
    }
    faults
}
