//! The answers of other nodes to one question.
//!
//! Invariant: each node counts once, and the answers have at most [`SURVEY_BYTES_MAX`] bytes; a
//! node whose answer does not fit counts as missing. Pure.

use std::collections::BTreeSet;

use bytes::Bytes;
use engine::broker::Survey;

use crate::limits::{NODES_MAX, SURVEY_BYTES_MAX};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SurveyAnswers {
    /// Nodes that must answer; `None` while the nodes are not known, so that all time is used.
    missing: Option<BTreeSet<String>>,
    answered: BTreeSet<String>,
    answers: Vec<Bytes>,
    bytes: usize,
}

impl SurveyAnswers {
    pub(super) fn new(missing: Option<BTreeSet<String>>) -> SurveyAnswers {
        SurveyAnswers { missing, ..SurveyAnswers::default() }
    }

    /// Adds the answer of a node.
    pub(super) fn handle(&mut self, node: String, answer: Bytes) {
        let is_full = self.answers.len() >= NODES_MAX
            || self.bytes + answer.len() > SURVEY_BYTES_MAX
            || self.answered.contains(&node);
        if is_full {
            return;
        }
        if let Some(missing) = &mut self.missing {
            missing.remove(&node);
        }
        self.bytes += answer.len();
        self.answers.push(answer);
        self.answered.insert(node);
    }

    /// Returns whether no further answer is awaited.
    pub(super) fn is_complete(&self) -> bool {
        let has_all = self.missing.as_ref().is_some_and(BTreeSet::is_empty);
        has_all || self.answers.len() >= NODES_MAX
    }

    pub(super) fn finish(self) -> Survey {
        let missing = self.missing.map_or(0, |missing| missing.len());
        Survey { answers: self.answers, missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survey_is_complete_when_every_known_node_has_answered_once() {
        let nodes = ["a", "b"].map(str::to_owned).into();
        let mut survey = SurveyAnswers::new(Some(nodes));
        for (node, is_complete) in [("a", false), ("a", false), ("c", false), ("b", true)] {
            survey.handle(node.to_owned(), Bytes::from_static(b"{}"));
            assert_eq!(survey.is_complete(), is_complete, "{node}");
        }
        let survey = survey.finish();
        assert_eq!((survey.answers.len(), survey.missing), (3, 0));
        let mut unknown = SurveyAnswers::new(None);
        unknown.handle("a".to_owned(), Bytes::new());
        assert!(!unknown.is_complete());
        assert_eq!(unknown.finish().answers.len(), 1);
    }

    #[test]
    fn answers_are_bounded_in_bytes_and_a_node_beyond_counts_as_missing() {
        let nodes = ["a", "b", "c"].map(str::to_owned).into();
        let mut survey = SurveyAnswers::new(Some(nodes));
        for node in ["a", "b", "c"] {
            survey.handle(node.to_owned(), Bytes::from(vec![0; SURVEY_BYTES_MAX / 2]));
        }
        let survey = survey.finish();
        assert_eq!((survey.answers.len(), survey.missing), (2, 1));
    }
}
