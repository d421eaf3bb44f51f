//! Personal channels: their names, and the user that a name in a list of users denotes.
//!
//! Invariant: no two users share a personal channel, and only its user is admitted. A user id may
//! contain any character. Those with a meaning in channel names are percent-encoded (`smith,john`
//! is `smith%2Cjohn`).

use wire::protocol::ErrorCode;

use crate::rules::{ChannelRules, Rules};

/// Returns the name of a user's personal channel; `None` if the feature is off or the user is
/// anonymous.
///
/// # Errors
/// 108 if the configuration has no character that marks a channel as limited to users.
pub fn name(rules: &Rules, user: &str) -> Result<Option<String>, ErrorCode> {
    let Some(personal) = rules.client.personal_channel.as_ref().filter(|_| !user.is_empty()) else {
        return Ok(None);
    };
    let channels = &rules.channels;
    if channels.user_boundary.is_empty() {
        return Err(ErrorCode::NotAvailable);
    }
    let is_in_namespace = !personal.namespace.is_empty();
    let boundary = if is_in_namespace { &*channels.namespace_boundary } else { "" };
    // Only the first boundary of a name ends the namespace, so that ids after it may contain the
    // boundary.
    let user = escape(channels, user, boundary);
    Ok(Some(format!("{}{boundary}{}{user}", personal.namespace, channels.user_boundary)))
}

/// Returns whether `written` denotes this user, in a list of users or in the name of a personal
/// channel.
pub(crate) fn is_user(rules: &ChannelRules, written: &str, user: &str) -> bool {
    if !written.contains('%') {
        return written == user;
    }
    unescape(rules, written) == user
}

/// Returns whether a configured separator contains a character of percent-encoding, and would split
/// encoded ids.
#[must_use]
pub fn breaks_escapes(mark: &str) -> bool {
    mark.chars().any(|one| matches!(one, '%' | '0'..='9' | 'A'..='F'))
}

/// Characters with a meaning in channel names.
fn specials(rules: &ChannelRules) -> impl Iterator<Item = char> {
    let texts = [&rules.user_separator, &rules.user_boundary, &rules.namespace_boundary];
    texts.into_iter().flat_map(|text| text.chars()).chain(['%'])
}

