//! Channel names: the namespace of a channel, and what an actor is allowed to do there
//! (docs/permissions.md).
//!
//! Invariant: prefixes, boundaries and permissions are interpreted in this file only.

use std::sync::Arc;

use wire::protocol::ErrorCode;

use crate::personal;
use crate::rules::{ChannelRules, DataFormat, Namespace, Permission, Rules};

/// Prefix of the server's own channels, whatever the namespace boundary is.
pub const SYSTEM: &str = "sys:";

/// Channel of lifecycle events: clients that connect and disconnect. The name is historical; it has
/// nothing to do with the presence of channels.
pub const LIFECYCLE: &str = "sys:presence";

/// Channel of changes of the dynamic configuration.
pub const CONFIG: &str = "sys:config";

/// A channel name, parsed by the rules.
#[derive(Clone, Copy, Debug)]
pub struct ChannelView<'r, 'n> {
    /// Options of the channel.
    pub namespace: &'r Namespace,
    /// Name of the namespace; empty for a channel without one.
    pub namespace_name: &'n str,
    /// Channel name without the namespace.
    pub rest: &'n str,
    /// Whether the channel requires a subscription token.
    pub is_private: bool,
    /// List of admitted users, if the name contains one.
    pub users: Option<&'n str>,
}

/// The user and the session whose permissions are checked.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// User id; empty for anonymous.
    pub user: &'a str,
    /// Roles of the connection token.
    pub roles: &'a [Box<str>],
    /// Whether the session is subscribed to the channel in question.
    pub is_subscriber: bool,
}

/// Parses a channel name chosen by a client: a name that [`server_view`] accepts, in the form that
/// its namespace requires.
///
/// # Errors
/// 107 for a name that is empty, too long or not allowed; 102 for an unknown namespace.
pub fn view<'r, 'n>(
    rules: &'r ChannelRules,
    name: &'n str,
) -> Result<ChannelView<'r, 'n>, ErrorCode> {
    let view = server_view(rules, name)?;
    let is_allowed = match &view.namespace.channel_regex {
        Some(regex) => regex.is_match(view.rest),
        None => view.rest.is_ascii(),
    };
    if is_allowed { Ok(view) } else { Err(ErrorCode::BadRequest) }
}

/// Parses a channel name chosen by the server or a backend, for example in a token or in the server
/// API. Its limits hold for all names, so that the server API can reach every subscription and
/// every broker can carry it.
///
/// # Errors
/// 107 for a name that is empty, longer than `channel.max_length` or has control characters; 102
/// for an unknown namespace.
pub fn server_view<'r, 'n>(
    rules: &'r ChannelRules,
    name: &'n str,
) -> Result<ChannelView<'r, 'n>, ErrorCode> {
    if name.is_empty() || name.len() > rules.max_length || name.chars().any(char::is_control) {
        return Err(ErrorCode::BadRequest);
    }
    read(rules, name)
}

/// Returns the options of a channel whose name was checked before.
///
/// # Errors
/// 102 for an unknown namespace.
pub fn namespace<'r>(rules: &'r ChannelRules, name: &str) -> Result<&'r Namespace, ErrorCode> {
    read(rules, name).map(|view| view.namespace)
}

/// Returns the namespace of a channel. Empty for none; `None` for the server's own channels and for
/// unknown namespaces.
#[must_use]
pub fn namespace_name<'n>(rules: &ChannelRules, name: &'n str) -> Option<&'n str> {
    let view = read(rules, name).ok().filter(|view| !view.namespace.is_system)?;
    Some(view.namespace_name)
}

