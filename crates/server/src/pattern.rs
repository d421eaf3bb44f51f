//! Glob patterns of channel names: `*`, `?`, character classes `[a-z]` and alternatives `{a,b}`.
//!
//! Invariant: the size of a compiled pattern is bounded, and matching takes time linear in the
//! length of the name.

use globset::GlobBuilder;
use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

use crate::limits::{PATTERN_LENGTH_MAX, PATTERN_SIZE_MAX};

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct ChannelPattern(Regex);

/// Reason for which a pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PatternError {
    #[error("a pattern has {PATTERN_LENGTH_MAX} bytes at most")]
    TooLong,
    #[error("the pattern is not a glob such as chat:*")]
    NoGlob,
    #[error("the pattern is too complex: write fewer alternatives")]
    TooComplex,
}

impl ChannelPattern {
    /// Compiles a pattern. The empty pattern matches every name.
    pub(crate) fn new(pattern: &str) -> Result<ChannelPattern, PatternError> {
        if pattern.len() > PATTERN_LENGTH_MAX {
            return Err(PatternError::TooLong);
        }
        let pattern = if pattern.is_empty() { "*" } else { pattern };
        let glob = GlobBuilder::new(pattern).build().map_err(|_| PatternError::NoGlob)?;
        // The matcher of `globset` panics when its expression is refused.
        let mut expression = RegexBuilder::new(glob.regex());
        expression.size_limit(PATTERN_SIZE_MAX).dfa_size_limit(PATTERN_SIZE_MAX);
        expression.build().map(ChannelPattern).map_err(|_| PatternError::TooComplex)
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_globs_do() {
        for (pattern, name, expected) in [
            ("", "chat:a", true),
            ("*", "chat:a/b", true),
            ("chat:*", "chat:a", true),
            ("chat:*", "news:a", false),
            ("chat:?", "chat:ab", false),
            ("chat:[ab]", "chat:b", true),
            ("{chat,news}:*", "news:x", true),
            ("#j\u{fc}rgen", "#j\u{fc}rgen", true),
        ] {
            assert_eq!(ChannelPattern::new(pattern).unwrap().matches(name), expected, "{pattern}");
        }
    }

    #[test]
    fn patterns_that_would_cost_too_much_are_refused() {
        let long = "x".repeat(PATTERN_LENGTH_MAX);
        assert!(ChannelPattern::new(&long).is_ok());
        assert_eq!(ChannelPattern::new(&format!("{long}x")).unwrap_err(), PatternError::TooLong);
        assert_eq!(ChannelPattern::new("[a").unwrap_err(), PatternError::NoGlob);
        // Each of these compiles or fails quickly, without a panic.
        for piece in ["{a,b}", "*a", "[a-\u{10ffff}]", "{", "{a,", "?", "**/", "\\"] {
            let pattern = piece.repeat(PATTERN_LENGTH_MAX / piece.len());
            if let Ok(pattern) = ChannelPattern::new(&pattern) {
                pattern.matches(&"a".repeat(255));
            }
        }
    }
}
