//! Files generated from the declarations: a sample with all keys, a short configuration to start
//! with, and the reference page.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use super::absent::AbsentRole;
use super::feature::Feature;
use super::options::Options;
use super::schema::{FieldKind, Key, ListSchema, Schema, Section as _, join};
use super::table::absent_keys;

/// A TOML file with every key, its default value and its description, all commented out.
#[must_use]
pub fn sample() -> String {
    let mut out = String::from(
        "# Every option of Tidings with its default value. Uncomment a line to change the option.\n",
    );
    out.push_str(&sample_of(Options::SCHEMA));
    out
}

/// The tables of a section and of all sections below it, and then the lists.
pub(super) fn sample_of(schema: &'static Schema) -> String {
    let mut sample = Sample { out: String::new(), lists: VecDeque::new() };
    sample.table("", "", schema);
    while let Some((path, list)) = sample.lists.pop_front() {
        sample.list(&path, list);
    }
    sample.out
}

/// A sample file while it is written.
struct Sample {
    out: String,
    /// Lists that were found, with their paths.
    lists: VecDeque<(String, &'static ListSchema)>,
}

impl Sample {
    /// Writes the table of a section; `mark` makes its header a comment.
    fn table(&mut self, mark: &str, path: &str, schema: &'static Schema) {
        let (mut lines, mut below) = (String::new(), Vec::new());
        lines_of(path, schema, &mut lines, &mut below);
        if !lines.is_empty() {
            let _infallible = write!(self.out, "\n{mark}[{path}]\n{lines}");
        }
        self.below(mark, below);
    }

    fn below(&mut self, mark: &str, below: Vec<(String, &'static FieldKind)>) {
        for (path, item) in below {
            match item {
                FieldKind::Section(schema) => self.table(mark, &path, schema),
                FieldKind::List(list) => self.lists.push_back((path, list)),
                FieldKind::Option(_) | FieldKind::Flat(_) => {}
            }
        }
    }

    /// Writes an example of an item, or all of its options.
    fn list(&mut self, path: &str, list: &'static ListSchema) {
        if let Some((intro, example)) = list.example.split_once('\n') {
            let example = example.replace('\n', "\n# ");
            let _infallible = write!(self.out, "\n# {intro}\n# [[{path}]]\n# {example}\n");
        } else {
            let (mut lines, mut below) = (String::new(), Vec::new());
            lines_of(path, list.item, &mut lines, &mut below);
            let _infallible = write!(self.out, "\n# [[{path}]]\n{lines}");
            self.below("# ", below);
        }
    }
}

/// Collects the lines of the options of a section, and the sections and lists below it.
fn lines_of(
    path: &str,
    schema: &'static Schema,
    lines: &mut String,
    below: &mut Vec<(String, &'static FieldKind)>,
) {
    for field in schema.fields {
        match &field.kind {
            FieldKind::Option(key) => {
                let _infallible =
                    writeln!(lines, "# {}\n# {} = {}", key.doc, field.name, key.default);
            }
            FieldKind::Flat(schema) => lines_of(path, schema, lines, below),
            item => below.push((join(path, field.name), item)),
        }
    }
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
    out.push_str(&reference_of(Options::SCHEMA));
    out.push_str("\n## Features that are not available\n\n| Feature | Enabled by |\n|---|---|\n");
    for (feature, switches) in absent_features() {
        let switches: Vec<String> = switches.iter().map(|path| format!("`{path}`")).collect();
        let _infallible = writeln!(out, "| {} | {} |", feature.name(), switches.join(", "));
    }
    out
}

/// One table for each section with a title, the shorter tables first.
pub(super) fn reference_of(schema: &'static Schema) -> String {
    let mut titled = Vec::new();
    let first = reference_table(schema, &mut titled);
    let mut tables = Vec::new();
    while let Some(schema) = titled.pop() {
        tables.push(reference_table(schema, &mut titled));
    }
    tables.sort_by_key(|table| table.lines().count());
    tables.dedup();
    tables.insert(0, first);
    tables.concat()
}

fn reference_table(schema: &'static Schema, titled: &mut Vec<&'static Schema>) -> String {
    let title = schema.title.unwrap_or_default();
    let mut out = format!("\n## {title}\n\n| Key | Default | Meaning |\n|---|---|---|\n");
    reference_rows("", schema, &mut out, titled);
    out
}

/// Writes a row for each option below a section, and collects the sections with a title, which have
/// tables of their own.
fn reference_rows(
    path: &str,
    schema: &'static Schema,
    out: &mut String,
    titled: &mut Vec<&'static Schema>,
) {
    for field in schema.fields {
        let mut path = join(path, field.name);
        let schema = match &field.kind {
            FieldKind::Option(Key { doc: "", .. }) => continue,
            FieldKind::Option(Key { default, doc, .. }) => {
                let _infallible = writeln!(out, "| `{path}` | `{default}` | {doc} |");
                continue;
            }
            FieldKind::Section(schema) | FieldKind::Flat(schema) => schema,
            FieldKind::List(list) => {
                path.push_str("[]");
                list.item
            }
        };
        match schema.title {
            Some(_) => titled.push(schema),
            None => reference_rows(&path, schema, out, titled),
        }
    }
}

/// Features that are not available, with the keys that enable them.
fn absent_features() -> BTreeMap<Feature, Vec<String>> {
    let mut features: BTreeMap<Feature, Vec<String>> = BTreeMap::new();
    for (path, _, key) in absent_keys() {
        if path.starts_with("channel.without_namespace.") {
            continue;
        }
        if let AbsentRole::Switch(feature) = key.role {
            features.entry(feature).or_default().push(path);
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

This page is generated from the declarations in `crates/server/src/config/options`. A test compares
it with them.
"#;
