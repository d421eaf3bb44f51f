//! Files made from the table of keys: a sample with every key, a short one to start with, and the reference.

use std::fmt::Write as _;

use super::keys::{KEYS, Key, Kind, NAMESPACE_KEYS, TOKEN_KEYS};

/// A TOML file with every key, its default and its meaning. It is valid and changes nothing.
#[must_use]
pub fn sample() -> String {
    let mut out = String::from(
        "# Every setting of Tidings with its default. Lines that begin with #: uncomment to change.\n",
    );
    let mut section = "";
    let mut sorted: Vec<&Key> = KEYS.iter().collect();
    sorted.sort_by_key(|key| table_of(key.path));
    for key in sorted {
        let table = table_of(key.path);
        if table != section {
            let _infallible = write!(out, "\n[{table}]\n");
            section = table;
        }
        line(&mut out, key);
    }
    for table in ["client.token", "client.subscription_token"] {
        let _infallible = write!(out, "\n# [{table}]\n");
        TOKEN_KEYS.iter().for_each(|key| line(&mut out, key));
    }
    out.push_str("\n# Channels without a namespace, and each namespace, have these options.\n");
    out.push_str("[channel.without_namespace]\n");
    NAMESPACE_KEYS.iter().for_each(|key| line(&mut out, key));
    out.push_str("\n# [[channel.namespaces]]\n# name = \"chat\"\n# presence = true\n");
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

/// A table in Markdown of every key.
#[must_use]
pub fn reference() -> String {
    let mut out = String::new();
    let mut table = |title: &str, prefix: &str, keys: &[Key]| {
        let _infallible =
            write!(out, "\n## {title}\n\n| Key | Default | Meaning |\n|---|---|---|\n");
        for key in keys {
            let default = toml_value(key);
            let _infallible = writeln!(out, "| `{prefix}{}` | `{default}` | {} |", key.path, key.doc);
        }
    };
    table("Server", "", KEYS);
    table("Tokens: `client.token` and `client.subscription_token`", "", TOKEN_KEYS);
    table("Namespaces: `channel.namespaces[]` and `channel.without_namespace`", "", NAMESPACE_KEYS);
    out
}

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
