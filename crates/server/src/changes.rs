//! Follows options of namespaces, and limits, that are changed while nodes run: publications in `sys:config`.
//!
//! Invariant: a change that this node cannot follow is told to operators and changes nothing.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::broker::{BrokerReply, BrokerRequest, HistoryQuery, JoinRead, PublishOptions};
use engine::channel::CONFIG;
use engine::rules::Rules;
use tokio::sync::Notify;
use tracing::{info, warn};
use wire::protocol::{HistoryResult, Publication, StreamPosition};

use crate::config::Changeable;
use crate::limits::CONFIG_RETRY_AFTER;
use crate::node::Node;
use crate::service_endpoint::ServiceEndpoint;

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
    /// The broker has begun a new epoch, and may not know what was followed before.
    owes: bool,
}

/// The broker has not answered, or is to be asked once more.
struct Away;

impl Changes {
    pub(crate) fn new(node: Arc<Node>, changeable: Changeable, is_changed: Arc<Notify>) -> Changes {
        let (rules, position) = (node.rules(), StreamPosition::default());
        let followed = Followed { changeable, rules, position, is_listening: false, owes: false };
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

    /// Follows everything that was changed before; as long as that cannot be read, it is tried again.
    pub(crate) async fn follow_at_start(&self, service: &ServiceEndpoint) {
        let mut is_logged = false;
        while self.try_follow(service).await.is_err() {
            if !std::mem::replace(&mut is_logged, true) {
                warn!("what was changed in sys:config cannot be read; nothing is served yet");
            }
            tokio::time::sleep(CONFIG_RETRY_AFTER).await;
        }
    }

    /// Listens, reads what this node has not followed, and follows. What the broker does not answer is asked again in a while.
    pub(crate) async fn follow(&self, service: &ServiceEndpoint) {
        if self.try_follow(service).await.is_err() {
            let is_changed = self.is_changed.clone();
            tokio::spawn(async move {
                tokio::time::sleep(CONFIG_RETRY_AFTER).await;
                is_changed.notify_one();
            });
        }
    }

    /// This node follows nothing; that others do is told.
    async fn refuse(&self, service: &ServiceEndpoint, refusal: &str) -> Result<(), Away> {
        if self.followed().is_listening {
            warn!(refusal, "a change in sys:config is left out");
            return Ok(());
        }
        self.listen(service, JoinRead::Nothing).await.map(drop)
    }

    async fn try_follow(&self, service: &ServiceEndpoint) -> Result<(), Away> {
        let refusal = self.followed().changeable.refusal();
        if let Some(refusal) = refusal {
            return self.refuse(service, refusal).await;
        }
        let position = JoinRead::Position { meta_ttl_ms: self.meta_ttl_ms() };
        if !self.followed().is_listening && self.listen(service, position).await? == 0 {
            return Ok(());
        }
        let history = self.read(service).await?;
        let epoch = history.epoch.clone();
        let lost = {
            let mut followed = self.followed();
            if followed.apply(&history) {
                self.node.set_rules(&followed.rules);
            }
            let lost = followed.lost(&history);
            followed.owes &= !lost.is_empty();
            lost
        };
        if lost.is_empty() {
            return Ok(());
        }
        self.restore(service, &epoch, lost).await?;
        // Whether nothing is lost any more, another look shows.
        Err(Away)
    }

    /// Hears of changes from here on; says how many there were.
    async fn listen(&self, service: &ServiceEndpoint, read: JoinRead) -> Result<u64, Away> {
        let channel = CONFIG.into();
        let ask = |id| BrokerRequest::Subscribe { id, channel, read };
        let Ok(BrokerReply::Subscribed(stream)) = service.ask(ask).await else { return Err(Away) };
        self.followed().is_listening = true;
        Ok(stream.top.offset)
    }

    async fn read(&self, service: &ServiceEndpoint) -> Result<HistoryResult, Away> {
        let (channel, query) = (CONFIG.into(), HistoryQuery::default());
        let meta_ttl_ms = self.meta_ttl_ms();
        let ask = |id| BrokerRequest::History { id, channel, query, meta_ttl_ms };
        match service.ask(ask).await {
            Ok(BrokerReply::History(history)) => Ok(history),
            _ => Err(Away),
        }
    }

    /// Publishes again what the broker has lost; of all nodes that do, one is heard.
    async fn restore(
        &self,
        service: &ServiceEndpoint,
        epoch: &str,
        lost: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Away> {
        let options = self.node.rules().channels.system.publish_options();
        for (namespace, change) in lost {
            // Nodes that know the same say the same, once.
            let key = format!("restored {epoch} {namespace} {:x}", digest(&change));
            let options = PublishOptions { idempotency_key: key, ..options.clone() };
            let publication = Publication { data: change.into(), ..Publication::default() };
            let channel = CONFIG.into();
            let publish = |id| BrokerRequest::Publish { id, channel, publication, options };
            if let Err(error) = service.ask(publish).await {
                warn!(%error, namespace, "the broker has lost changed options (sys:config): they will be published again");
                return Err(Away);
            }
        }
        Ok(())
    }

    fn meta_ttl_ms(&self) -> u64 {
        self.node.rules().channels.system.history_meta_ttl_ms
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(change: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    change.hash(&mut hasher);
    hasher.finish()
}

impl Followed {
    /// Follows what was read, the whole stream; says whether anything has changed.
    fn apply(&mut self, history: &HistoryResult) -> bool {
        let Followed { changeable, rules, position, owes, .. } = self;
        if history.epoch != position.epoch {
            *owes = !position.epoch.is_empty();
            *position = StreamPosition { offset: 0, epoch: history.epoch.clone() };
        }
        let mut has_changed = false;
        for publication in history.publications.iter().filter(|one| one.offset > position.offset) {
            let offset = publication.offset;
            match changeable.change(&publication.data, rules) {
                Ok(changed) => {
                    *rules = Arc::new(changed);
                    has_changed = true;
                    info!(offset, "options have changed (sys:config)");
                }
                Err(mistake) => warn!(offset, %mistake, "a change in sys:config is left out"),
            }
        }
        position.offset = history.offset;
        has_changed
    }

    /// What was followed in an earlier epoch and is not in this one: changes by namespace.
    fn lost(&self, history: &HistoryResult) -> Vec<(String, Vec<u8>)> {
        if !self.owes {
            return Vec::new();
        }
        // As a node that starts now.
        let mut fresh = self.changeable.clone();
        fresh.reset();
        for publication in &history.publications {
            // What is wrong with it was told when it was left out here.
            let _mistake = fresh.change(&publication.data, &self.rules);
        }
        let known = fresh.changes();
        self.changeable.changes().into_iter().filter(|change| !known.contains(change)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::{Value, json};

    use super::*;
    use crate::config::{Source, load};

    fn followed() -> Followed {
        let mut file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        file.write_all(
            br#"{"channel":{"namespaces":[{"name":"aa"},{"name":"bb"},{"name":"cc"}]}}"#,
        )
        .unwrap();
        let source = Source { file: Some(file.path().to_path_buf()), ..Source::default() };
        let (config, _) = load(&source).unwrap();
        let (changeable, rules) = (config.changeable, config.rules);
        let position = StreamPosition::default();
        Followed { changeable, rules, position, is_listening: true, owes: false }
    }

    fn history(epoch: &str, changes: &[Value]) -> HistoryResult {
        let publications = changes.iter().zip(1..).map(|(change, offset)| {
            let data = change.to_string().into();
            Arc::new(Publication { data, offset, ..Publication::default() })
        });
        let offset = changes.len() as u64;
        HistoryResult { publications: publications.collect(), epoch: epoch.into(), offset }
    }

    fn presence(namespace: &str) -> Value {
        json!({"namespace": namespace, "options": {"presence": true}})
    }

    fn present(followed: &Followed) -> Vec<&str> {
        let namespaces = &followed.rules.channels.namespaces;
        ["aa", "bb", "cc"].into_iter().filter(|name| namespaces[*name].presence).collect()
    }

    #[test]
    fn what_the_broker_has_lost_holds_on_beside_what_is_new() {
        let mut followed = followed();
        let first = history("one", &[presence("aa"), presence("bb")]);
        assert!(followed.apply(&first) && followed.lost(&first).is_empty());
        assert!(!followed.apply(&first), "nothing is followed twice");
        // The stream has begun anew, and somebody has published before anybody knew.
        let second = history("two", &[presence("cc")]);
        assert!(followed.apply(&second));
        assert_eq!(present(&followed), ["aa", "bb", "cc"]);
        let lost = |history: &HistoryResult, followed: &Followed| {
            followed.lost(history).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(lost(&second, &followed), ["aa", "bb"]);
        // Another node has published a part of it again.
        let third = history("two", &[presence("cc"), presence("aa")]);
        followed.apply(&third);
        assert_eq!(lost(&third, &followed), ["bb"]);
        assert_eq!(present(&followed), ["aa", "bb", "cc"]);
        followed.owes = false;
        assert!(lost(&third, &followed).is_empty());
    }

    #[test]
    fn what_was_there_before_a_node_started_is_followed_and_nothing_more() {
        let mut followed = followed();
        let mistaken = json!({"namespace": "nope", "options": {}});
        let first = history("one", &[mistaken, presence("bb")]);
        assert!(followed.apply(&first) && followed.lost(&first).is_empty());
        assert_eq!(present(&followed), ["bb"]);
        let empty = history("two", &[]);
        assert!(!followed.apply(&empty));
        assert_eq!(followed.lost(&empty), followed.changeable.changes());
    }
}
