//! Files made from the table of keys: a sample with every key, a short one to start with, and the
//! reference.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::keys::{
    ABSENT_LISTS, API_KEY_KEYS, AbsentRole, Feature, KEYS, Key, Kind, NAMESPACE_KEYS, TOKEN_KEYS,
};
use super::table::absent_keys;

/// A TOML file with every key, its default and its meaning. It is valid and changes nothing.
#[must_use]
pub fn sample() -> String {
    let mut out = String::from(
        "# Every setting of Tidings with its default. Lines that begin with #: uncomment to change.\n",
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
    out.push_str("\n# Callers of the server API, each with a key of its own.\n");
    out.push_str("# [[http_api.keys]]\n# name = \"billing\"\n# key = \"…\"\n# methods = [\"publish\"]\n# channels = [\"news:*\"]\n");
    out.push_str("\n# Each namespace has the options of channel.without_namespace.\n");
    out.push_str("# [[channel.namespaces]]\n# name = \"chat\"\n# presence = true\n");
    out
}

/// A short working configuration with fresh secrets, made from random bytes.
#[must_use]
pub fn starter(random: [u8; 64]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (secret, key) = random.split_at(32);
    format!(
        r#"# A working configuration of Tidings: users need a token, and chat keeps a history.
# `tidings sample-config --all` shows every setting.

[http_server]
# This machine only, for a proxy in front. To listen on all addresses write "", and give the API and the metrics
# a port of their own: internal_port = 9000.
address = "127.0.0.1"

[client.token]
hmac_secret_key = "{}"

[client]
# Web pages that may connect, by their Origin; * stands for anything. These are pages that this machine serves itself, on
# any port: replace them with the origins of your application, such as "https://app.example.com".
allowed_origins = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"]

[http_api]
key = "{}"

# Clients of the JSON protocol can be sent JSON only.
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

/// The page of the documentation with every key.
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
    out.push_str("\n## Accepted, not here yet\n\n| Feature | Switched on by |\n|---|---|\n");
    for (feature, switches) in absent_features() {
        let switches: Vec<String> = switches.iter().map(|path| format!("`{path}`")).collect();
        let _infallible = writeln!(out, "| {} | {} |", feature.name(), switches.join(", "));
    }
    out
}

/// What is not here, and the keys that would switch it on.
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

One file in TOML, YAML or JSON (`tidings serve -c FILE`), then environment variables, then flags; later ones win.

- Environment: `TIDINGS_` and the key in capitals, dots as underscores: `TIDINGS_HTTP_SERVER_PORT=9000`. An empty variable is
  as good as none. Namespaces are named in a list and then set: `TIDINGS_CHANNEL_NAMESPACES="chat news"`, or the list as JSON, and
  `TIDINGS_CHANNEL_NAMESPACES_CHAT_PRESENCE=true`.
- Flags: `--` and the key: `--http_server.port=9000`. A list in a variable or a flag is separated by commas or white space.
- Times are written `250ms`, `10s`, `1m30s`, `24h`; a number of seconds without a unit is not a time.
- A value of the wrong kind and settings that contradict each other are mistakes: all of them are told at once, with the line,
  the variable or the flag, and nothing starts (exit status 2). A key that does not exist is a warning; with `--strict` it is a
  mistake.
- `tidings check -c FILE` only looks. `tidings sample-config -o FILE` makes a configuration to begin with, `--all` shows every key.

Where nothing is configured the server is in development mode: it listens on 127.0.0.1, serves the demo page, and admits
anonymous users, who may do everything in channels that begin with `demo:` and nothing elsewhere. Any setting ends that, in a file,
a variable or a flag; only `http_server.port` and `log.*` leave it on, so that another port can be chosen. Otherwise nobody gets
in without a token, unless the configuration says so.

## Coming from Centrifugo

Configurations of Centrifugo 6 work as they are. Variables `CENTRIFUGO_*` are read as well, where the `TIDINGS_*` of the same name
is not set. Values may have the forms that Centrifugo takes: a number, `true` or `false` as text, one text for a list, `null` or
empty text for a default. A number without a unit is no time: Centrifugo would read nanoseconds.

A feature that is not here yet is a mistake where it is switched on, also without `--strict`; whatever only tunes it is accepted.
Tuning keys of Centrifugo without a meaning here are named in a warning.

## Warnings

`tidings check`, and `tidings serve` in its log, warn of what is valid and dangerous, each with its key: switches that take a check
away (`client.insecure`), secrets that can be guessed, origins that admit strangers, key sets by plain HTTP, internal endpoints on
a public port, certificates that end within 14 days, bounds that protect no more, and settings that make one another useless. A
value that still holds `${NAME}`, `$(NAME)` or `{{ name }}` is a mistake: values are taken as they are written.

Origins are compared with what browsers send: a trailing slash, a path, a default port and capitals are left out, IPv6 stands in
brackets, and a host without a scheme means `https` (on this machine `http` too). What no browser sends is a mistake.

Made from the tables in `crates/server/src/config/keys.rs`; a test compares them with this page.
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