fn read<'r, 'n>(rules: &'r ChannelRules, name: &'n str) -> Result<ChannelView<'r, 'n>, ErrorCode> {
    let prefix = Some(&*rules.private_prefix).filter(|prefix| !prefix.is_empty());
    let public = prefix.and_then(|prefix| name.strip_prefix(prefix));
    let is_private = public.is_some();
    let public = public.unwrap_or(name);
    if let Some(rest) = name.strip_prefix(SYSTEM).or_else(|| public.strip_prefix(SYSTEM)) {
        if ![LIFECYCLE, CONFIG].contains(&name) {
            return Err(ErrorCode::UnknownChannel);
        }
        return Ok(ChannelView {
            namespace: &rules.system,
            namespace_name: SYSTEM,
            rest,
            is_private: true,
            users: None,
        });
    }
    let boundary = Some(&*rules.namespace_boundary).filter(|boundary| !boundary.is_empty());
    let (namespace, namespace_name, rest) =
        match boundary.and_then(|boundary| public.split_once(boundary)) {
            Some((namespace, rest)) => {
                let options = rules.namespaces.get(namespace).ok_or(ErrorCode::UnknownChannel)?;
                (options, namespace, rest)
            }
            None => (&rules.without_namespace, "", public),
        };
    let user_boundary = Some(&*rules.user_boundary).filter(|boundary| !boundary.is_empty());
    let users = user_boundary
        .filter(|_| namespace.allow_user_limited_channels)
        .and_then(|boundary| rest.rsplit_once(boundary))
        .map(|(_, users)| users);
    Ok(ChannelView { namespace, namespace_name, rest, is_private, users })
}

impl Actor<'_> {
    /// Returns whether the actor has one of these roles.
    fn has_role(&self, of: &[String]) -> bool {
        self.roles.iter().any(|role| of.iter().any(|one| **one == **role))
    }
}

/// Checks whether the actor may subscribe without a token. A channel that lists its users admits no
/// other user, whatever the role.
///
/// # Errors
/// 103 if not.
pub fn may_subscribe(
    rules: &Rules,
    view: &ChannelView<'_, '_>,
    actor: Actor<'_>,
) -> Result<(), ErrorCode> {
    let user = actor.user;
    if view.is_private {
        return Err(ErrorCode::PermissionDenied);
    }
    let is_allowed = match view.users.or_else(|| personal_users(rules, view)) {
        Some(users) => is_listed(&rules.channels, users, user),
        None => {
            let permission = view.namespace.subscribe;
            permission.client && (!user.is_empty() || permission.anonymous)
                || actor.has_role(&view.namespace.roles.subscribe)
        }
    };
    let is_permitted = is_allowed || rules.client.insecure;
    is_permitted.then_some(()).ok_or(ErrorCode::PermissionDenied)
}

/// Returns the name of the proxy that decides on a subscribe command without a token. It decides
/// neither on private channels nor on those that list their users.
pub(crate) fn subscribe_proxy<'r>(
    rules: &'r Rules,
    view: &ChannelView<'r, '_>,
) -> Option<&'r Arc<str>> {
    let lists_users = view.users.or_else(|| personal_users(rules, view)).is_some();
    view.namespace.subscribe_proxy.as_ref().filter(|_| !view.is_private && !lists_users)
}

/// Checks whether the actor may read the history of a personal channel: only its user may, and a
/// session that subscribed with a token. Channels that are not personal always pass.
///
/// # Errors
/// 103 if not.
pub(crate) fn may_read_personal(
    rules: &Rules,
    view: &ChannelView<'_, '_>,
    actor: Actor<'_>,
) -> Result<(), ErrorCode> {
    let is_allowed = personal_users(rules, view)
        .is_none_or(|users| actor.is_subscriber || is_listed(&rules.channels, users, actor.user));
    let is_permitted = is_allowed || is_open(rules, view.namespace);
    is_permitted.then_some(()).ok_or(ErrorCode::PermissionDenied)
}

/// Returns the users that a personal channel's name admits, whatever its namespace allows; `None`
/// if the name is not one of a personal channel.
fn personal_users<'n>(rules: &Rules, view: &ChannelView<'_, 'n>) -> Option<&'n str> {
    let personal = rules.client.personal_channel.as_ref()?;
    let boundary = &*rules.channels.user_boundary;
    if view.is_private || view.namespace_name != personal.namespace || boundary.is_empty() {
        return None;
    }
    view.rest.strip_prefix(boundary)
}

fn is_listed(rules: &ChannelRules, users: &str, user: &str) -> bool {
    let is_user = |written: &str| personal::is_user(rules, written, user);
    let separator = &*rules.user_separator;
    match separator.is_empty() {
        _ if user.is_empty() => false,
        true => is_user(users),
        false => users.split(separator).any(is_user),
    }
}

