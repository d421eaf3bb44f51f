//! Follows options of namespaces that are changed while nodes run: publications in `sys:config`.
//!
//! Invariant: a change that this node cannot follow is told to operators and changes nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::broker::{BrokerReply, BrokerRequest, HistoryQuery, JoinRead, PublishOptions};
use engine::channel::CONFIG;
use engine::rules::Rules;
use tokio::sync::Notify;
use tracing::{info, warn};
use wire::protocol::{HistoryResult, Publication, StreamPosition};

use crate::asker::Asker;
use crate::config::Changeable;
use crate::limits::CONFIG_RETRY_AFTER;
use crate::node::Node;

/// See the module.
pub(crate) struct Changes {
    node: Arc<Node>,
    followed: Mutex<Followed>,
    /// Something was changed, or may have been.
    is_changed: Arc<Notify>,
}

/// How far this node has followed.
struct Followed {
    changeable: Changeable,
    rules: Arc<Rules>,
    position: StreamPosition,
    /// Whether the broker tells this node of changes.
    is_listening: bool,
}

/// What this node knows of changes, and the broker does not any more.
struct Lost {
    /// Of the new life of the stream.
    epoch: String,
    /// By namespace.
    changes: Vec<(String, Vec<u8>)>,
}

/// The broker has not answered.
struct Away;

impl Changes {
    pub(crate) fn new(node: Arc<Node>, changeable: Changeable, is_changed: Arc<Notify>) -> Changes {
        let (rules, position) = (node.rules(), StreamPosition::default());
        let followed = Followed { changeable, rules, position, is_listening: false };
        Changes { node, followed: Mutex::new(followed), is_changed }
    }

    /// Whether a change can be followed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self, change: &[u8]) -> Result<(), String> {
        let followed = self.followed();
        followed.changeable.clone().change(change, &followed.rules).map(|_| ())
    }

    /// Waits until there may be something to follow.
    pub(crate) async fn noticed(&self) {
        self.is_changed.notified().await;
    }

    /// Listens, reads what this node has not followed, and follows. What the broker does not answer is asked again in a while.
    pub(crate) async fn follow(&self, asker: &Asker) {
        if self.followed().changeable.refusal().is_none() && self.try_follow(asker).await.is_err() {
            let is_changed = self.is_changed.clone();
            tokio::spawn(async move {
                tokio::time::sleep(CONFIG_RETRY_AFTER).await;
                is_changed.notify_one();
            });
        }
    }

    async fn try_follow(&self, asker: &Asker) -> Result<(), Away> {
        if !self.followed().is_listening && self.listen(asker).await? == 0 {
            return Ok(());
        }
        if let Some(Lost { epoch, changes }) = self.apply(self.read(asker).await?) {
            self.restore(asker, &epoch, changes).await;
        }
        Ok(())
    }

    /// Hears of changes from here on; says how many there were.
    async fn listen(&self, asker: &Asker) -> Result<u64, Away> {
        let (channel, read) =
            (CONFIG.into(), JoinRead::Position { meta_ttl_ms: self.meta_ttl_ms() });
        let ask = |id| BrokerRequest::Subscribe { id, channel, read };
        let Ok(BrokerReply::Subscribed(stream)) = asker.ask(ask).await else { return Err(Away) };
        self.followed().is_listening = true;
        Ok(stream.top.offset)
    }

    async fn read(&self, asker: &Asker) -> Result<HistoryResult, Away> {
        let (channel, query) = (CONFIG.into(), HistoryQuery::default());
        let meta_ttl_ms = self.meta_ttl_ms();
        let ask = |id| BrokerRequest::History { id, channel, query, meta_ttl_ms };
        match asker.ask(ask).await {
            Ok(BrokerReply::History(history)) => Ok(history),
            _ => Err(Away),
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
    async fn restore(&self, asker: &Asker, epoch: &str, changes: Vec<(String, Vec<u8>)>) {
        let options = self.node.rules().channels.system.publish_options();
        for (namespace, change) in changes {
            let key = format!("restored {epoch} {namespace}");
            let options = PublishOptions { idempotency_key: key, ..options.clone() };
            let publication = Publication { data: change.into(), ..Publication::default() };
            let channel = CONFIG.into();
            let publish = |id| BrokerRequest::Publish { id, channel, publication, options };
            if let Err(error) = asker.ask(publish).await {
                warn!(%error, namespace, "changed options are lost at the broker (sys:config); publish them again");
            }
        }
    }

    fn meta_ttl_ms(&self) -> u64 {
        self.node.rules().channels.system.history_meta_ttl_ms
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
