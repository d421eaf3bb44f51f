//! Surveys: questions to all nodes, and their answers.
//!
//! Invariant: a survey ends when every node with a valid lease has answered, or after
//! [`SURVEY_TIMEOUT`].

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use bytes::Bytes;
use engine::broker::{BrokerError, Survey, Ticket};
use tokio::sync::mpsc;

use super::link::NatsLink;
use super::presence::PresenceStore;
use crate::control;
use crate::limits::{NODES_MAX, SURVEY_TIMEOUT};

/// See the module.
pub(super) struct OpenSurveys {
    link: Rc<NatsLink>,
    presence: Rc<PresenceStore>,
    /// Where the answers to a survey go, by its number.
    open: RefCell<HashMap<u64, mpsc::Sender<NodeAnswer>>>,
    next: std::cell::Cell<u64>,
}

/// The identifier of a node, and its answer.
type NodeAnswer = (String, Bytes);

impl OpenSurveys {
    pub(super) fn new(link: Rc<NatsLink>, presence: Rc<PresenceStore>) -> OpenSurveys {
        OpenSurveys { link, presence, open: RefCell::default(), next: std::cell::Cell::new(0) }
    }

    /// Asks all nodes. Without JetStream the nodes are not known, and the survey takes
    /// [`SURVEY_TIMEOUT`].
    pub(super) async fn ask(&self, question: &[u8]) -> Result<Survey, BrokerError> {
        let number = self.next.replace(self.next.get() + 1);
        let (sender, mut received) = mpsc::channel(NODES_MAX);
        self.open.borrow_mut().insert(number, sender);
        let result = self.collect(number, question, &mut received).await;
        self.open.borrow_mut().remove(&number);
        result
    }

    async fn collect(
        &self,
        number: u64,
        question: &[u8],
        received: &mut mpsc::Receiver<NodeAnswer>,
    ) -> Result<Survey, BrokerError> {
        let names = &self.link.names;
        let mut missing: HashSet<String> = self.presence.living().await?.into_iter().collect();
        missing.remove(&names.node);
        let ticket = Ticket { node: names.node.clone(), number };
        let payload = control::encode_question(&ticket, question).into();
        self.link.publish(names.control(), payload).await?;
        let end = tokio::time::Instant::now() + SURVEY_TIMEOUT;
        let mut answers = Vec::new();
        while (!self.link.has_jetstream || !missing.is_empty()) && answers.len() < NODES_MAX {
            match tokio::time::timeout_at(end, received.recv()).await {
                Ok(Some((node, answer))) => {
                    missing.remove(&node);
                    answers.push(answer);
                }
                _ => break,
            }
        }
        Ok(Survey { answers, missing: missing.len() })
    }

    /// Passes an answer of a node on to its survey.
    pub(super) fn handle_answer(&self, node: String, number: u64, answer: Bytes) {
        if let Some(asking) = self.open.borrow().get(&number) {
            // The survey may have ended.
            let _late = asking.try_send((node, answer));
        }
    }
}
