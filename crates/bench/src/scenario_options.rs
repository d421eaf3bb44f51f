//! Which scenario has a use for which option.
//!
//! Invariant: an option that would change nothing is not offered, and is refused when given.

use clap::Command;
use clap::parser::ValueSource;

/// Options of every scenario.
const COMMON: &[&str] = &["duration", "channel", "json", "html"];
/// Of those with clients of a server.
const CLIENTS: &[&str] = &["url", "ca", "codec", "token", "token_secret", "server_pid", "workers"];
/// Of scenarios whose publisher is chosen by an option.
const PUBLISHING: &[&str] = &[
    "size",
    "template",
    "publish_by",
    "publish_url",
    "api_url",
    "api_key",
    "api_connections",
    "batch",
];

/// The options of a scenario, by the names of their fields.
fn groups(scenario: &str) -> Option<[&'static [&'static str]; 4]> {
    Some(match scenario {
        "idle" => [COMMON, CLIENTS, &[], &["connections"]],
        "fanout" => [COMMON, CLIENTS, PUBLISHING, &["subscribers", "channels", "rate"]],
        // Everybody publishes.
        "rooms" => [COMMON, CLIENTS, &["size", "template"], &["subscribers", "channels", "rate"]],
        "direct" => [COMMON, CLIENTS, PUBLISHING, &["connections", "rate"]],
        "saturate" => [COMMON, CLIENTS, PUBLISHING, &["subscribers", "channels", "window"]],
        // Through the server API, before the run.
        "storm" => [
            COMMON,
            CLIENTS,
            &["size", "template", "publish_by", "api_url", "api_key"],
            &["channels", "window", "recover"],
        ],
        "jitter" => {
            [COMMON, CLIENTS, PUBLISHING, &["connections", "subscribers", "rate", "deaths"]]
        }
        "raw" => [COMMON, &["codec", "workers"], &["size"], &["subscribers", "rate", "raw_core"]],
        "relay" => [COMMON, &["url", "server_pid"], &["size"], &["rate"]],
        _ => return None,
    })
}

/// Whether any scenario has a use for the option of this field.
pub(super) fn is_known(field: &str) -> bool {
    let field = field.replace('-', "_");
    let known = [COMMON, CLIENTS, PUBLISHING].concat();
    let others = [
        "connections",
        "subscribers",
        "channels",
        "rate",
        "window",
        "recover",
        "deaths",
        "raw_core",
    ];
    known.contains(&field.as_str()) || others.contains(&field.as_str())
}

/// Whether a scenario has a use for the option of this field.
pub(super) fn applies(scenario: &str, field: &str) -> bool {
    let field = field.replace('-', "_");
    let is_of_clap = ["help", "version"].contains(&field.as_str());
    groups(scenario).is_none_or(|groups| is_of_clap || groups.concat().contains(&field.as_str()))
}

/// Hides in the help of each scenario what it has no use for.
#[must_use]
pub fn hide_others(bench: Command) -> Command {
    bench.mut_subcommands(|scenario| {
        let name = scenario.get_name().to_owned();
        scenario.mut_args(|argument| {
            let field = argument.get_id().as_str();
            let (is_hidden, own_help) = (!applies(&name, field), own_help(&name, field));
            match own_help {
                Some(help) if field == "url" => argument.help(help).default_value(REDIS),
                Some(help) => argument.help(help),
                None => argument.hide(is_hidden),
            }
        })
    })
}

/// Where a Redis is by default.
const REDIS: &str = "redis://127.0.0.1:6379";

/// What an option means where that is not the usual.
fn own_help(scenario: &str, field: &str) -> Option<&'static str> {
    match (scenario, field) {
        ("raw", "rate") => Some("Messages a second; 0 sends as fast as it goes"),
        ("raw", "subscribers") => Some("Receivers"),
        ("storm", "window") => Some("Clients on their way at once"),
        ("relay", "url") => Some("The Redis server: redis://host:port"),
        _ => None,
    }
}

/// An option that was given and that the scenario has no use for, as it is written.
#[must_use]
pub fn stray(bench: &clap::ArgMatches) -> Option<(String, String)> {
    let (scenario, given) = bench.subcommand()?;
    let stray = given.ids().map(clap::Id::as_str).find(|field| {
        let is_given = given.value_source(field) == Some(ValueSource::CommandLine);
        is_given && is_known(field) && !applies(scenario, field)
    })?;
    Some((scenario.to_owned(), stray.replace('_', "-")))
}
