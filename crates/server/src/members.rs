//! This node among the others: it asks them, answers them, and follows what is changed in `sys:config`.
//!
//! Invariant: an answer about the cluster says how many nodes it lacks; a change of configuration that this node cannot follow is
//! told to operators and changes nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use brokers::Broker;
use engine::broker::{BrokerReply, BrokerRequest, HistoryQuery, JoinRead, PublishOptions, Survey};
use engine::channel::CONFIG;
use engine::rules::Rules;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc};
use tracing::{info, warn};
use wire::protocol::{HistoryResult, Publication, StreamPosition};

use crate::asker::{Asked, Asker};
use crate::config::Changeable;
use crate::limits::{
    ANSWER_SIZE_MAX, CLIENTS_ANSWER_MAX, CONFIG_RETRY_AFTER, QUESTIONS_MAX, SURVEYS_MAX,
};
use crate::node::{Node, Silent};

/// See the module.
pub(crate) struct Members {
    pub(crate) asker: Asker,
    node: Arc<Node>,
    followed: Mutex<Followed>,
    /// Something was changed in the configuration, or may have been.
    is_changed: Arc<Notify>,
    /// Answers of other nodes are large; few are on their way at once.
    turns: Semaphore,
}

/// How far this node has followed.
struct Followed {
    changeable: Changeable,
    rules: Arc<Rules>,
    position: StreamPosition,
}

/// What this node knows of changes, and the broker does not any more.
struct Lost {
    /// Of the new life of the stream.
    epoch: String,
    /// By namespace.
    changes: Vec<(String, Vec<u8>)>,
}

/// What a node may be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(crate) enum Question {
    /// Who are you, and what have you?
    Info,
    /// Which channels are heard, and by how many?
    Channels {
        /// A glob.
        pattern: String,
    },
    /// By how many is this one heard?
    Channel {
        /// Its name.
        channel: String,
    },
    /// Which clients have you?
    Clients {
        /// Of this user; `None` for any.
        user: Option<String>,
        /// This one; `None` for all of the user.
        client: Option<String>,
    },
}

/// What a node says of itself (§3.3).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeInfo {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) num_clients: usize,
    pub(crate) num_users: usize,
    pub(crate) num_subs: usize,
    pub(crate) num_channels: usize,
    pub(crate) uptime: u64,
}

/// Channels of a node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Heard {
    pub(crate) channels: BTreeMap<String, usize>,
    /// There are more.
    pub(crate) is_cut: bool,
}

/// Clients of a node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Present {
    pub(crate) clients: Vec<ClientPlace>,
    /// There are more.
    pub(crate) is_cut: bool,
}

/// Where a client is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClientPlace {
    pub(crate) client: String,
    pub(crate) user: String,
    /// The name of its node.
    pub(crate) node: String,
    /// Unix milliseconds.
    pub(crate) connected_at: i64,
    pub(crate) channels: Vec<String>,
}

/// What nodes said, this one first, and how many said nothing.
pub(crate) struct Answers<T> {
    pub(crate) answers: Vec<T>,
    pub(crate) missing: usize,
}

impl Members {
    /// Joins, and reads what was changed in the configuration before.
    pub(crate) async fn join(
        broker: Arc<dyn Broker>,
        node: Arc<Node>,
        changeable: Changeable,
    ) -> (Arc<Members>, mpsc::Receiver<Asked>) {
        let (sender, questions) = mpsc::channel(QUESTIONS_MAX);
        let is_changed = Arc::new(Notify::new());
        let asker = Asker::listening(broker, sender, is_changed.clone());
        let (rules, position) = (node.rules(), StreamPosition::default());
        let followed = Mutex::new(Followed { changeable, rules, position });
        let turns = Semaphore::new(SURVEYS_MAX);
        let members = Arc::new(Members { asker, node, followed, is_changed, turns });
        members.listen().await;
        (members, questions)
    }

    /// Answers other nodes and follows changes. Does not end.
    pub(crate) async fn run(self: Arc<Members>, mut questions: mpsc::Receiver<Asked>) {
        loop {
            tokio::select! {
                Some((ticket, question)) = questions.recv() => {
                    // A node of another version may ask what this one does not know; it hears nothing then.
                    if let Ok(question) = serde_json::from_slice(&question)
                        && let Ok(answer) = self.answer(&question).await
                    {
                        self.asker.tell(BrokerRequest::Answer { ticket, answer: answer.into() });
                    }
                }
                () = self.is_changed.notified() => self.follow().await,
            }
        }
    }

    /// What this node says, as JSON.
    async fn answer(&self, question: &Question) -> Result<String, Silent> {
        fn json(answer: &impl Serialize) -> String {
            serde_json::to_string(answer).expect("answers are JSON")
        }
        Ok(match question {
            Question::Info => json(&self.node.info().await?),
            Question::Channels { pattern } => json(&self.node.heard(pattern).await?),
            Question::Channel { channel } => {
                json(&self.node.census().await?.get(&**channel).copied().unwrap_or(0))
            }
            Question::Clients { user, client } => {
                json(&self.node.clients(user.clone(), client.clone()).await?)
            }
        })
    }

