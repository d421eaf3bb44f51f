//! What is wrong or doubtful in a configuration: each with its key, where it was written, and what
//! to do.
//!
//! Invariant: no value of a secret is in any text.

use std::fmt;

/// Something that ends the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key, or the variable or file that is no key.
    pub key: String,
    /// Where it was written.
    pub place: Place,
    /// What is wrong and what to do.
    pub text: String,
}

/// Something that an operator should look at; the server starts all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about.
    pub kind: WarningKind,
    /// The key, or the variable or file that is no key.
    pub key: String,
    /// Where it was written.
    pub place: Place,
    /// What follows from it and what to do.
    pub text: String,
}

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarningKind {
    /// A key that does not exist.
    UnknownKey,
    /// Known, and nothing follows from it.
    NoEffect,
    /// Read in another way than it was written.
    Adapted,
    /// A check is switched off.
    Insecure,
    /// A secret that can be guessed.
    WeakSecret,
    /// Reachable or readable for more than should be.
    Exposed,
    /// A certificate that ends.
    Certificate,
    /// Settings that make one another useless.
    Contradiction,
    /// A bound that does not protect.
    Limit,
}

impl WarningKind {
    /// Its name in logs.
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

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is a default, or no key.
    Nowhere,
    /// In the file, at this line.
    Line(usize),
    /// In this variable.
    Variable(String),
    /// In a flag.
    Flag,
}

/// All mistakes of a configuration, and its warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    /// At least one.
    pub mistakes: Vec<Mistake>,
    /// What is doubtful besides.
    pub warnings: Vec<Warning>,
}

impl Mistakes {
    /// One mistake that is about a file and not about a key.
    pub(super) fn of_file(file: String, text: String) -> Mistakes {
        let mistake = Mistake { key: file, place: Place::Nowhere, text };
        Mistakes { mistakes: vec![mistake], warnings: Vec::new() }
    }
}

/// Mistakes as key and text; the place is looked up later.
pub(super) type KeyedMistakes = Vec<(String, String)>;

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

/// The candidate that looks most like `word`, when one does.
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

/// Bytes of a word that may be a slip of the pen.
const WORD_MAX: usize = 100;

/// Insertions, deletions and replacements that lead from one to the other (Levenshtein).
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
