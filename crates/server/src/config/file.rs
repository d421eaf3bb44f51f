//! Parses a configuration file in TOML, YAML or JSON into a tree of values with the line of each
//! key.
//!
//! Invariant: a value that the tree cannot represent is reported. No message quotes the file, which
//! may contain secrets.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value};
use serde_saphyr::UserMessageFormatter;

use super::lines::Lines;
use crate::limits::CONFIG_FILE_SIZE_MAX;

/// The content of a file.
pub(super) struct ParsedFile {
    pub(super) tree: Value,
    pub(super) lines: Lines,
    /// Paths of keys that are written more than once. The last value is used.
    pub(super) twice: Vec<String>,
}

/// Reads a file; its extension decides the format.
///
/// # Errors
/// A message to follow the name of the file.
pub(super) fn read_file(path: &Path) -> Result<ParsedFile, String> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let read: fn(&str) -> Result<ParsedFile, String> = match &*ending.to_ascii_lowercase() {
        "toml" => read_toml,
        "yaml" | "yml" => read_yaml,
        "json" => read_json,
        _ => return Err("the name must end in .toml, .yaml, .yml or .json".to_owned()),
    };
    let text = text_of(path)?;
    let written = read(text.strip_prefix('\u{feff}').unwrap_or(&text))?;
    match written.tree {
        Value::Object(_) => Ok(written),
        Value::Null => Ok(ParsedFile { tree: Value::Object(Map::new()), ..written }),
        _ => Err("must contain keys and values".to_owned()),
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let read = file.take(CONFIG_FILE_SIZE_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > CONFIG_FILE_SIZE_MAX {
        return Err(format!(
            "has more than {CONFIG_FILE_SIZE_MAX} bytes, the maximum: is it a configuration?"
        ));
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err("is written in UTF-16: save it as UTF-8".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let known = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..known].iter().filter(|byte| **byte == b'\n').count();
        format!("is not text in UTF-8 (line {line}): save it as UTF-8")
    })
}

fn read_toml(text: &str) -> Result<ParsedFile, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| not_toml(text, &error))?;
    let tree = of_toml(toml::Value::Table(table));
    Ok(ParsedFile { tree, lines: Lines::of_toml(text), twice: Vec::new() })
}

/// Values that JSON cannot represent become texts, so that messages can quote them.
fn of_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) if !number.is_finite() => number.to_string().into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(flag) => flag.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(items) => items.into_iter().map(of_toml).collect(),
        toml::Value::Table(members) => {
            members.into_iter().map(|(name, value)| (name, of_toml(value))).collect()
        }
    }
}

/// The message of the library quotes the line, which may contain a secret.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("is not TOML: line {line}, column {column}: {}", error.message())
}

fn read_yaml(text: &str) -> Result<ParsedFile, String> {
    let tree = serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let text = match error {
            serde_saphyr::Error::MultipleDocuments { location, .. } => {
                format!(
                    "a second document begins at line {}, but only one is allowed",
                    location.line()
                )
            }
            error => error.render_with_formatter(&UserMessageFormatter),
        };
        format!("is not YAML: {text}")
    })?;
    Ok(ParsedFile { tree, lines: Lines::of_yaml(text), twice: Vec::new() })
}

fn read_json(text: &str) -> Result<ParsedFile, String> {
    let tree = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    let (lines, twice) = Lines::of_json(text);
    Ok(ParsedFile { tree, lines, twice })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::load_text;

    fn refused(ending: &str, bytes: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(format!("tidings{ending}"));
        std::fs::write(&file, bytes).unwrap();
        read_file(&file).map(|written| written.tree).unwrap_err()
    }

    #[test]
    fn a_file_that_is_not_a_configuration_is_refused_with_the_reason() {
        let large = vec![b'#'; usize::try_from(CONFIG_FILE_SIZE_MAX).unwrap() + 1];
        for (ending, bytes, wanted) in [
            (".toml", &b"\xff\xfea\0"[..], "UTF-16"),
            (".json", b"{\n\"a\": \"\xe4\"}", "(line 2)"),
            (".toml", &large, "bytes"),
            (".ini", b"a = 1", "must end in .toml"),
            (".yaml", b"a: 1\n---\nb: 2\n", "a second document begins at line"),
            (".json", b"[1]", "keys and values"),
        ] {
            let text = refused(ending, bytes);
            assert!(text.contains(wanted), "{text}");
        }
        // An unknown extension is refused before reading; this file is endless.
        assert!(read_file(Path::new("/dev/zero")).is_err_and(|text| text.contains(".toml")));
        for yaml in [&b"log: {}\nlog: {}\n"[..], b"~: 1\n", b"a: .nan\n", b"a: &a\n  b: *a\n"] {
            let text = refused(".yaml", yaml);
            for jargon in ["Option", "Policy", "policy", "recursion types", "from_str"] {
                assert!(!text.contains(jargon), "{text}");
            }
        }
    }

    #[test]
    fn values_that_the_tree_cannot_represent_are_reported() {
        for text in ["[websocket]\nmessage_size_limit = inf", "[log]\nlevel = 1979-05-27"] {
            let refused = load_text(".toml", text).unwrap_err().to_string();
            assert!(refused.contains("not \"inf\"") || refused.contains("1979-05-27"), "{refused}");
        }
        let text = "{\"log\": {\"level\": \"info\"},\n\"log\": {\"level\": \"warn\"},\n\"node\": {\"name\": \"a\", \"name\": \"b\"}}";
        let (config, warnings) = load_text(".json", text).unwrap();
        let twice = warnings.iter().filter(|warning| warning.text.contains("more than once"));
        let twice: Vec<String> = twice.map(|warning| warning.key.clone()).collect();
        assert_eq!(twice, ["log", "node.name"]);
        assert_eq!(config.node_name, "b");
        let of = |ending: &str, text: &str| {
            let (_, warnings) = load_text(ending, text).unwrap();
            let twice = warnings.into_iter().filter(|one| one.text.contains("more than once"));
            twice.map(|warning| warning.key).collect::<Vec<String>>()
        };
        let cases = r#"{"http_api.insecure": false, "HTTP_API": {"insecure": true},
            "channel": {"namespaces": [{"name": "aa"}, {"name": "bb", "presence": true, "Presence": false}]}}"#;
        assert_eq!(of(".json", cases), ["channel.namespaces[1].presence", "http_api.insecure"]);
        assert_eq!(of(".yaml", "log: {level: info}\nLOG: {level: warn}\n"), ["log.level"]);
        let apart = r#"{"http_api.insecure": false, "HTTP_API": {"error_mode": ""}}"#;
        assert_eq!(of(".json", apart), [""; 0]);
    }
}
