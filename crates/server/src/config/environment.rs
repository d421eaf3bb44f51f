//! Environment variables: options with the prefix of this server or of the compatible server.
//!
//! Invariant: `TIDINGS_*` overrides `CENTRIFUGO_*`. Variables that Kubernetes and Docker inject for
//! services and links are never read as options.

use serde_json::Value;

use super::Unknown;
use super::mistakes::{Place, WarningKind, closest};
use super::raw_config::RawConfig;
use super::table::{
    Entry, entry, flat, lists, meant, path_of, paths_in_item, section_of, variable, variables,
};

/// Prefix of variables of this server.
pub(super) const PREFIX: &str = "TIDINGS_";
/// Prefix of variables of the compatible server.
const ALIAS_PREFIX: &str = "CENTRIFUGO_";
/// Not an option: the token of `tidings subscribe`.
const COMMAND_TOKEN: &str = "TIDINGS_TOKEN";
/// Prefix of variables that the compatible server inserts into other values; ignored here.
const ALIAS_PARTS: &str = "CENTRIFUGO_VAR_";

/// Sets all options of the environment.
pub(super) fn read_environment(
    raw: &mut RawConfig,
    environment: &[(String, String)],
    unknown: Unknown,
) {
    // Empty variables are ignored, as in the compatible server.
    let with = |prefix: &'static str| {
        environment.iter().filter_map(move |(name, text)| {
            let rest = name.strip_prefix(prefix).filter(|_| !text.is_empty())?;
            (name != COMMAND_TOKEN && !name.starts_with(ALIAS_PARTS)).then_some((name, rest, text))
        })
    };
    let variables: Vec<_> = with(ALIAS_PREFIX).chain(with(PREFIX)).collect();
    // Variables of items name the items, so that the lists are read first.
    let is_list = |rest: &str| path_of(rest).is_some_and(|path| lists().any(|list| list == path));
    let (of_lists, others): (Vec<_>, Vec<_>) =
        variables.into_iter().partition(|(_, rest, _)| is_list(rest));
    warn_lower_case(raw, environment);
    let mut aliases = 0;
    for (name, rest, text) in of_lists.into_iter().chain(others) {
        let path = match setting(raw, rest) {
            Ok(Some(path)) => path,
            Ok(None) => {
                if !is_injected(environment, name, text) {
                    warn_unknown(raw, (name, text), rest, unknown);
                }
                continue;
            }
            Err(ambiguous) => {
                raw.mistake(name, ambiguous);
                continue;
            }
        };
        if is_address_of_service(name, text) {
            let text = format!(
                "{name} is ignored, because Kubernetes or Docker set it for a service of this name: rename the \
                 service, or set enableServiceLinks: false"
            );
            raw.warn(WarningKind::NoEffect, path, text);
            continue;
        }
        aliases += usize::from(name.starts_with(ALIAS_PREFIX));
        if is_in_quotes(text) {
            let text = "begins and ends with a quotation mark, which is part of the value: files of docker --env-file, for \
                        example, take values without quotation marks";
            raw.warn(WarningKind::Adapted, &path, text);
        }
        raw.set(&path, Place::Variable(name.clone()), text);
    }
    if aliases > 0 {
        let text = format!(
            "{aliases} of these variables are read like the TIDINGS_* variables of the same name, which override them"
        );
        raw.warn(WarningKind::Adapted, "CENTRIFUGO_*", text);
    }
}

/// Warns of variables that would be options if they were written in capitals.
fn warn_lower_case(raw: &mut RawConfig, environment: &[(String, String)]) {
    for (name, _) in environment {
        let capitals = name.to_ascii_uppercase();
        let rest = capitals.strip_prefix(PREFIX).filter(|_| !name.starts_with(PREFIX));
        if rest.is_some_and(|rest| path_of(rest).is_some()) {
            let text = format!("is ignored: write the name in capitals, {capitals}");
            raw.warn(WarningKind::UnknownKey, name, text);
        }
    }
}

/// Whether a value is in quotation marks, which only a shell removes.
fn is_in_quotes(text: &str) -> bool {
    let inside = |mark| text.strip_prefix(mark).is_some_and(|rest| rest.ends_with(mark));
    inside('"') || inside('\'')
}

/// The path of the option that a variable sets. `rest` is its name without the prefix.
///
/// # Errors
/// The variable is ambiguous; the text names the candidate items.
fn setting(raw: &RawConfig, rest: &str) -> Result<Option<String>, String> {
    match path_of(rest) {
        Some(path) => Ok(Some(path.to_owned())),
        None => lists().find_map(|list| option_of_group(raw, list, rest)).transpose(),
    }
}

/// The path of an option of one item of a list: `CHANNEL_NAMESPACES_<NAME>_<OPTION>`.
fn option_of_group(raw: &RawConfig, list: &str, rest: &str) -> Option<Result<String, String>> {
    let groups = groups_of(raw, list, rest);
    let options = groups.iter().filter_map(|(index, name, option)| {
        let path = paths_in_item(list).find(|path| variable(path) == *option)?;
        Some((name.len(), *index, path))
    });
    let options: Vec<_> = options.collect();
    // Of "chat" and "chat_room", the longer name takes precedence if both match.
    let longest = options.iter().map(|(length, ..)| *length).max()?;
    let meant: Vec<_> = options.iter().filter(|(length, ..)| *length == longest).collect();
    let [(_, index, path)] = meant[..] else {
        let items: Vec<String> =
            meant.iter().map(|(_, index, _)| format!("{list}[{index}]")).collect();
        return Some(Err(format!(
            "may mean any of {}, whose names are the same in variables: rename them, or write the option in the list",
            items.join(", ")
        )));
    };
    Some(Ok(format!("{list}[{index}].{path}")))
}

