//! Questions of this node to the other nodes, and its answers to theirs.
//!
//! Invariant: a result about the cluster includes the number of nodes that did not answer.

use std::sync::Arc;
use std::time::Duration;

use brokers::BrokerParts;
use engine::broker::{NodeBusRequest, Survey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, Notify, Semaphore, mpsc};

use crate::cluster::dynamic_config::DynamicConfig;
use crate::cluster::node::Node;
use crate::cluster::questions::Question;
use crate::cluster::revocation_sync;
use crate::cluster::service_endpoint::{NodeQuestion, ServiceEndpoint};
use crate::cluster::survey::WorkerTimeout;
use crate::config::Changeable;
use crate::limits::{NODE_QUERIES_QUEUED_MAX, SURVEYS_MAX};
use crate::pattern::ChannelPattern;

/// This node as a member of the cluster.
pub(crate) struct Members {
    pub(crate) service: ServiceEndpoint,
    pub(crate) dynamic_config: DynamicConfig,
    node: Arc<Node>,
    /// Limits concurrent surveys, because answers may be large.
    turns: Semaphore,
    questions: Mutex<mpsc::Receiver<NodeQuestion>>,
}

/// Answers of nodes, that of this node first.
pub(crate) struct Answers<T> {
    pub(crate) answers: Vec<T>,
    pub(crate) missing: usize,
}

impl Members {
    /// Joins the cluster after earlier dynamic configuration and revocations are applied. Returns
    /// `None` if they cannot be read within `patience`.
    pub(crate) async fn join(
        broker: Arc<BrokerParts>,
        node: Arc<Node>,
        changeable: Changeable,
        patience: Option<Duration>,
    ) -> Option<Arc<Members>> {
        let (sender, questions) = mpsc::channel(NODE_QUERIES_QUEUED_MAX);
        let is_changed = Arc::new(Notify::new());
        let service = ServiceEndpoint::new(broker, sender, is_changed.clone(), node.clone());
        let dynamic_config = DynamicConfig::new(node.clone(), changeable, is_changed);
        let applying = async {
            dynamic_config.apply_at_start(&service).await;
            revocation_sync::read_at_start(&service, &node).await;
        };
        match patience {
            Some(patience) => tokio::time::timeout(patience, applying).await.ok()?,
            None => applying.await,
        }
        let turns = Semaphore::new(SURVEYS_MAX);
        let questions = Mutex::new(questions);
        Some(Arc::new(Members { service, dynamic_config, node, turns, questions }))
    }

    /// Workers, rules and revocations of this node.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Answers the questions of other nodes. Does not return.
    pub(crate) async fn answer_questions(self: Arc<Members>) {
        let mut questions = self.questions.lock().await;
        while let Some((ticket, question)) = questions.recv().await {
            // Unknown questions of nodes of another version are not answered.
            if let Ok(question) = serde_json::from_slice(&question)
                && let Ok(answer) = self.answer(&question).await
            {
                self.service.send(NodeBusRequest::Answer { ticket, answer: answer.into() });
            }
        }
    }

    /// Applies dynamic configuration. Does not return.
    pub(crate) async fn run_dynamic_config(self: Arc<Members>) {
        loop {
            self.dynamic_config.apply_new(&self.service).await;
            self.dynamic_config.changed().await;
        }
    }

    /// Keeps the revocations of this node and the broker equal. Does not return.
    pub(crate) async fn synchronize_revocations(self: Arc<Members>) {
        revocation_sync::run(&self.service, &self.node).await;
    }

    /// The answer of this node, as JSON.
    async fn answer(&self, question: &Question) -> Result<String, WorkerTimeout> {
        fn json(answer: &impl Serialize) -> String {
            serde_json::to_string(answer).expect("answers are JSON")
        }
        Ok(match question {
            Question::Info => json(&self.node.info().await?),
            Question::Channels { pattern } => {
                let pattern = ChannelPattern::new(pattern).map_err(|_| WorkerTimeout)?;
                json(&self.node.active_channels(pattern).await?)
            }
            Question::Channel { channel } => {
                json(&self.node.channel_counts().await?.get(&**channel).copied().unwrap_or(0))
            }
            Question::Clients { user, client } => {
                json(&self.node.clients(user.clone(), client.clone()).await?)
            }
            Question::Subscribers { channel, after, limit } => {
                json(&self.node.subscribers(channel.clone(), after.clone(), *limit).await?)
            }
        })
    }

    /// Asks all nodes, including this one.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        question: &Question,
    ) -> Result<Answers<T>, WorkerTimeout> {
        let asked = serde_json::to_vec(question).expect("questions are JSON").into();
        let ask = |id| NodeBusRequest::Survey { id, question: asked };
        let _turn = self.turns.acquire().await.map_err(|_| WorkerTimeout)?;
        let (own, others) = tokio::join!(self.answer(question), self.service.ask(ask));
        let Survey { answers, missing } = others.map_err(|_| WorkerTimeout)?;
        let own = own?.into();
        let said = answers.len();
        let answers: Vec<T> = std::iter::once(own)
            .chain(answers)
            .filter_map(|answer| serde_json::from_slice(&answer).ok())
            .collect();
        // Answers that cannot be decoded, of nodes of another version, count as missing.
        let missing = missing + (said + 1).saturating_sub(answers.len());
        Ok(Answers { answers, missing })
    }
}
