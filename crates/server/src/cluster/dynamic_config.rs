//! Dynamic configuration: options of namespaces and limits that are changed while nodes run, as
//! publications in `sys:config`.
//!
//! Invariant: a change that this node cannot apply is logged and changes nothing.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::broker::{HistoryQuery, JoinRead, PublicationsRequest, PublishOptions};
use engine::channel::CONFIG;
use engine::rules::Rules;
use tokio::sync::Notify;
use tracing::{info, warn};
use wire::protocol::{HistoryResult, Publication, StreamPosition};

use crate::cluster::node::Node;
use crate::cluster::service_endpoint::ServiceEndpoint;
use crate::config::Changeable;
use crate::limits::CONFIG_RETRY_AFTER;

/// Applies changes of options from `sys:config` to this node.
pub(crate) struct DynamicConfig {
    node: Arc<Node>,
    applied: Mutex<AppliedConfig>,
    /// Notified when there may be new changes.
    is_changed: Arc<Notify>,
}

/// Changes that this node has applied.
struct AppliedConfig {
    changeable: Changeable,
    rules: Arc<Rules>,
    position: StreamPosition,
    /// Whether this node is subscribed to changes.
    is_listening: bool,
    /// The broker has begun a new epoch, and may have lost what was applied before.
    may_be_lost: bool,
}

/// The changes could not be read completely and must be read again.
struct Retry;

impl DynamicConfig {
    pub(crate) fn new(
        node: Arc<Node>,
        changeable: Changeable,
        is_changed: Arc<Notify>,
    ) -> DynamicConfig {
        let (rules, position) = (node.rules(), StreamPosition::default());
        let applied =
            AppliedConfig { changeable, rules, position, is_listening: false, may_be_lost: false };
        DynamicConfig { node, applied: Mutex::new(applied), is_changed }
    }

    /// Checks whether a change can be applied.
    ///
    /// # Errors
    /// A description of the mistake.
    pub(crate) fn check(&self, change: &[u8]) -> Result<(), String> {
        let applied = self.applied();
        applied.changeable.clone().change(change, &applied.rules).map(|_| ())
    }

    /// Waits until there may be a change to apply.
    pub(crate) async fn changed(&self) {
        self.is_changed.notified().await;
    }

    /// Applies all earlier changes; retries until they can be read.
    pub(crate) async fn apply_at_start(&self, service: &ServiceEndpoint) {
        let mut is_logged = false;
        while self.try_apply(service).await.is_err() {
            if !std::mem::replace(&mut is_logged, true) {
                warn!(
                    "the dynamic configuration (sys:config) cannot be read; clients are not served until it can"
                );
            }
            tokio::time::sleep(CONFIG_RETRY_AFTER).await;
        }
    }

    /// Subscribes, reads the changes that this node has not applied, and applies them. Without an
    /// answer of the broker it retries later.
    pub(crate) async fn apply_new(&self, service: &ServiceEndpoint) {
        if self.try_apply(service).await.is_err() {
            let is_changed = self.is_changed.clone();
            tokio::spawn(async move {
                tokio::time::sleep(CONFIG_RETRY_AFTER).await;
                is_changed.notify_one();
            });
        }
    }

    /// Subscribes without applying changes, which this node's configuration does not permit;
    /// changes by other nodes are logged.
    async fn refuse(&self, service: &ServiceEndpoint, refusal: &str) -> Result<(), Retry> {
        if self.applied().is_listening {
            warn!(
                refusal,
                "a change in sys:config is ignored: this node does not accept dynamic configuration"
            );
            return Ok(());
        }
        self.listen(service, JoinRead::Nothing).await.map(drop)
    }

    async fn try_apply(&self, service: &ServiceEndpoint) -> Result<(), Retry> {
        let refusal = self.applied().changeable.refusal();
        if let Some(refusal) = refusal {
            return self.refuse(service, refusal).await;
        }
        let position = JoinRead::Position { meta_ttl_ms: self.meta_ttl_ms() };
        if !self.applied().is_listening && self.listen(service, position).await? == 0 {
            return Ok(());
        }
        let history = self.read(service).await?;
        let epoch = history.epoch.clone();
        let lost = {
            let mut applied = self.applied();
            if applied.apply(&history) {
                self.node.set_rules(&applied.rules);
            }
            let lost = applied.lost(&history);
            applied.may_be_lost &= !lost.is_empty();
            lost
        };
        if lost.is_empty() {
            return Ok(());
        }
        self.restore(service, &epoch, lost).await?;
        // Read again, to check that nothing is lost any more.
        Err(Retry)
    }

    /// Subscribes to changes. Returns the offset of the last earlier change.
    async fn listen(&self, service: &ServiceEndpoint, read: JoinRead) -> Result<u64, Retry> {
        let channel = CONFIG.into();
        let ask = |id| PublicationsRequest::Subscribe { id, channel, read };
        let stream = service.ask(ask).await.map_err(|_| Retry)?;
        self.applied().is_listening = true;
        Ok(stream.top.offset)
    }