/// The items of a list that a variable may name: the index, the name in variables, and what follows
/// the name.
fn groups_of<'r>(raw: &RawConfig, list: &str, rest: &'r str) -> Vec<(usize, String, &'r str)> {
    let rest = rest.strip_prefix(&*variable(list)).and_then(|rest| rest.strip_prefix('_'));
    let groups = raw.value(list).and_then(Value::as_array).into_iter().flatten().enumerate();
    let named = groups.filter_map(|(index, group)| {
        let name = group.get("name")?.as_str().filter(|name| !name.is_empty())?;
        let name = in_variables(name);
        let option = rest?.strip_prefix(&*name)?.strip_prefix('_')?;
        Some((index, name, option))
    });
    named.collect()
}

/// The variable of an item that was probably meant.
fn near_in_group(raw: &RawConfig, rest: &str) -> Option<String> {
    lists().find_map(|list| {
        let options: Vec<String> = paths_in_item(list).map(variable).collect();
        groups_of(raw, list, rest).into_iter().find_map(|(_, name, option)| {
            let near = closest(option, options.iter().map(String::as_str))?;
            Some(format!("{}_{name}_{near}", variable(list)))
        })
    })
}

/// The name of an item as part of the name of a variable.
fn in_variables(name: &str) -> String {
    name.replace(['-', '.'], "_").to_uppercase()
}

fn warn_unknown(raw: &mut RawConfig, (name, text): (&str, &str), rest: &str, unknown: Unknown) {
    let prefix = &name[..name.len() - rest.len()];
    let of_section = section_of(rest).map(|section| {
        let meant = meant(section, &Value::from(text)).map(|key| variable(&key));
        let meant = meant.map(|key| format!("; did you mean {prefix}{key}?"));
        format!("{section} is a section{}", meant.unwrap_or_default())
    });
    let text = of_section.unwrap_or_else(|| no_setting(raw, prefix, rest));
    let is_strict = |list| matches!(entry(list), Some(Entry::List(schema)) if schema.is_strict);
    let of_strict_list =
        lists().any(|list| is_strict(list) && rest.starts_with(&*format!("{}_", variable(list))));
    match unknown {
        _ if of_strict_list => raw.mistake(name, text),
        Unknown::Warning => raw.warn(WarningKind::UnknownKey, name, text),
        Unknown::Mistake => raw.mistake(name, text),
    }
}

fn no_setting(raw: &RawConfig, prefix: &str, rest: &str) -> String {
    let near = near_in_group(raw, rest);
    let near = near.or_else(|| closest(rest, variables()).map(str::to_owned));
    let near = near.or_else(|| flat(rest).map(variable));
    let near = near.map(|near| format!("; did you mean {prefix}{near}?"));
    let list = lists().find(|list| rest.starts_with(&*format!("{}_", variable(list))));
    let hint = near.or_else(|| {
        list.map(|list| {
            let list = variable(list);
            format!("; the items must be listed in {prefix}{list}, and have no option of this name")
        })
    });
    format!("there is no such setting{}", hint.unwrap_or_default())
}

/// Whether a variable is the address of a service or a linked container:
/// `NAME_PORT=tcp://10.0.0.1:80`.
fn is_address_of_service(name: &str, text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    name.ends_with("_PORT") && matches!(scheme, Some("tcp" | "udp" | "sctp"))
}

/// Whether Kubernetes or Docker injected this variable.
fn is_injected(environment: &[(String, String)], name: &str, text: &str) -> bool {
    if is_address_of_service(name, text) || name.ends_with("_SERVICE_HOST") {
        return true;
    }
    let is_after = |mark: &str, rest: fn(&str) -> bool| {
        name.rfind(mark).is_some_and(|at| rest(&name[at + mark.len()..]))
    };
    // TIDINGS_SERVICE_PORT, TIDINGS_SERVICE_PORT_HTTP; TIDINGS_PORT_8000_TCP, ..._TCP_ADDR,
    // ..._TCP_START.
    if is_after("_SERVICE_PORT", |rest| rest.is_empty() || rest.starts_with('_')) {
        return true;
    }
    let of_port = |rest: &str| {
        let (port, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && ["TCP", "UDP", "SCTP"].iter().any(|one| protocol.starts_with(one))
    };
    if name.match_indices("_PORT_").any(|(at, mark)| of_port(&name[at + mark.len()..])) {
        return true;
    }
    // A link also injects its name and the environment of the other container.
    let is_linked = |alias: &str| {
        let port = format!("{alias}_PORT");
        environment.iter().any(|(name, text)| *name == port && is_address_of_service(name, text))
    };
    let of_link = |mark: &str| name.find(mark).is_some_and(|at| is_linked(&name[..at]));
    of_link("_ENV_") || (name.ends_with("_NAME") && text.starts_with('/') && of_link("_NAME"))
}
