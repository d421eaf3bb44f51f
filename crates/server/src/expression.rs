//! Regular expressions of the configuration, in the syntax of the compatible server (RE2 in Go).
//!
//! Invariant: an accepted expression has the same meaning as there: `\d`, `\w` and `\s` are ASCII,
//! character classes have no operators, braces that are not a repetition are literal, and the text
//! in `\Q…\E` is literal.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

use crate::limits::EXPRESSION_SIZE_MAX;

/// Compiles an expression.
///
/// # Errors
/// A description of the mistake, in one line.
pub(crate) fn compile(text: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(&translated(text));
    builder.size_limit(EXPRESSION_SIZE_MAX).dfa_size_limit(EXPRESSION_SIZE_MAX);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            "is too large an expression: write fewer or smaller repetitions".to_owned()
        }
        // The library draws the position of the mistake and describes it in the last line.
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            let fault = last.trim().trim_start_matches("error: ");
            format!("is not a regular expression: {fault}")
        }
    })
}

/// Translates an expression into the syntax of the library.
fn translated(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut out, &mut rest),
            '[' => class(&mut out, &mut rest),
            '{' if !is_repetition(&rest) => out.push_str("\\{"),
            '{' => {
                out.push(c);
                out.extend(rest.by_ref().take_while(|c| *c != '}'));
                out.push('}');
            }
            '}' => out.push_str("\\}"),
            c => out.push(c),
        }
    }
    out
}

/// Translates an escape outside a character class.
fn escape(out: &mut String, rest: &mut Peekable<Chars<'_>>) {
    match rest.next() {
        Some('Q') => {
            let quoted: String = rest.by_ref().collect();
            let (literal, behind) = quoted.split_once("\\E").unwrap_or((&quoted, ""));
            out.push_str(&regex::escape(literal));
            out.push_str(&translated(behind));
        }
        Some(mark @ ('b' | 'B')) => {
            // An ASCII word boundary. The library accepts `\B` on texts only with Unicode.
            out.push_str(if mark == 'b' { "(?-u:\\b)" } else { "\\B" });
        }
        Some(mark) => perl_or_same(out, mark, rest),
        // The library reports the incomplete escape.
        None => out.push('\\'),
    }
}

/// Writes a Perl class as its ASCII equivalent, and any other escape unchanged.
fn perl_or_same(out: &mut String, mark: char, rest: &mut Peekable<Chars<'_>>) {
    match mark {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str("[\\t\\n\\f\\r ]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        mark => {
            out.extend(['\\', mark]);
            if matches!(mark, 'p' | 'P' | 'x') && rest.next_if_eq(&'{').is_some() {
                out.push('{');
                out.extend(rest.by_ref().take_while(|c| *c != '}'));
                out.push('}');
            }
        }
    }
}

/// Translates a character class up to its end. A closing bracket at its beginning is a member.
fn class(out: &mut String, rest: &mut Peekable<Chars<'_>>) {
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    if rest.next_if_eq(&']').is_some() {
        out.push_str("\\]");
    }
    while let Some(c) = rest.next() {
        match c {
            ']' => {
                out.push(']');
                return;
            }
            '\\' => match rest.next() {
                Some(mark) => perl_or_same(out, mark, rest),
                None => out.push('\\'),
            },
            // `[:alpha:]`
            '[' if rest.peek() == Some(&':') => {
                out.push('[');
                out.extend(rest.by_ref().take_while(|c| *c != ']'));
                out.push(']');
            }
            // Operators of the library that are members in RE2.
            '[' | '&' | '~' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
}

/// Whether a repetition follows an opening brace: `2}`, `2,}` or `2,3}`.
fn is_repetition(rest: &Peekable<Chars<'_>>) -> bool {
    let inside: String = rest.clone().take_while(|c| *c != '}').collect();
    let is_closed = rest.clone().any(|c| c == '}');
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (least, most) = inside.split_once(',').unwrap_or((&inside, ""));
    is_closed && !least.is_empty() && is_number(least) && is_number(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_as_in_the_compatible_server() {
        for (expression, matching, other) in [
            (r"^\d+$", "12", "\u{664}"),
            (r"^\w+$", "ab_1", "\u{e4}"),
            (r"^[\w-]+$", "a-b", "\u{e4}"),
            (r"^[^\d]+$", "a\u{664}", "1"),
            (r"^a\s\S$", "a b", "a\u{a0}b"),
            (r"^\Q[a]\E\z", "[a]", "a"),
            (r"^\Qa.b", "a.b", "axb"),
            (r"^a{,5}$", "a{,5}", "aaa"),
            (r"^a{2,3}$", "aa", "a"),
            (r"^[a-z]{3,}}{$", "abc}{", "abc"),
            (r"^[[a]$", "[", "b"),
            (r"^[]a]+$", "]a", "b"),
            (r"^[a&&b]+$", "&", "c"),
            (r"^[[:alpha:]&]+$", "a&", "1"),
            (r"^\x{41}\p{Greek}$", "A\u{3b1}", "Aa"),
            (r"^(?i)(?P<name>one|two)$", "ONE", "three"),
            (r"\bone\b", "a one", "ones"),
        ] {
            let regex = compile(expression).unwrap_or_else(|fault| panic!("{expression}: {fault}"));
            assert!(regex.is_match(matching), "{expression} {matching}");
            assert!(!regex.is_match(other), "{expression} {other}");
        }
    }

    #[test]
    fn invalid_expressions_are_reported_in_one_line() {
        let deep = format!("{}a{}", "(".repeat(1_000), ")".repeat(1_000));
        for (expression, wanted) in [
            ("(", "unclosed group"),
            ("[a", "unclosed character class"),
            ("a\\", "incomplete escape"),
            ("(?=a)b", "look-around"),
            (r"(a)\1", "backreferences"),
            ("(a{1000}){1000}", "too large"),
            (&deep, "nest"),
        ] {
            let fault = compile(expression).unwrap_err();
            assert!(fault.contains(wanted) && fault.lines().count() == 1, "{fault}");
            assert!(fault.len() < 150, "{fault}");
        }
    }
}
