//! Mistakes and warnings about a configuration: key, place, reason and what to do.
//!
//! Invariant: no message contains a secret.

use std::fmt;

/// An error in the configuration. The server does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key, or the name of a variable or file that is not a key.
    pub key: String,
    /// The line, variable or flag that contains it.
    pub place: Place,
    /// What is wrong and what to do.
    pub text: String,
}

/// An option that an operator should check. The server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Category, for logs.
    pub kind: WarningKind,
    /// The key, or the name of a variable or file that is not a key.
    pub key: String,
    /// The line, variable or flag that contains it.
    pub place: Place,
    /// The consequence and what to do.
    pub text: String,
}

/// Category of a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarningKind {
    /// A key or variable that does not exist.
    UnknownKey,
    /// A known key that has no effect.
    NoEffect,
    /// A value that was normalized.
    Adapted,
    /// A check that is disabled.
    Insecure,
    /// A secret that can be guessed.
    WeakSecret,
    /// An endpoint or channel that more clients can reach than intended.
    Exposed,
    /// A certificate that is not valid or expires soon.
    Certificate,
    /// Options that make each other useless.
    Contradiction,
    /// A limit that is too high to protect the server.
    Limit,
}

impl WarningKind {
    /// The name in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            WarningKind::UnknownKey => "unknown_key",
            WarningKind::NoEffect => "no_effect",
            WarningKind::Adapted => "adapted",
            WarningKind::Insecure => "insecure",
            WarningKind::WeakSecret => "weak_secret",
            WarningKind::Exposed => "exposed",
            WarningKind::Certificate => "certificate",
            WarningKind::Contradiction => "contradiction",
            WarningKind::Limit => "limit",
        }
    }
}

/// The place where an option was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not written: a default value, or not a key.
    Nowhere,
    /// In the file, at this line, counted from 1.
    Line(usize),
    /// In this environment variable.
    Variable(String),
    /// In a flag of the command.
    Flag,
}

/// All mistakes of a configuration, and its warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    /// All mistakes; at least one.
    pub mistakes: Vec<Mistake>,
    /// All warnings.
    pub warnings: Vec<Warning>,
}

impl Mistakes {
    /// A single mistake about a file.
    pub(super) fn of_file(file: String, text: String) -> Mistakes {
        let mistake = Mistake { key: file, place: Place::Nowhere, text };
        Mistakes { mistakes: vec![mistake], warnings: Vec::new() }
    }
}

/// A mistake as key and text; the place is looked up later.
pub(crate) type KeyedMistake = (String, String);
pub(super) type KeyedMistakes = Vec<KeyedMistake>;

/// Warning as kind, key and text; the place is looked up later.
pub(super) type KeyedWarning = (WarningKind, String, String);

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_entry(out, &self.key, &self.place, &self.text)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_entry(out, &self.key, &self.place, &self.text)
    }
}

fn write_entry(out: &mut fmt::Formatter<'_>, key: &str, place: &Place, text: &str) -> fmt::Result {
    match place {
        Place::Nowhere => write!(out, "{key}: {text}"),
        Place::Line(line) => write!(out, "{key} (line {line}): {text}"),
        Place::Variable(name) => write!(out, "{key} ({name}): {text}"),
        Place::Flag => write!(out, "--{key}: {text}"),
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.mistakes.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        write!(out, "{count} {noun} in the configuration:")?;
        self.mistakes.iter().try_for_each(|mistake| write!(out, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

/// The candidate that is most similar to `word`, if one is similar enough to be meant.
pub(super) fn closest<'c>(
    word: &str,
    candidates: impl Iterator<Item = &'c str>,
) -> Option<&'c str> {
    if word.len() > WORD_MAX {
        return None;
    }
    let near = candidates.map(|candidate| (distance(word, candidate), candidate));
    let allowed = 1 + word.len() / 4;
    near.filter(|(distance, _)| *distance <= allowed).min().map(|(_, candidate)| candidate)
}

/// Longer words, in bytes, are not compared: the cost is quadratic.
const WORD_MAX: usize = 100;

/// Levenshtein distance: insertions, deletions and replacements.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
