//! Questions to all nodes, and their answers.
//!
//! Invariant: a question ends when every node that is known to live has answered, or when its time
//! is over.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use bytes::Bytes;
use engine::broker::{BrokerError, Survey, Ticket};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::link::NatsLink;
use super::presence::PresenceStore;
use crate::control;
use crate::limits::SURVEY_TIMEOUT;

/// See the module.
pub(super) struct OpenSurveys {
    link: Rc<NatsLink>,
    presence: Rc<PresenceStore>,
    open: RefCell<HashMap<u64, UnboundedSender<(String, Bytes)>>>,
    next: std::cell::Cell<u64>,
}

impl OpenSurveys {
    pub(super) fn new(link: Rc<NatsLink>, presence: Rc<PresenceStore>) -> OpenSurveys {
        OpenSurveys { link, presence, open: RefCell::default(), next: std::cell::Cell::new(0) }
    }

    /// Asks. Without JetStream nobody knows who lives: then the time is waited for.
    pub(super) async fn ask(&self, question: &[u8]) -> Result<Survey, BrokerError> {
        let number = self.next.replace(self.next.get() + 1);
        let (sender, mut said) = unbounded_channel();
        self.open.borrow_mut().insert(number, sender);
        let result = self.collect(number, question, &mut said).await;
        self.open.borrow_mut().remove(&number);
        result
    }

    async fn collect(
        &self,
        number: u64,
        question: &[u8],
        said: &mut tokio::sync::mpsc::UnboundedReceiver<(String, Bytes)>,
    ) -> Result<Survey, BrokerError> {
        let names = &self.link.names;
        let mut missing: HashSet<String> = self.presence.living().await?.into_iter().collect();
        missing.remove(&names.node);
        let ticket = Ticket { node: names.node.clone(), number };
        let payload = control::encode_question(&ticket, question).into();
        self.link.publish(names.control(), payload).await?;
        let end = tokio::time::Instant::now() + SURVEY_TIMEOUT;
        let mut answers = Vec::new();
        while !self.link.keeps || !missing.is_empty() {
            match tokio::time::timeout_at(end, said.recv()).await {
                Ok(Some((node, answer))) => {
                    missing.remove(&node);
                    answers.push(answer);
                }
                _ => break,
            }
        }
        Ok(Survey { answers, missing: missing.len() })
    }

    /// A node has answered.
    pub(super) fn handle_answer(&self, node: String, number: u64, answer: Bytes) {
        if let Some(asking) = self.open.borrow().get(&number) {
            // Whoever asked has stopped waiting otherwise.
            let _late = asking.send((node, answer));
        }
    }
}
