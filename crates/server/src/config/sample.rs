//! Files generated from the table of keys: a sample with all keys, a short configuration to start
//! with, and the reference page.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::keys::{
    ABSENT_LISTS, API_KEY_KEYS, AbsentRole, Feature, KEYS, Key, Kind, NAMESPACE_KEYS, TOKEN_KEYS,
};
use super::table::absent_keys;

/// A TOML file with every key, its default value and its description, all commented out.
#[must_use]
pub fn sample() -> String {
    let mut out = String::from(
        "# Every option of Tidings with its default value. Uncomment a line to change the option.\n",
    );
    let mut tables: Vec<(&str, Vec<&Key>)> = Vec::new();
    for key in KEYS {
        let table = table_of(key.path);
        match tables.iter_mut().find(|(other, _)| *other == table) {
            Some((_, keys)) => keys.push(key),
            None => tables.push((table, vec![key])),
        }
    }
    for (table, behind, keys) in [
        ("client.token", "client", TOKEN_KEYS),
        ("client.subscription_token", "client.token", TOKEN_KEYS),
        ("channel.without_namespace", "channel", NAMESPACE_KEYS),
    ] {
        match tables.iter_mut().find(|(other, _)| *other == table) {
            Some((_, all)) => all.extend(keys),
            None => {
                let place = tables.iter().position(|(other, _)| *other == behind);
                let place = place.map_or(tables.len(), |place| place + 1);
                tables.insert(place, (table, keys.iter().collect()));
            }
        }
    }
    for (table, keys) in tables {
        let _infallible = write!(out, "\n[{table}]\n");
        keys.into_iter().for_each(|key| line(&mut out, key));
    }
    out.push_str("\n# Callers of the server API, each with its own key.\n");
    out.push_str("# [[http_api.keys]]\n# name = \"billing\"\n# key = \"…\"\n# methods = [\"publish\"]\n# channels = [\"news:*\"]\n");
    out.push_str("\n# Each namespace has the options of channel.without_namespace.\n");
    out.push_str("# [[channel.namespaces]]\n# name = \"chat\"\n# presence = true\n");
    out
}

/// A short working configuration. Its secrets are made from the given random bytes.
#[must_use]
pub fn starter(random: [u8; 64]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (secret, key) = random.split_at(32);
    format!(
        r#"# A working configuration of Tidings: users need a token, and namespace chat keeps a history.
# `tidings sample-config --all` shows every option.

[http_server]
# Listen on this machine only, behind a proxy. To listen on all addresses write "", and serve the
# API and the metrics on another port: internal_port = 9000.
address = "127.0.0.1"

[client.token]
hmac_secret_key = "{}"

[client]
# Origins of web pages that may connect; * matches anything. These are pages of this machine, on any
# port: replace them with the origins of your application, such as "https://app.example.com".
allowed_origins = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"]

[http_api]
key = "{}"

# Clients of the JSON protocol can receive only JSON.
[channel]
publication_data_format = "json"

[channel.without_namespace]
allow_subscribe_for_client = true

[[channel.namespaces]]
name = "chat"
presence = true
join_leave = true
force_push_join_leave = true
history_size = 100
history_ttl = "5m"
force_recovery = true
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_presence_for_subscriber = true
allow_history_for_subscriber = true
"#,
        hex(secret),
        hex(key)
    )
}

/// The page docs/configuration.md.
#[must_use]
pub fn reference() -> String {
    let mut out = REFERENCE_HEAD.to_owned();
    let mut table = |title: &str, prefix: &str, keys: &[Key]| {
        let _infallible =
            write!(out, "\n## {title}\n\n| Key | Default | Meaning |\n|---|---|---|\n");
        for key in keys {
            let default = toml_value(key);
            let _infallible =
                writeln!(out, "| `{prefix}{}` | `{default}` | {} |", key.path, key.doc);
        }
    };
    table("Server", "", KEYS);
    table("Keys of the server API: `http_api.keys[]`", "", API_KEY_KEYS);
    table("Tokens: `client.token` and `client.subscription_token`", "", TOKEN_KEYS);
    table("Namespaces: `channel.namespaces[]` and `channel.without_namespace`", "", NAMESPACE_KEYS);
    out.push_str("\n## Features that are not available\n\n| Feature | Enabled by |\n|---|---|\n");
    for (feature, switches) in absent_features() {
        let switches: Vec<String> = switches.iter().map(|path| format!("`{path}`")).collect();
        let _infallible = writeln!(out, "| {} | {} |", feature.name(), switches.join(", "));
    }
    out
}

