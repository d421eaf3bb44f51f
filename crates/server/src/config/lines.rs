//! The line of each key in a configuration file.
//!
//! Invariant: lines are used only in messages. A key without a line is reported without one.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use toml::de::{DeTable, DeValue};

use crate::json::end_of_string;

/// Lines by path. Paths are case-insensitive.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(HashMap<String, usize>);

impl Lines {
    /// The line of a key, counted from 1.
    pub(super) fn of(&self, path: &str) -> Option<usize> {
        self.0.get(&path.to_ascii_lowercase()).copied()
    }

    fn insert(&mut self, path: &str, line: usize) {
        self.0.insert(path.to_ascii_lowercase(), line);
    }

    pub(super) fn of_toml(text: &str) -> Lines {
        let mut lines = Lines::default();
        if let Ok(table) = DeTable::parse(text) {
            lines.toml_table(&LineStarts::of(text), "", table.get_ref());
        }
        lines
    }

    fn toml_table(&mut self, starts: &LineStarts, path: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = join(path, name.get_ref());
            self.insert(&path, starts.line(name.span().start));
            self.toml_value(starts, &path, value.get_ref());
        }
    }

    fn toml_value(&mut self, starts: &LineStarts, path: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.toml_table(starts, path, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.insert(&path, starts.line(item.span().start));
                    self.toml_value(starts, &path, item.get_ref());
                }
            }
            _ => {}
        }
    }

    pub(super) fn of_yaml(text: &str) -> Lines {
        let mut lines = Lines::default();
        if let Ok(node) = serde_saphyr::from_str::<Spanned<Node>>(text) {
            lines.yaml_node("", &node.value);
        }
        lines
    }

    fn yaml_node(&mut self, path: &str, node: &Node) {
        let children: Vec<(String, &Spanned<Node>)> = match node {
            Node::Leaf => Vec::new(),
            Node::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| (format!("{path}[{index}]"), item))
                .collect(),
            Node::Map(members) => {
                members.iter().map(|(name, member)| (join(path, name), member)).collect()
            }
        };
        for (path, child) in children {
            if let Ok(line @ 1..) = usize::try_from(child.referenced.line()) {
                self.insert(&path, line);
            }
            self.yaml_node(&path, &child.value);
        }
    }

    /// Also returns the paths of keys that are written more than once. The text must be valid JSON.
    pub(super) fn of_json(text: &str) -> (Lines, Vec<String>) {
        let mut lines = Lines::default();
        let (mut seen, mut twice) = (HashSet::new(), Vec::new());
        let mut open: Vec<Open> = Vec::new();
        let (mut line, mut at, bytes) = (1, 0, text.as_bytes());
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'\n' => line += 1,
                b'{' => {
                    lines.insert(&path_of(&open), line);
                    open.push(Open::Object { name: String::new(), is_value: false });
                }
                b'[' => open.push(Open::Array { index: 0 }),
                b'}' | b']' => drop(open.pop()),
                b',' => match open.last_mut() {
                    Some(Open::Object { is_value, .. }) => *is_value = false,
                    Some(Open::Array { index }) => *index += 1,
                    None => {}
                },
                b':' => {
                    if let Some(Open::Object { is_value, .. }) = open.last_mut() {
                        *is_value = true;
                    }
                }
                b'"' => {
                    let end = end_of_string(bytes, at);
                    if let Some(Open::Object { name, is_value: false }) = open.last_mut() {
                        *name = serde_json::from_str(&text[at..end]).unwrap_or_default();
                        let path = path_of(&open);
                        lines.insert(&path, line);
                        if !seen.insert(path.clone()) && !is_below(&twice, &path) {
                            twice.push(path);
                        }
                    }
                    at = end;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        (lines, twice)
    }
}

/// Whether a path is one of these paths, or below one of them.
fn is_below(paths: &[String], path: &str) -> bool {
    paths.iter().any(|above| {
        path.strip_prefix(&**above)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// An object or array that is not closed yet at a position in JSON.
enum Open {
    Object { name: String, is_value: bool },
    Array { index: usize },
}

fn path_of(open: &[Open]) -> String {
    open.iter().fold(String::new(), |path, open| match open {
        Open::Object { name, .. } => join(&path, name),
        Open::Array { index } => format!("{path}[{index}]"),
    })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Offsets of the beginnings of lines in a text.
struct LineStarts(Vec<usize>);

impl LineStarts {
    fn of(text: &str) -> LineStarts {
        let behind = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        LineStarts(std::iter::once(0).chain(behind.map(|(at, _)| at + 1)).collect())
    }

    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}

/// A YAML tree without its scalar values; only positions are needed.
enum Node {
    Leaf,
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Node, D::Error> {
        Node::deserialize(inner)
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, access: A) -> Result<Node, A::Error> {
        access.variant::<IgnoredAny>().map(|_| Node::Leaf)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Node::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_gives_the_same_keys_their_lines() {
        let json = "{\n \"client\": {\n  \"insecure\": true, \"a\\\"b\": [1,\n 2]},\n \
                    \"channel\": {\"namespaces\": [\n  {\"name\": \"a\"},\n  {\"name\": \"b\",\n \"presence\": 1}]}}";
        let toml = "[client]\n\ninsecure = true\n[[channel.namespaces]]\nname = \"a\"\n\
                    [[channel.namespaces]]\nname = \"b\"\npresence = 1\n";
        let yaml = "# comment\nclient:\n  insecure: true\nchannel:\n  namespaces:\n  - name: a\n  - name: b\n    \
                    presence: 1\n";
        for (lines, insecure, second, presence) in [
            (Lines::of_json(json).0, 3, 7, 8),
            (Lines::of_toml(toml), 3, 6, 8),
            (Lines::of_yaml(yaml), 3, 7, 8),
        ] {
            assert_eq!(lines.of("client.insecure"), Some(insecure));
            assert_eq!(lines.of("channel.namespaces[1]"), Some(second), "{lines:?}");
            assert_eq!(lines.of("channel.namespaces[1].presence"), Some(presence));
            assert_eq!(lines.of("Client.Insecure"), Some(insecure));
            assert_eq!(lines.of("client.other"), None);
        }
    }
}