/// Checks whether the actor may publish.
///
/// # Errors
/// 103 if not.
pub fn may_publish(
    rules: &Rules,
    namespace: &Namespace,
    actor: Actor<'_>,
) -> Result<(), ErrorCode> {
    let has_role = actor.has_role(&namespace.roles.publish);
    let is_permitted = has_role || holds(namespace.publish, actor) || is_open(rules, namespace);
    is_permitted.then_some(()).ok_or(ErrorCode::PermissionDenied)
}

/// Checks whether the actor may read presence.
///
/// # Errors
/// 108 if the feature is off; 103 if this actor may not.
pub fn may_read_presence(
    rules: &Rules,
    namespace: &Namespace,
    actor: Actor<'_>,
) -> Result<(), ErrorCode> {
    if !namespace.presence {
        return Err(ErrorCode::NotAvailable);
    }
    let is_permitted = may_receive_membership(rules, namespace, actor);
    is_permitted.then_some(()).ok_or(ErrorCode::PermissionDenied)
}

/// Returns whether the actor may receive joins and leaves, provided that the namespace sends them.
pub(crate) fn may_receive_membership(
    rules: &Rules,
    namespace: &Namespace,
    actor: Actor<'_>,
) -> bool {
    actor.has_role(&namespace.roles.presence)
        || holds(namespace.presence_read, actor)
        || is_open(rules, namespace)
}

/// Checks whether the actor may read history.
///
/// # Errors
/// 108 if the feature is off; 103 if this actor may not.
pub fn may_read_history(
    rules: &Rules,
    namespace: &Namespace,
    actor: Actor<'_>,
) -> Result<(), ErrorCode> {
    if !namespace.has_history() {
        return Err(ErrorCode::NotAvailable);
    }
    let has_role = actor.has_role(&namespace.roles.history);
    let is_permitted =
        has_role || holds(namespace.history_read, actor) || is_open(rules, namespace);
    is_permitted.then_some(()).ok_or(ErrorCode::PermissionDenied)
}

/// Checks that a payload has the format that the namespace requires.
///
/// # Errors
/// 107 if not.
pub fn check_data(format: DataFormat, data: &[u8]) -> Result<(), ErrorCode> {
    let is_fine = match format {
        DataFormat::Binary => !wire::protocol::is_nested_too_deep(data),
        DataFormat::NonEmpty => !data.is_empty() && !wire::protocol::is_nested_too_deep(data),
        DataFormat::Json => wire::protocol::is_json(data),
        DataFormat::JsonObject => {
            data.trim_ascii_start().first() == Some(&b'{') && wire::protocol::is_json(data)
        }
    };
    if is_fine { Ok(()) } else { Err(ErrorCode::BadRequest) }
}

impl Namespace {
    /// Returns whether publications are retained.
    #[must_use]
    pub fn has_history(&self) -> bool {
        self.history_size > 0 && self.history_ttl_ms > 0
    }
}

/// Returns whether all permissions are granted to every client.
fn is_open(rules: &Rules, namespace: &Namespace) -> bool {
    rules.client.insecure && !namespace.is_system
}

