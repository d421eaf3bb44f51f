//! Surveys: questions to all nodes, and their answers.
//!
//! Invariant: a survey ends when every node with a valid lease has answered, or after
//! [`SURVEY_TIMEOUT`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use engine::broker::{BrokerError, Survey, Ticket};
use tokio::sync::Notify;

use super::link::NatsLink;
use super::presence::PresenceStore;
use crate::control;
use crate::limits::SURVEY_TIMEOUT;
use crate::survey_answers::SurveyAnswers;

/// See the module.
pub(super) struct OpenSurveys {
    link: Rc<NatsLink>,
    presence: Rc<PresenceStore>,
    /// By their numbers; each is a request.
    open: RefCell<HashMap<u64, SurveyAnswers>>,
    /// A survey has become complete.
    has_completed: Notify,
    next: Cell<u64>,
}

impl OpenSurveys {
    pub(super) fn new(link: Rc<NatsLink>, presence: Rc<PresenceStore>) -> OpenSurveys {
        let (open, next) = (RefCell::default(), Cell::new(0));
        OpenSurveys { link, presence, open, has_completed: Notify::new(), next }
    }

    /// Asks all nodes. Without JetStream the nodes are not known, and the survey takes
    /// [`SURVEY_TIMEOUT`].
    pub(super) async fn ask(&self, question: &[u8]) -> Result<Survey, BrokerError> {
        let names = &self.link.names;
        let mut missing = None;
        if self.link.has_jetstream {
            let living = self.presence.living().await?.into_iter();
            missing = Some(living.filter(|node| *node != names.node).collect());
        }
        let number = self.next.replace(self.next.get() + 1);
        self.open.borrow_mut().insert(number, SurveyAnswers::new(missing));
        let ticket = Ticket { node: names.node.clone(), number };
        let payload = control::encode_question(&ticket, question).into();
        let published = self.link.publish(names.control(), payload).await;
        if published.is_ok() {
            // After the timeout the survey has what was answered until then.
            let _late = tokio::time::timeout(SURVEY_TIMEOUT, self.completed(number)).await;
        }
        let survey = self.open.borrow_mut().remove(&number);
        published.map(|()| survey.map(SurveyAnswers::finish).unwrap_or_default())
    }

    async fn completed(&self, number: u64) {
        loop {
            let has_completed = self.has_completed.notified();
            if self.open.borrow().get(&number).is_none_or(SurveyAnswers::is_complete) {
                return;
            }
            has_completed.await;
        }
    }

    /// Passes an answer of a node on to its survey, which may have ended.
    pub(super) fn handle_answer(&self, node: &str, number: u64, answer: Bytes) {
        if let Some(survey) = self.open.borrow_mut().get_mut(&number) {
            survey.handle(node, answer);
            if survey.is_complete() {
                self.has_completed.notify_waiters();
            }
        }
    }
}
