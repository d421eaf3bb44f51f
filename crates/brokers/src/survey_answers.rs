//! The answers of other nodes to one question.
//!
//! Invariant: each node that was asked counts once, and the answers have at most
//! [`SURVEY_BYTES_MAX`] bytes; a node whose answer does not fit counts as missing. Pure.

use std::collections::BTreeSet;

use bytes::Bytes;
use engine::broker::Survey;

use crate::limits::{NODES_MAX, SURVEY_BYTES_MAX};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SurveyAnswers {
    /// Nodes that must answer; `None` while the nodes are not known, so that all time is used.
    missing: Option<BTreeSet<String>>,
    /// Nodes that have answered, while the nodes are not known.
    answered: BTreeSet<String>,
    answers: Vec<Bytes>,
    bytes: usize,
}

impl SurveyAnswers {
    pub(crate) fn new(missing: Option<BTreeSet<String>>) -> SurveyAnswers {
        SurveyAnswers { missing, ..SurveyAnswers::default() }
    }

    /// Adds the answer of a node.
    pub(crate) fn handle(&mut self, node: &str, answer: Bytes) {
        let is_asked = match &self.missing {
            Some(missing) => missing.contains(node),
            None => !self.answered.contains(node),
        };
        let has_room = self.answers.len() < NODES_MAX
            && self.bytes.saturating_add(answer.len()) <= SURVEY_BYTES_MAX;
        if !is_asked || !has_room {
            return;
        }
        match &mut self.missing {
            Some(missing) => {
                missing.remove(node);
            }
            None => {
                self.answered.insert(node.to_owned());
            }
        }
        self.bytes += answer.len();
        self.answers.push(answer);
    }

    /// Returns whether no further answer is awaited.
    pub(crate) fn is_complete(&self) -> bool {
        let has_all = self.missing.as_ref().is_some_and(BTreeSet::is_empty);
        has_all || self.answers.len() >= NODES_MAX
    }

    pub(crate) fn finish(self) -> Survey {
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
            survey.handle(node, Bytes::from_static(b"{}"));
            assert_eq!(survey.is_complete(), is_complete, "{node}");
        }
        let survey = survey.finish();
        assert_eq!((survey.answers.len(), survey.missing), (2, 0), "c was not asked");
        let mut unknown = SurveyAnswers::new(None);
        unknown.handle("a", Bytes::new());
        assert!(!unknown.is_complete());
        assert_eq!(unknown.finish().answers.len(), 1);
    }

    #[test]
    fn answers_are_bounded_in_bytes_and_a_node_beyond_counts_as_missing() {
        let nodes = ["a", "b", "c"].map(str::to_owned).into();
        let mut survey = SurveyAnswers::new(Some(nodes));
        for node in ["a", "b", "c"] {
            survey.handle(node, Bytes::from(vec![0; SURVEY_BYTES_MAX / 2]));
        }
        let survey = survey.finish();
        assert_eq!((survey.answers.len(), survey.missing), (2, 1));
    }
}
