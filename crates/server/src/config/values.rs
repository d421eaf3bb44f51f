//! Typed values by path: the configured value, or the default of the table of keys.
//!
//! Invariant: kinds were checked before (`check`), so that no look-up fails.

use serde_json::Value;

use super::duration::parse_ms;
use super::keys::NAMESPACE_KEYS;
use super::raw_config::RawConfig;
use super::table::{Entry, entry};
use super::text_list::items;

/// Typed look-ups by path.
pub(super) struct Values<'f> {
    pub(super) raw: &'f RawConfig,
    /// Defaults of development mode, as path and value.
    pub(super) overrides: &'f [(&'static str, &'static str)],
}

impl Values<'_> {
    pub(super) fn text(&self, path: &str) -> String {
        match self.raw.value(path) {
            Some(Value::String(text)) => text.clone(),
            Some(_) => String::new(),
            None => self.default(path).to_owned(),
        }
    }

    /// A URL path without slashes at its end.
    pub(super) fn path(&self, path: &str) -> String {
        let text = self.text(path);
        let trimmed = text.trim_end_matches('/');
        if trimmed.is_empty() { text } else { trimmed.to_owned() }
    }

    pub(super) fn some_text(&self, path: &str) -> Option<String> {
        Some(self.text(path)).filter(|text| !text.is_empty())
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        self.raw.value(path).map_or_else(|| self.default(path) == "true", |v| v == true)
    }

    pub(super) fn number(&self, path: &str) -> u64 {
        let written = self.raw.value(path).and_then(Value::as_u64);
        written.unwrap_or_else(|| self.default(path).parse().unwrap_or(0))
    }

    pub(super) fn count(&self, path: &str) -> usize {
        usize::try_from(self.number(path)).unwrap_or(usize::MAX)
    }

    pub(super) fn u32(&self, path: &str) -> u32 {
        u32::try_from(self.number(path)).unwrap_or(u32::MAX)
    }

    pub(super) fn ms(&self, path: &str) -> u64 {
        parse_ms(&self.text(path)).unwrap_or(0)
    }

    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let items = self.raw.value(path).and_then(Value::as_array);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match items {
            Some(items) => items.iter().map(text).collect(),
            None => self.default_list(path),
        }
    }

    pub(super) fn default_list(&self, path: &str) -> Vec<String> {
        items(self.default(path)).map(str::to_owned).collect()
    }

    pub(super) fn default(&self, path: &str) -> &'static str {
        if let Some((_, value)) = self.overrides.iter().find(|(key, _)| *key == path) {
            return value;
        }
        let of_table = match entry(path) {
            Some(Entry::Key(key)) => Some(key.default),
            _ => None,
        };
        let name = path.rsplit('.').next().unwrap_or(path);
        let of_namespace =
            || NAMESPACE_KEYS.iter().find(|key| key.path == name).map(|key| key.default);
        of_table.or_else(of_namespace).unwrap_or_default()
    }
}