/// Features that are not available, with the keys that enable them.
fn absent_features() -> BTreeMap<Feature, Vec<String>> {
    let mut features: BTreeMap<Feature, Vec<String>> = BTreeMap::new();
    for (path, _, key) in absent_keys() {
        if let AbsentRole::Switch(feature) = key.role {
            let path = path.replace("channel.without_namespace.", "channel.namespaces[].");
            features.entry(feature).or_default().push(path);
        }
    }
    for list in ABSENT_LISTS {
        if let Some((option, feature)) = list.switch {
            features.entry(feature).or_default().push(format!("{}[].{option}", list.path));
        }
    }
    features.entry(Feature::BrokerBesideEngine).or_default().push("broker.type".to_owned());
    features
}

const REFERENCE_HEAD: &str = r#"# Configuration

Options are read from one file in TOML, YAML or JSON (`tidings serve -c FILE`), then from
environment variables, then from flags. A later source overrides an earlier one.

- Environment: `TIDINGS_` and the key in capitals, with underscores for dots:
  `TIDINGS_HTTP_SERVER_PORT=9000`. An empty variable is ignored. Namespaces are listed first and
  then configured: `TIDINGS_CHANNEL_NAMESPACES="chat news"`, or the list as JSON, and
  `TIDINGS_CHANNEL_NAMESPACES_CHAT_PRESENCE=true`.
- Flags: `--` and the key: `--http_server.port=9000`. The items of a list in a variable or a flag
  are separated by commas or white space.
- Durations are written with a unit: `250ms`, `10s`, `1m30s`, `24h`. A number without a unit is not
  a duration.
- A value of the wrong type is a mistake, and so are options that contradict each other. All
  mistakes are reported at once, with the line, the variable or the flag. The server then does not
  start (exit status 2). An unknown key is a warning, or a mistake with `--strict`.
- `tidings check -c FILE` checks a configuration without starting the server.
  `tidings sample-config -o FILE` writes a configuration to start with, and `--all` shows every key.

Without any configuration the server runs in development mode: it listens on 127.0.0.1, serves the
demo page, and accepts anonymous users. They may do everything in channels that begin with `demo:`,
and nothing in other channels. Any option in a file, a variable or a flag ends development mode,
except `http_server.port` and `log.*`. Outside development mode, clients need a token unless the
configuration allows others. A single node keeps histories in
the memory of the process, also in development mode; they end with it.

## Coming from Centrifugo

Configurations of Centrifugo 6 work without changes. Variables `CENTRIFUGO_*` are read too, unless
the `TIDINGS_*` variable of the same name is set. Values may be written in the forms that Centrifugo
accepts: a number, `true` or `false` as text, one text for a list, `null` or an empty text for the
default. The exception is a duration without a unit, which Centrifugo reads as nanoseconds.

A key that enables a feature which is not available is a mistake, also without `--strict`. Keys that
only tune such a feature are accepted. Keys of Centrifugo that have no effect cause a warning.

## Warnings

`tidings check` prints warnings about options that are valid but dangerous, each with its key;
`tidings serve` logs them. They are about: disabled checks (`client.insecure`), secrets that can be
guessed, origins that admit unknown sites, key sets fetched by plain HTTP, internal endpoints on a
public port, certificates that expire within 14 days, limits that are too high to protect the
server, and options that make each other useless. A value that still contains `${NAME}`, `$(NAME)`
or `{{ name }}` is a mistake: the server does not replace placeholders.

Origins are compared with what browsers send: a trailing slash, a path and a default port are
ignored, and so is the case of letters. IPv6 addresses are written in brackets. A host without a
scheme means `https` (for the local machine also `http`). An origin that no browser sends is a
mistake.

This page is generated from the tables in `crates/server/src/config/keys.rs`. A test compares it
with them.
"#;

fn table_of(path: &'static str) -> &'static str {
    path.rsplit_once('.').map_or("", |(table, _)| table)
}

fn line(out: &mut String, key: &Key) {
    let name = key.path.rsplit('.').next().unwrap_or(key.path);
    let _infallible = writeln!(out, "# {}\n# {name} = {}", key.doc, toml_value(key));
}

fn toml_value(key: &Key) -> String {
    match key.kind {
        Kind::Bool | Kind::Integer(_) => key.default.to_owned(),
        Kind::Duration | Kind::Text | Kind::Secret | Kind::OneOf(_) => {
            format!("\"{}\"", key.default)
        }
        Kind::List if key.default.is_empty() => "[]".to_owned(),
        Kind::List => format!("[\"{}\"]", key.default),
    }
}