fn holds(permission: Permission, actor: Actor<'_>) -> bool {
    let is_wide = permission.client || (permission.subscriber && actor.is_subscriber);
    is_wide && (!actor.user.is_empty() || permission.anonymous)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::SubscribePermission;

    #[test]
    fn payloads_have_the_format_of_their_namespace() {
        let takes = |format| {
            let payloads: [&[u8]; 6] = [b"", b"\xFF", b"1", b"[1]", b" {\"a\":1}", b"{"];
            payloads.map(|data| check_data(format, data).is_ok())
        };
        assert_eq!(takes(DataFormat::Binary), [true; 6]);
        assert_eq!(takes(DataFormat::NonEmpty), [false, true, true, true, true, true]);
        assert_eq!(takes(DataFormat::Json), [false, false, true, true, true, false]);
        assert_eq!(takes(DataFormat::JsonObject), [false, false, false, false, true, false]);
    }

    fn rules() -> Rules {
        let mut rules = Rules::default();
        let chat = Namespace {
            allow_user_limited_channels: true,
            subscribe: SubscribePermission { client: true, anonymous: false },
            ..Namespace::default()
        };
        rules.channels.namespaces.insert("chat".into(), chat);
        rules
    }

    fn subscribe(name: &str, user: &str) -> Result<(), u32> {
        let rules = rules();
        let actor = Actor { user, roles: &[], is_subscriber: false };
        view(&rules.channels, name)
            .and_then(|view| may_subscribe(&rules, &view, actor))
            .map_err(ErrorCode::number)
    }

    #[test]
    fn names_lead_to_namespaces_and_permissions() {
        let long = format!("chat:{}", "x".repeat(250));
        let too_long = format!("chat:{}", "x".repeat(251));
        for (name, user, expected) in [
            ("chat:room", "ann", Ok(())),
            ("chat:room", "", Err(103)),
            ("chat:room#ann,bob", "bob", Ok(())),
            ("chat:room#ann,bob", "eve", Err(103)),
            ("chat:room#", "", Err(103)),
            ("$chat:room", "ann", Err(103)),
            ("news", "ann", Err(103)),
            ("nope:room", "ann", Err(102)),
            ("$nope:room", "ann", Err(102)),
            ("", "ann", Err(107)),
            ("sys:presence", "ann", Err(103)),
            ("$sys:presence", "ann", Err(102)),
            ("sys:other", "ann", Err(102)),
            ("chat:r\u{f6}\u{f6}m", "ann", Err(107)),
            ("chat:ro\nom", "ann", Err(107)),
            (&long, "ann", Ok(())),
            (&too_long, "ann", Err(107)),
        ] {
            assert_eq!(subscribe(name, user), expected, "{name:?} by {user:?}");
        }
    }

    #[test]
    fn anonymous_users_need_their_own_flag_in_addition() {
        let permission = Permission { client: false, subscriber: true, anonymous: false };
        let actor = |user, is_subscriber| Actor { user, roles: &[], is_subscriber };
        assert!(holds(permission, actor("ann", true)));
        assert!(!holds(permission, actor("ann", false)));
        assert!(!holds(permission, actor("", true)));
        assert!(holds(Permission { anonymous: true, ..permission }, actor("", true)));
    }

    #[test]
    fn roles_open_what_is_closed_to_others_but_no_private_channel() {
        let mut rules = rules();
        let roles = crate::rules::RolePermissions {
            subscribe: vec!["guest".to_owned(), "staff".to_owned()],
            publish: vec!["staff".to_owned()],
            presence: vec!["staff".to_owned()],
            history: vec!["staff".to_owned()],
        };
        let desk = Namespace {
            roles,
            presence: true,
            history_size: 1,
            history_ttl_ms: 1,
            allow_user_limited_channels: true,
            ..Namespace::default()
        };
        rules.channels.namespaces.insert("desk".into(), desk);
        let may = |name: &str, user: &str, role: Option<&str>| {
            let roles: Vec<Box<str>> = role.into_iter().map(Box::from).collect();
            let actor = Actor { user, roles: &roles, is_subscriber: true };
            let view = view(&rules.channels, name).unwrap();
            [
                may_subscribe(&rules, &view, actor),
                may_publish(&rules, view.namespace, actor),
                may_read_presence(&rules, view.namespace, actor),
                may_read_history(&rules, view.namespace, actor),
            ]
            .map(|result| result.is_ok())
        };
        assert_eq!(may("desk:a", "ann", None), [false; 4]);
        assert_eq!(may("desk:a", "ann", Some("customer")), [false; 4]);
        assert_eq!(may("desk:a", "", Some("guest")), [true, false, false, false]);
        assert_eq!(may("desk:a", "ann", Some("staff")), [true; 4]);
        assert!(!may("$desk:a", "ann", Some("staff"))[0], "needs a token");
        assert!(!may("desk:a#bob", "ann", Some("staff"))[0], "is for the users it lists");
        assert!(may("chat:a", "ann", Some("staff"))[0], "as anybody");
    }
}
