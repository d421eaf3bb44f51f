//! Options that contradict each other, have no effect, or open private channels to other users.
//!
//! Invariant: a combination that opens private channels is a mistake. One that has no effect is a
//! warning.

use engine::personal::breaks_escapes;
use engine::rules::{ChannelRules, ClientRules, Namespace, RecoveryMode};
use serde_json::Value;

use super::mistakes::{KeyedMistakes, KeyedWarning, WarningKind};
use super::table::{NAMESPACES, WITHOUT_NAMESPACE};
use super::values::Values;

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
pub(super) fn check_names(
    values: &Values<'_>,
    client: &ClientRules,
    channels: &ChannelRules,
    mistakes: &mut KeyedMistakes,
) {
    let mut refuse = |key: &str, text: String| mistakes.push((key.to_owned(), text));
    let marks = [
        ("channel.private_prefix", &channels.private_prefix),
        ("channel.namespace_boundary", &channels.namespace_boundary),
        ("channel.user_boundary", &channels.user_boundary),
        ("channel.user_separator", &channels.user_separator),
    ];
    for (index, (key, mark)) in marks.iter().enumerate() {
        let same = marks[..index].iter().find(|(_, other)| other == mark && !mark.is_empty());
        if let Some((other, _)) = same {
            refuse(
                key,
                format!(
                    "{mark:?} is also {other}, which makes channel names ambiguous: choose another one"
                ),
            );
        }
    }
    for (key, mark) in marks.iter().filter(|(_, mark)| mark.chars().any(char::is_control)) {
        refuse(key, format!("{mark:?} has a control character, which no channel name may have"));
    }
    for (path, name) in names(values) {
        let key = format!("{path}.name");
        let boundary = &channels.namespace_boundary;
        if !boundary.is_empty() && name.contains(&**boundary) {
            let text = format!(
                "{name:?} contains channel.namespace_boundary, so that no channel can be in it: rename it"
            );
            refuse(&key, text);
        }
        if !channels.private_prefix.is_empty() && name.starts_with(&*channels.private_prefix) {
            let text = format!(
                "{name:?} begins with channel.private_prefix, so that no channel can be in it: rename it"
            );
            refuse(&key, text);
        }
    }
    let Some(personal) = &client.personal_channel else { return };
    for (key, mark) in marks[1..].iter().filter(|(_, mark)| breaks_escapes(mark)) {
        let text = format!(
            "{mark:?} contains a character of percent-encoding (%2C), which encodes user ids in the names of \
             personal channels, so that other users could read them: choose one without %, digits and the \
             letters A to F"
        );
        refuse(key, text);
    }
    if channels.user_boundary.is_empty() {
        let text =
            "must not be empty with personal channels, because it precedes the user in their names";
        refuse("channel.user_boundary", text.to_owned());
    } else if let Some(text) = unsafe_personal_channel(client, channels) {
        let path = match &*personal.namespace {
            "" => WITHOUT_NAMESPACE.to_owned(),
            wanted => {
                let named = names(values).find(|(_, name)| *name == wanted);
                named.map_or(wanted.to_owned(), |(path, _)| path)
            }
        };
        refuse(&format!("{path}.allow_user_limited_channels"), text.to_owned());
    }
}

/// Path and name of each namespace that was written.
fn names<'v>(values: &'v Values<'_>) -> impl Iterator<Item = (String, &'v str)> {
    let list = values.raw.value(NAMESPACES).and_then(Value::as_array);
    list.into_iter().flatten().enumerate().filter_map(|(index, namespace)| {
        Some((format!("{NAMESPACES}[{index}]"), namespace.get("name")?.as_str()?))
    })
}

/// Options of namespaces that have no effect, or a larger one than expected.
pub(super) fn useless_options(
    values: &Values<'_>,
    client: &ClientRules,
    channels: &ChannelRules,
) -> Vec<KeyedWarning> {
    let of_list =
        names(values).filter_map(|(path, name)| Some((path, channels.namespaces.get(name)?)));
    let all =
        [(WITHOUT_NAMESPACE.to_owned(), &channels.without_namespace)].into_iter().chain(of_list);
    let mut dangers = Vec::new();
    for (path, namespace) in all {
        let mut warn = |kind, name: &str, text: String| {
            dangers.push((kind, format!("{path}.{name}"), text));
        };
        for (name, text) in without_effect(namespace) {
            warn(WarningKind::Contradiction, name, text.to_owned());
        }
        let anonymous_come = client.insecure || client.allow_anonymous_connect_without_token;
        let publish = namespace.publish;
        if anonymous_come && publish.anonymous && (publish.client || publish.subscriber) {
            let text = "everyone who can reach the server may publish here anonymously";
            warn(WarningKind::Insecure, "allow_publish_for_anonymous", text.to_owned());
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
            warn(WarningKind::Contradiction, "history_size", text);
        }
        if let Some(regex) = &namespace.channel_regex
            && !regex.as_str().contains(['^', '$'])
            && !regex.as_str().contains("\\A")
        {
            let text = "matches any part of a name, so that longer names are allowed too: begin it with ^ and end it with $";
            warn(WarningKind::Exposed, "channel_regex", text.to_owned());
        }
    }
    dangers
}

/// Options without effect, because another option is missing.
fn without_effect(namespace: &Namespace) -> Vec<(&'static str, &'static str)> {
    let one_of = |permission: engine::rules::Permission| permission.client || permission.subscriber;
    let has_mode = namespace.force_recovery || namespace.allow_recovery;
    [
        (
            namespace.force_push_join_leave && !namespace.join_leave,
            "force_push_join_leave",
            "has no effect without join_leave",
        ),
        (
            !namespace.presence && one_of(namespace.presence_read),
            "presence",
            "is false, so that clients that may read presence get error 108 (not available)",
        ),
        (
            !namespace.has_history() && one_of(namespace.history_read),
            "history_size",
            "is 0, so that clients that may read history get error 108 (not available)",
        ),
        (
            namespace.recovery_mode == RecoveryMode::Cache && !has_mode,
            "force_recovery_mode",
            "has no effect without force_recovery or allow_recovery",
        ),
        (
            namespace.subscribe.anonymous && !namespace.subscribe.client,
            "allow_subscribe_for_anonymous",
            "has no effect without allow_subscribe_for_client",
        ),
        (
            namespace.publish.anonymous && !one_of(namespace.publish),
            "allow_publish_for_anonymous",
            "has no effect without allow_publish_for_client or allow_publish_for_subscriber",
        ),
    ]
    .into_iter()
    .filter(|(holds, ..)| *holds)
    .map(|(_, name, text)| (name, text))
    .collect()
}
