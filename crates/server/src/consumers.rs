//! Consumers of this node: what their messages do, and their start and stop.
//!
//! Invariant: a message is done only when the broker has acknowledged what it asks for.

use std::sync::Arc;

use bytes::Bytes;
use consumers::postgresql::{change_capture, outbox};
use consumers::{
    Body, ConsumedMessage, ConsumedPublication, ConsumerTask, Handled, Handler, StopSignal,
    StopTrigger, kafka, nats_jetstream,
};
use tokio::sync::watch;
use tracing::warn;
use wire::protocol::is_nested_too_deep;

use crate::api::{first_error, run_consumed};
use crate::config::{ConsumerConfig, ConsumerSource};
use crate::limits::{API_BODY_MAX, CONSUMERS_STOP_TIMEOUT};
use crate::service::Service;
use crate::service::caller::ApiCaller;
use crate::service::error::ApiError;
use crate::service::publications::PublicationOptions;
use crate::supervision::supervisor::Supervisor;
use crate::telemetry::ConsumerList;

/// The consumers that run.
pub(crate) struct Consumers {
    stop: StopTrigger,
    /// Number of consumers that run.
    running: watch::Receiver<usize>,
}

/// Hands the messages of consumers to the service.
struct ServiceHandler {
    service: Arc<Service>,
    caller: ApiCaller,
}

impl Consumers {
    /// Starts all consumers.
    pub(crate) fn start(
        tasks: &mut Supervisor,
        configs: &[ConsumerConfig],
        list: &ConsumerList,
        service: &Arc<Service>,
    ) -> Consumers {
        let (stop, signal) = StopTrigger::new();
        let (count, running) = watch::channel(configs.len());
        let count = Arc::new(count);
        for (config, (name, counters)) in configs.iter().zip(list.iter()) {
            let task = ConsumerTask {
                name: name.clone(),
                counters: counters.clone(),
                stop: signal.clone(),
            };
            let caller = ApiCaller::internal(&config.name);
            let handler = Arc::new(ServiceHandler { service: service.clone(), caller });
            let (source, count) = (config.source.clone(), count.clone());
            tasks.spawn(format!("consumer-{}", config.name), move || {
                run(task.clone(), source.clone(), handler.clone(), count.clone())
            });
        }
        Consumers { stop, running }
    }

    /// Stops all consumers: what they have started is finished and acknowledged, and their
    /// partitions go to other nodes.
    pub(crate) async fn stop(mut self) {
        self.stop.stop();
        let stopped = self.running.wait_for(|running| *running == 0);
        if tokio::time::timeout(CONSUMERS_STOP_TIMEOUT, stopped).await.is_err() {
            warn!(timeout = ?CONSUMERS_STOP_TIMEOUT, "consumers did not stop in time; unacknowledged messages will be redelivered");
        }
    }
}

/// Runs one consumer. After the stop it does not return, so that its supervisor does not start it
/// again.
async fn run(
    task: ConsumerTask,
    source: ConsumerSource,
    handler: Arc<ServiceHandler>,
    count: Arc<watch::Sender<usize>>,
) {
    let stop: StopSignal = task.stop.clone();
    match source {
        ConsumerSource::Kafka(settings) => kafka::run(task, *settings, handler).await,
        ConsumerSource::Outbox(settings) => outbox::run(task, *settings, handler).await,
        ConsumerSource::Capture(settings) => change_capture::run(task, *settings, handler).await,
        ConsumerSource::JetStream(settings) => nats_jetstream::run(task, *settings, handler).await,
    }
    if stop.is_requested() {
        count.send_modify(|running| *running = running.saturating_sub(1));
        std::future::pending::<()>().await;
    }
}

impl Handler for ServiceHandler {
    async fn handle(&self, message: &ConsumedMessage) -> Handled {
        let result = match &message.body {
            Body::Command { payload, .. } if payload.len() > API_BODY_MAX => Err(too_large()),
            Body::Command { method, payload } => {
                run_consumed(&self.service, &self.caller, method, payload).await
            }
            Body::Publication(publication) => self.publish(publication).await,
        };
        match result {
            Ok(()) => Handled::Done,
            Err(error) if error.is_transient() => Handled::Wait {
                reason: format!("error {}: {}", error.code, error.message).into(),
                retry_after: None,
            },
            Err(error) => Handled::rejected(format!("error {}: {}", error.code, error.message)),
        }
    }
}

impl ServiceHandler {
    async fn publish(&self, publication: &ConsumedPublication) -> Result<(), ApiError> {
        let ConsumedPublication { channels, data, .. } = publication;
        check_data(data)?;
        let options = PublicationOptions {
            tags: publication.tags.clone(),
            skip_history: false,
            idempotency_key: publication.idempotency_key.clone(),
            version: publication.version,
            version_epoch: publication.version_epoch.clone(),
        };
        let publications = &self.service.publications;
        match &channels[..] {
            [channel] => {
                publications.publish(&self.caller, channel, data.clone(), &options).await?;
                Ok(())
            }
            channels => {
                let results =
                    publications.broadcast(&self.caller, channels, data.clone(), &options).await?;
                first_error(results)
            }
        }
    }
}

fn check_data(data: &Bytes) -> Result<(), ApiError> {
    if data.len() > API_BODY_MAX {
        return Err(too_large());
    }
    if is_nested_too_deep(data) {
        return Err(ApiError::bad("the payload is nested more than 128 levels deep; flatten it"));
    }
    Ok(())
}

fn too_large() -> ApiError {
    ApiError::bad(format!("the payload has more than {API_BODY_MAX} bytes"))
}