    async fn read(&self, service: &ServiceEndpoint) -> Result<HistoryResult, Retry> {
        let (channel, query) = (CONFIG.into(), HistoryQuery::default());
        let meta_ttl_ms = self.meta_ttl_ms();
        let ask = |id| PublicationsRequest::History { id, channel, query, meta_ttl_ms };
        service.ask(ask).await.map_err(|_| Retry)
    }

    /// Publishes changes again that the broker has lost. The idempotency key makes publications of
    /// several nodes count once.
    async fn restore(
        &self,
        service: &ServiceEndpoint,
        epoch: &str,
        lost: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Retry> {
        let options = self.node.rules().channels.system.publish_options();
        for (namespace, change) in lost {
            // Equal changes have equal keys on all nodes.
            let key = format!("restored {epoch} {namespace} {:x}", digest(&change));
            let options = PublishOptions { idempotency_key: key, ..options.clone() };
            let publication = Publication { data: change.into(), ..Publication::default() };
            let channel = CONFIG.into();
            let publish = |id| PublicationsRequest::Publish { id, channel, publication, options };
            if let Err(error) = service.ask(publish).await {
                warn!(%error, namespace, "broker lost the dynamic configuration (sys:config), and republishing it failed; will be retried");
                return Err(Retry);
            }
        }
        Ok(())
    }

    fn meta_ttl_ms(&self) -> u64 {
        self.node.rules().channels.system.history_meta_ttl_ms
    }

    fn applied(&self) -> MutexGuard<'_, AppliedConfig> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(change: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    change.hash(&mut hasher);
    hasher.finish()
}

impl AppliedConfig {
    /// Applies the whole stream as read; returns whether anything has changed.
    fn apply(&mut self, history: &HistoryResult) -> bool {
        let AppliedConfig { changeable, rules, position, may_be_lost, .. } = self;
        if history.epoch != position.epoch {
            *may_be_lost = !position.epoch.is_empty();
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
                Err(mistake) => {
                    warn!(offset, %mistake, "a change in sys:config is invalid and ignored");
                }
            }
        }
        position.offset = history.offset;
        has_changed
    }

    /// Changes by namespace that were applied in an earlier epoch and are missing in this one.
    fn lost(&self, history: &HistoryResult) -> Vec<(String, Vec<u8>)> {
        if !self.may_be_lost {
            return Vec::new();
        }
        // The state of a node that starts now.
        let mut fresh = self.changeable.clone();
        fresh.reset();
        for publication in &history.publications {
            // A mistake was logged when the change was applied here.
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

    fn applied() -> AppliedConfig {
        let mut file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        file.write_all(
            br#"{"channel":{"namespaces":[{"name":"aa"},{"name":"bb"},{"name":"cc"}]}}"#,
        )
        .unwrap();
        let source = Source { file: Some(file.path().to_path_buf()), ..Source::default() };
        let (config, _) = load(&source).unwrap();
        let (changeable, rules) = (config.changeable, config.rules);
        let position = StreamPosition::default();
        AppliedConfig { changeable, rules, position, is_listening: true, may_be_lost: false }
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

    fn present(applied: &AppliedConfig) -> Vec<&str> {
        let namespaces = &applied.rules.channels.namespaces;
        ["aa", "bb", "cc"].into_iter().filter(|name| namespaces[*name].presence).collect()
    }

    #[test]
    fn lost_changes_stay_in_force_beside_new_ones() {
        let mut applied = applied();
        let first = history("one", &[presence("aa"), presence("bb")]);
        assert!(applied.apply(&first) && applied.lost(&first).is_empty());
        assert!(!applied.apply(&first), "nothing is applied twice");
        // A new epoch with a publication, before any node has restored the lost changes.
        let second = history("two", &[presence("cc")]);
        assert!(applied.apply(&second));
        assert_eq!(present(&applied), ["aa", "bb", "cc"]);
        let lost = |history: &HistoryResult, applied: &AppliedConfig| {
            applied.lost(history).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(lost(&second, &applied), ["aa", "bb"]);
        // Another node has restored one of the changes.
        let third = history("two", &[presence("cc"), presence("aa")]);
        applied.apply(&third);
        assert_eq!(lost(&third, &applied), ["bb"]);
        assert_eq!(present(&applied), ["aa", "bb", "cc"]);
        applied.may_be_lost = false;
        assert!(lost(&third, &applied).is_empty());
    }

    #[test]
    fn earlier_changes_are_applied_when_a_node_starts() {
        let mut applied = applied();
        let mistaken = json!({"namespace": "nope", "options": {}});
        let first = history("one", &[mistaken, presence("bb")]);
        assert!(applied.apply(&first) && applied.lost(&first).is_empty());
        assert_eq!(present(&applied), ["bb"]);
        let empty = history("two", &[]);
        assert!(!applied.apply(&empty));
        assert_eq!(applied.lost(&empty), applied.changeable.changes());
    }
}