/// Percent-encodes a character.
fn escaped(character: char) -> String {
    let mut bytes = [0; 4];
    character.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Encodes a user id so that no character has a meaning in channel names, except those in `spared`.
/// A percent sign is encoded only if the text after it would decode to such a character, so that
/// most ids with a percent sign stay unchanged.
fn escape(rules: &ChannelRules, user: &str, spared: &str) -> String {
    let mut out = String::with_capacity(user.len());
    let is_of_users =
        |one: char| rules.user_boundary.contains(one) || rules.user_separator.contains(one);
    let is_spared = |one: char| spared.contains(one) && !is_of_users(one);
    for (index, character) in user.char_indices() {
        let is_special = match character {
            '%' => specials(rules).any(|special| user[index..].starts_with(&escaped(special))),
            _ => !is_spared(character) && specials(rules).any(|one| one == character),
        };
        if is_special {
            out.push_str(&escaped(character));
        } else {
            out.push(character);
        }
    }
    out
}

fn unescape(rules: &ChannelRules, written: &str) -> String {
    let mut out = String::with_capacity(written.len());
    let mut rest = written;
    while let Some(character) = rest.chars().next() {
        let meant = specials(rules).find(|special| rest.starts_with(&escaped(*special)));
        let length = meant.map_or(character.len_utf8(), |special| escaped(special).len());
        out.push(meant.unwrap_or(character));
        rest = &rest[length..];
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::channel::{self, Actor};
    use crate::rules::{Namespace, PersonalChannel, SubscribePermission};

    fn rules(namespace: &str) -> Rules {
        let mut rules = Rules::default();
        let open = Namespace {
            subscribe: SubscribePermission { client: true, anonymous: true },
            ..Namespace::default()
        };
        rules.channels.without_namespace = open.clone();
        rules.channels.namespaces.insert("people".into(), open);
        let namespace = namespace.to_owned();
        rules.client.personal_channel =
            Some(PersonalChannel { namespace, single_connection: false });
        rules
    }

    fn admits(rules: &Rules, name: &str, user: &str) -> bool {
        let view = channel::server_view(&rules.channels, name).unwrap();
        let actor = Actor { user, roles: &[], is_subscriber: false };
        channel::may_subscribe(rules, &view, actor).is_ok()
    }

    #[test]
    fn names_are_plain_unless_an_id_has_a_character_with_a_meaning() {
        for (user, without, within) in [
            ("ann", "#ann", "people:#ann"),
            ("J\u{fc}rgen", "#J\u{fc}rgen", "people:#J\u{fc}rgen"),
            ("50%", "#50%", "people:#50%"),
            ("auth0%7C12", "#auth0%7C12", "people:#auth0%7C12"),
            ("smith,john", "#smith%2Cjohn", "people:#smith%2Cjohn"),
            ("org#42", "#org%2342", "people:#org%2342"),
            ("did:key:z", "#did%3Akey%3Az", "people:#did:key:z"),
            ("a%2Cb", "#a%252Cb", "people:#a%252Cb"),
        ] {
            assert_eq!(name(&rules(""), user).unwrap().unwrap(), without);
            assert_eq!(name(&rules("people"), user).unwrap().unwrap(), within);
        }
        assert_eq!(name(&rules(""), ""), Ok(None));
        let mut without_boundary = rules("");
        without_boundary.channels.user_boundary = String::new();
        assert_eq!(name(&without_boundary, "ann"), Err(ErrorCode::NotAvailable));
    }

    #[test]
    fn a_namespace_boundary_that_also_separates_users_is_escaped() {
        let mut rules = rules("people");
        rules.channels.namespace_boundary = "::".to_owned();
        rules.channels.user_separator = ":".to_owned();
        rules.channels.namespaces.get_mut("people").unwrap().allow_user_limited_channels = true;
        let personal = name(&rules, "smith:john").unwrap().unwrap();
        assert_eq!(personal, "people::#smith%3Ajohn");
        assert!(admits(&rules, &personal, "smith:john") && !admits(&rules, &personal, "john"));
    }

    proptest! {
        /// Also holds if the namespace allows everybody to subscribe and has no user-limited
        /// channels.
        #[test]
        fn a_personal_channel_admits_exactly_its_user(
            users in proptest::collection::vec("[ab,#:/%23AC5]{1,6}", 2..6),
            is_limited in any::<bool>(),
            namespace in prop_oneof!["", "people"],
            marks in prop_oneof![
                Just([":", "#", ","]),
                Just(["::", "#", ":"]),
                Just(["#:", "#", ","]),
                Just(["/", "##", "#"]),
            ],
        ) {
            let mut rules = rules(&namespace);
            let [namespace_boundary, user_boundary, user_separator] = marks.map(str::to_owned);
            rules.channels.namespace_boundary = namespace_boundary;
            rules.channels.user_boundary = user_boundary;
            rules.channels.user_separator = user_separator;
            rules.channels.without_namespace.allow_user_limited_channels = is_limited;
            for namespace in rules.channels.namespaces.values_mut() {
                namespace.allow_user_limited_channels = is_limited;
            }
            for owner in &users {
                let name = name(&rules, owner).unwrap().unwrap();
                for user in &users {
                    prop_assert_eq!(admits(&rules, &name, user), owner == user, "{} {}", name, user);
                }
                prop_assert!(!admits(&rules, &name, ""));
            }
        }
    }

    #[test]
    fn lists_of_users_may_have_ids_with_any_characters() {
        let mut rules = rules("");
        rules.channels.without_namespace.allow_user_limited_channels = true;
        for (user, is_admitted) in [("smith,john", true), ("ann", true), ("john", false)] {
            assert_eq!(admits(&rules, "talk#smith%2Cjohn,ann", user), is_admitted, "{user}");
        }
        rules.channels.user_separator = String::new();
        assert!(admits(&rules, "talk#ann", "ann") && !admits(&rules, "talk#ann", "a"));
    }
}
