//! Tasks that run as long as the server.
//!
//! Invariant: each of them is restarted by the supervisor when it ends.

use std::sync::Arc;
use std::time::Duration;

use crate::broker;
use crate::cluster::members::Members;
use crate::events;
use crate::listeners::Serving;
use crate::supervision::supervisor::Supervisor;

/// Starts the tasks.
pub(super) fn start_tasks(tasks: &mut Supervisor, members: &Arc<Members>, serving: &Serving) {
    let broker = members.node().broker.clone();
    let expiring = broker.clone();
    tasks.spawn("expiry", move || {
        let broker = expiring.clone();
        async move {
            let mut interval = tokio::time::interval(Duration::from_secs(1));
            loop {
                interval.tick().await;
                broker.expire();
            }
        }
    });
    tasks.spawn("broker-watch", move || broker::watch(broker.clone()));
    let answering = members.clone();
    tasks.spawn("cluster-questions", move || answering.clone().answer_questions());
    let following = members.clone();
    tasks.spawn("dynamic-configuration", move || following.clone().run_dynamic_config());
    let revoking = members.clone();
    tasks.spawn("revocations", move || revoking.clone().synchronize_revocations());
    for (task, certificate) in serving.certificates.clone() {
        tasks.spawn(task, move || certificate.clone().follow_files());
    }
    events::start(tasks, members.node());
}
