//! Reads the file, the environment and the flags of a [`Source`] into one [`Found`].
//!
//! Invariant: a later source overrides an earlier one: file, environment, flags.

use serde_json::{Map, Value};

use super::Source;
use super::environment::read_environment;
use super::file::{Written, read_file};
use super::found::{Found, canonical};
use super::mistakes::{Mistakes, Place, WarningKind};
use super::table::{Entry, entry};

/// Reads all sources.
///
/// # Errors
/// The file cannot be read or parsed.
pub(super) fn read(source: &Source) -> Result<Found, Mistakes> {
    let mut found = Found::of(Value::Object(Map::new()));
    found.has_file = source.file.is_some();
    if let Some(path) = &source.file {
        let Written { tree, lines, twice } =
            read_file(path).map_err(|text| Mistakes::of_file(path.display().to_string(), text))?;
        found.tree = canonical("", tree);
        found.lines = lines;
        for path in twice {
            let text =
                "is written more than once, and only the last one is used: remove the others";
            found.warn(WarningKind::Adapted, path, text);
        }
    }
    read_environment(&mut found, &source.environment, source.unknown);
    for (path, text) in &source.flags {
        match entry(path) {
            None | Some(Entry::Section) => {
                found.mistake(format!("--{path}"), "there is no such setting");
            }
            Some(_) => found.set(path, Place::Flag, text),
        }
    }
    Ok(found)
}
