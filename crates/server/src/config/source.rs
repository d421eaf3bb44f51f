//! Reads the file, the environment and the flags of a [`Source`] into one [`RawConfig`].
//!
//! Invariant: a later source overrides an earlier one: file, environment, flags.

use serde_json::{Map, Value};

use super::Source;
use super::environment::read_environment;
use super::file::{ParsedFile, read_file};
use super::mistakes::{Mistakes, Place, WarningKind};
use super::raw_config::{KeyForms, RawConfig};
use super::table::{Entry, entry};

/// Reads all sources.
///
/// # Errors
/// The file cannot be read or parsed.
pub(super) fn read(source: &Source) -> Result<RawConfig, Mistakes> {
    let mut raw = RawConfig::of(Value::Object(Map::new()));
    raw.has_file = source.file.is_some();
    if let Some(path) = &source.file {
        let ParsedFile { tree, lines, mut twice } =
            read_file(path).map_err(|text| Mistakes::of_file(path.display().to_string(), text))?;
        let mut keys = KeyForms::default();
        raw.tree = keys.canonical("", tree);
        let is_new = |path: &String| !twice.iter().any(|one| one.eq_ignore_ascii_case(path));
        keys.twice.retain(is_new);
        twice.extend(keys.twice);
        raw.lines = lines;
        for path in twice {
            let text =
                "is written more than once, and only the last one is used: remove the others";
            raw.warn(WarningKind::Adapted, path, text);
        }
    }
    read_environment(&mut raw, &source.environment, source.unknown);
    for (path, text) in &source.flags {
        match entry(path) {
            None | Some(Entry::Section) => {
                raw.mistake(format!("--{path}"), "there is no such setting");
            }
            Some(_) => raw.set(path, Place::Flag, text),
        }
    }
    Ok(raw)
}