    /// What all nodes say.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        question: &Question,
    ) -> Result<Answers<T>, Silent> {
        let asked = serde_json::to_vec(question).expect("questions are JSON").into();
        let ask = |id| BrokerRequest::Survey { id, question: asked };
        let _turn = self.turns.acquire().await.map_err(|_| Silent)?;
        let (own, others) = tokio::join!(self.answer(question), self.asker.ask(ask));
        let Ok(BrokerReply::Survey(Survey { answers, missing })) = others else {
            return Err(Silent);
        };
        let own = own?.into();
        let said = answers.len();
        let answers: Vec<T> = std::iter::once(own)
            .chain(answers)
            .filter_map(|answer| serde_json::from_slice(&answer).ok())
            .collect();
        // A node of another version says what this one does not understand.
        let missing = missing + (said + 1).saturating_sub(answers.len());
        Ok(Answers { answers, missing })
    }

    /// Whether a change of the configuration can be followed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self, change: &[u8]) -> Result<(), String> {
        let followed = self.followed();
        followed.changeable.clone().change(change, &followed.rules).map(|_| ())
    }

    /// Hears of changes from here on.
    async fn listen(&self) {
        let meta_ttl_ms = self.node.rules().channels.system.history_meta_ttl_ms;
        let (channel, read) = (CONFIG.into(), JoinRead::Position { meta_ttl_ms });
        let ask = |id| BrokerRequest::Subscribe { id, channel, read };
        match self.asker.ask(ask).await {
            Ok(BrokerReply::Subscribed(stream)) if stream.top.offset == 0 => {}
            // What was there before is read.
            _ => self.follow().await,
        }
    }

    /// Reads what this node has not followed, and follows.
    async fn follow(&self) {
        match self.changes().await {
            Some(history) => {
                if let Some(Lost { epoch, changes }) = self.apply(history) {
                    self.restore(&epoch, changes).await;
                }
            }
            None => {
                // The broker is away: once more in a while.
                let is_changed = self.is_changed.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(CONFIG_RETRY_AFTER).await;
                    is_changed.notify_one();
                });
            }
        }
    }

    /// Follows what was read; gives what the broker has lost.
    fn apply(&self, history: HistoryResult) -> Option<Lost> {
        let HistoryResult { publications, epoch, offset } = history;
        let mut followed = self.followed();
        if epoch != followed.position.epoch {
            let is_first = followed.position.epoch.is_empty();
            followed.position = StreamPosition { offset: 0, epoch: epoch.clone() };
            if publications.is_empty() && !is_first {
                // What was followed holds on, and whoever starts later must know it too.
                let changes = followed.changeable.changes();
                return Some(Lost { epoch, changes });
            }
            followed.changeable.reset();
        }
        let new = publications.iter().filter(|one| one.offset > followed.position.offset);
        let new: Vec<_> = new.cloned().collect();
        if new.is_empty() {
            return None;
        }
        for publication in new {
            let Followed { changeable, rules, .. } = &mut *followed;
            match changeable.change(&publication.data, rules) {
                Ok(changed) => *rules = Arc::new(changed),
                Err(mistake) => {
                    warn!(offset = publication.offset, %mistake, "a change in sys:config is left out");
                }
            }
        }
        followed.position.offset = offset;
        info!(offset, "options of namespaces have changed (sys:config)");
        self.node.set_rules(&followed.rules);
        None
    }

    /// Publishes again what the broker has lost; of all nodes that do, one is heard.
    async fn restore(&self, epoch: &str, changes: Vec<(String, Vec<u8>)>) {
        let options = self.node.rules().channels.system.publish_options();
        for (namespace, change) in changes {
            let key = format!("restored {epoch} {namespace}");
            let options = PublishOptions { idempotency_key: key, ..options.clone() };
            let publication = Publication { data: change.into(), ..Publication::default() };
            let channel = CONFIG.into();
            let publish = |id| BrokerRequest::Publish { id, channel, publication, options };
            if let Err(error) = self.asker.ask(publish).await {
                warn!(%error, namespace, "changed options are lost at the broker (sys:config); publish them again");
            }
        }
    }

    async fn changes(&self) -> Option<HistoryResult> {
        let meta_ttl_ms = self.node.rules().channels.system.history_meta_ttl_ms;
        let (channel, query) = (CONFIG.into(), HistoryQuery::default());
        let ask = |id| BrokerRequest::History { id, channel, query, meta_ttl_ms };
        match self.asker.ask(ask).await {
            Ok(BrokerReply::History(history)) => Some(history),
            _ => None,
        }
    }

    fn followed(&self) -> std::sync::MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    /// Adds a channel while the answer is not too long to be sent.
    pub(crate) fn add(&mut self, size: &mut usize, name: &str, clients: usize) {
        *size += name.len() + 16;
        if *size > ANSWER_SIZE_MAX {
            self.is_cut = true;
        } else {
            *self.channels.entry(name.to_owned()).or_default() += clients;
        }
    }
}

impl Present {
    /// Adds a client while the answer is not too long to be sent.
    pub(crate) fn add(&mut self, size: &mut usize, client: ClientPlace) {
        let channels: usize = client.channels.iter().map(|channel| channel.len() + 4).sum();
        *size += channels + client.user.len() + CLIENT_SIZE;
        if *size > ANSWER_SIZE_MAX || self.clients.len() >= CLIENTS_ANSWER_MAX {
            self.is_cut = true;
        } else {
            self.clients.push(client);
        }
    }
}

/// Bytes of a client in an answer beside its user and channels.
const CLIENT_SIZE: usize = 200;
