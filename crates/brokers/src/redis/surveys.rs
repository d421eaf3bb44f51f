//! Surveys of this node that wait for answers of other nodes.
//!
//! Invariant: a survey ends once: when no answer is missing, at its deadline, or when its question
//! could not be sent.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use engine::broker::{BrokerError, Survey, Ticket};

use super::clock::MonotonicTime;
use super::link::Purpose;
use super::open_request::Asker;
use super::outputs::CoreOutputs;
use super::servers::{CoreTurn, FIRST};
use crate::control;
use crate::limits::SURVEY_TIMEOUT;
use crate::survey_answers::SurveyAnswers;

/// Open surveys by number.
#[derive(Default)]
pub(super) struct SurveyTable {
    open: BTreeMap<u64, OpenSurvey>,
}

/// A survey that waits for answers.
pub(super) struct OpenSurvey {
    asker: Asker<Survey>,
    /// `None` until Redis has listed the live nodes.
    answers: Option<SurveyAnswers>,
    deadline: MonotonicTime,
}

impl SurveyTable {
    /// Sends a survey to all other nodes.
    pub(super) fn ask(&mut self, turn: &mut CoreTurn<'_>, asker: Asker<Survey>, question: &[u8]) {
        let (now, number) = (turn.now.time, turn.servers.random_number());
        let ticket = Ticket { node: turn.servers.encoder.node.clone(), number };
        let payload = control::encode_question(&ticket, question);
        let is_sent = turn.servers.write(now, FIRST, Purpose::Survey(number), |_, target, out| {
            target.survey(&payload, out);
        });
        if !is_sent {
            return turn.outputs.answer(&asker, Err(BrokerError::Unavailable));
        }
        self.begin(number, asker, now + SURVEY_TIMEOUT);
    }

    /// Ends surveys whose deadline has passed.
    pub(super) fn end_overdue(&mut self, now: MonotonicTime, outputs: &mut CoreOutputs) {
        self.take_overdue(now).into_iter().for_each(|survey| survey.end(outputs));
    }

    /// The question of a survey has been sent.
    fn begin(&mut self, number: u64, asker: Asker<Survey>, deadline: MonotonicTime) {
        let survey = OpenSurvey { asker, answers: None, deadline };
        self.open.insert(number, survey);
    }

    /// Redis has listed the nodes that received the question. Returns the survey if it has ended.
    pub(super) fn handle_nodes(
        &mut self,
        number: u64,
        nodes: BTreeSet<String>,
    ) -> Option<OpenSurvey> {
        self.open.get_mut(&number)?.answers = Some(SurveyAnswers::new(Some(nodes)));
        self.remove_if_done(number)
    }

    /// A node has answered. Returns the survey if it has ended.
    pub(super) fn handle_answer(
        &mut self,
        number: u64,
        node: &str,
        answer: Bytes,
    ) -> Option<OpenSurvey> {
        self.open.get_mut(&number)?.answers.as_mut()?.handle(node, answer);
        self.remove_if_done(number)
    }

    /// Removes surveys whose deadline has passed.
    fn take_overdue(&mut self, now: MonotonicTime) -> Vec<OpenSurvey> {
        self.open
            .extract_if(.., |_, survey| survey.deadline <= now)
            .map(|(_, survey)| survey)
            .collect()
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<OpenSurvey> {
        self.open.remove(&number)
    }

    fn remove_if_done(&mut self, number: u64) -> Option<OpenSurvey> {
        let survey = self.open.get(&number)?;
        if !survey.answers.as_ref()?.is_complete() {
            return None;
        }
        self.open.remove(&number)
    }
}

impl OpenSurvey {
    /// Answers the asker.
    pub(super) fn end(self, outputs: &mut CoreOutputs) {
        let (asker, result) = self.into_result();
        outputs.answer(&asker, result);
    }

    /// The asker and the result.
    fn into_result(self) -> (Asker<Survey>, Result<Survey, BrokerError>) {
        let answers = self.answers.map(SurveyAnswers::finish);
        (self.asker, answers.ok_or(BrokerError::Unavailable))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::broker::RequestId;

    use super::*;
    use crate::Endpoint;
    use crate::limits::SURVEY_BYTES_MAX;

    fn begin(surveys: &mut SurveyTable, number: u64, deadline: MonotonicTime) {
        let asker = Asker { endpoint: Endpoint(0), id: RequestId::new(number) };
        surveys.begin(number, asker, deadline);
    }

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_survey_ends_with_the_last_answer() {
        let (mut surveys, now) = (SurveyTable::default(), MonotonicTime::default());
        begin(&mut surveys, 1, now);
        assert!(surveys.handle_nodes(1, nodes(&["a", "b"])).is_none());
        assert!(surveys.handle_answer(1, "a", "x".into()).is_none());
        assert!(surveys.handle_answer(1, "a", "x".into()).is_none(), "an answer counts once");
        assert!(surveys.handle_answer(1, "c", "x".into()).is_none(), "not asked");
        let survey = surveys.handle_answer(1, "b", "y".into()).expect("all have answered");
        let answers = vec!["x".into(), "y".into()];
        assert_eq!(survey.into_result().1, Ok(Survey { answers, missing: 0 }));
        assert!(surveys.remove(1).is_none());
    }

    #[test]
    fn answers_are_bounded_in_bytes_and_a_node_beyond_counts_as_missing() {
        let (mut surveys, now) = (SurveyTable::default(), MonotonicTime::default());
        begin(&mut surveys, 1, now);
        surveys.handle_nodes(1, nodes(&["a", "b", "c"]));
        for node in ["a", "b", "c"] {
            let answer = vec![0; SURVEY_BYTES_MAX / 2].into();
            assert!(surveys.handle_answer(1, node, answer).is_none());
        }
        let survey = surveys.remove(1).expect("one answer is missing").into_result().1;
        let survey = survey.expect("the nodes are known");
        assert_eq!((survey.answers.len(), survey.missing), (2, 1));
    }

    #[test]
    fn a_survey_without_other_nodes_ends_at_once() {
        let (mut surveys, now) = (SurveyTable::default(), MonotonicTime::default());
        begin(&mut surveys, 1, now);
        assert!(surveys.handle_nodes(1, nodes(&[])).is_some());
    }

    #[test]
    fn an_overdue_survey_counts_missing_answers() {
        let (mut surveys, now) = (SurveyTable::default(), MonotonicTime::default());
        begin(&mut surveys, 1, now);
        begin(&mut surveys, 2, now);
        begin(&mut surveys, 3, now + Duration::from_secs(1));
        surveys.handle_nodes(1, nodes(&["a"]));
        let mut results: Vec<_> = surveys
            .take_overdue(now)
            .into_iter()
            .map(OpenSurvey::into_result)
            .map(|(asker, result)| (asker.id.number(), result))
            .collect();
        results.sort_by_key(|(number, _)| *number);
        let silent = Survey { answers: Vec::new(), missing: 1 };
        let expected = [(1, Ok(silent)), (2, Err(BrokerError::Unavailable))];
        assert_eq!(results, expected);
        assert!(surveys.remove(3).is_some());
    }
}
