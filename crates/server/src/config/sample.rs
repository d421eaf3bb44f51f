//! Files made from the table of keys: a sample with every key, a short one to start with, and the reference.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::keys::{KEYS, Key, Kind, NAMESPACE_KEYS, TOKEN_KEYS};

/// A TOML file with every key, its default and its meaning. It is valid and changes nothing.
#[must_use]
pub fn sample() -> String {
    let mut out = String::from(
        "# Every setting of Tidings with its default. Lines that begin with #: uncomment to change.\n",
    );
    let mut tables: BTreeMap<&str, Vec<&Key>> = BTreeMap::new();
    for key in KEYS {
        tables.entry(table_of(key.path)).or_default().push(key);
    }
    tables.entry("client.token").or_default().extend(TOKEN_KEYS);
    tables.entry("client.subscription_token").or_default().extend(TOKEN_KEYS);
    tables.entry("channel.without_namespace").or_default().extend(NAMESPACE_KEYS);
    for (table, keys) in tables {
        let _infallible = write!(out, "\n[{table}]\n");
        keys.into_iter().for_each(|key| line(&mut out, key));
    }
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

[client.token]
hmac_secret_key = "{}"

[client]
allowed_origins = ["http://localhost:3000"]

[http_api]
key = "{}"

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
    table("Tokens: `client.token` and `client.subscription_token`", "", TOKEN_KEYS);
    table("Namespaces: `channel.namespaces[]` and `channel.without_namespace`", "", NAMESPACE_KEYS);
    out
}

const REFERENCE_HEAD: &str = r#"# Configuration

One file in TOML, YAML or JSON (`tidings serve -c FILE`), then environment variables, then flags; later ones win.

- Environment: `TIDINGS_` and the key in capitals, dots as underscores: `TIDINGS_HTTP_SERVER_PORT=9000`.
- Flags: `--` and the key: `--http_server.port=9000`. A list in a variable or a flag is separated by commas or white space.
- Times are written `250ms`, `10s`, `1m30s`, `24h`; a number of seconds without a unit is not a time.
- A key that does not exist, a value of the wrong kind and settings that contradict each other are mistakes: all of them are
  told at once, with their places, and nothing starts (exit status 2). `--allow-unknown-keys` turns unknown keys into warnings.
- `tidings check -c FILE` only looks. `tidings sample-config` prints a configuration to begin with, `--all` every key.

Without a file the server is in development mode: it listens on 127.0.0.1, serves the demo page, and admits anonymous users, who
may do everything in channels that begin with `demo:` and nothing elsewhere. With a file nobody gets in without a token, unless
the file says so.

Files of a server with the same key names work as they are: keys of features that are not here are accepted as long as nothing
switches the feature on, and tuning keys without a meaning here are named in a warning. A feature that is not here and is switched
on is always a mistake, also with `--allow-unknown-keys`.

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
        Kind::List => "[]".to_owned(),
    }
}
