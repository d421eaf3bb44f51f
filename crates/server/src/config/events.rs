//! Resolves the sinks of events.
//!
//! Invariant: names of sinks are unique, also those of sinks that are not enabled.

use std::collections::BTreeSet;
use std::sync::Arc;

use ::events::limits::{QUEUE_BYTES_MIN, QUEUE_BYTES_PER_BATCHED};
use ::events::{EventKind, SinkSettings, SinkTarget, WebhookSecret, WebhookSettings};
use axum::http::header::AUTHORIZATION;
use engine::rules::ReportedEvents;
use proxy::BackendAddress;

use super::coerce::shown;
use super::consumers::check_task_name;
use super::kind::Secret;
use super::mistakes::KeyedMistakes;
use super::options::events::{EventSinkSection, EventSinkType, WebhookSection};
use super::proxies::{resolve_static_headers, resolve_tls};
use super::schema::Setting;
use crate::pattern::ChannelPattern;

/// The kinds of events that the engine has to report.
pub(super) fn reported(sections: &[EventSinkSection]) -> ReportedEvents {
    let sinks = sections.iter().filter(|section| *section.enabled);
    let names = sinks.flat_map(|section| section.include.iter());
    let kinds: Vec<EventKind> = names.filter_map(|name| EventKind::named(name)).collect();
    ReportedEvents {
        clients: kinds.iter().any(|kind| kind.is_of_client()),
        subscriptions: kinds.iter().any(|kind| kind.is_of_subscription()),
    }
}

/// Sinks with an endpoint that no option switches on.
pub(super) fn unused_sinks(sections: &[EventSinkSection]) -> KeyedMistakes {
    let is_unused = |section: &&EventSinkSection| {
        section.webhook.endpoint.is_written && !section.enabled.is_written
    };
    let text = "is not used without enabled = true";
    let sections = sections.iter().filter(is_unused);
    sections.map(|section| section.webhook.endpoint.fault(text)).collect()
}

/// Resolves all sinks; those that are not enabled are left out.
pub(super) fn resolve_events(
    sections: &[EventSinkSection],
    mistakes: &mut KeyedMistakes,
) -> Vec<SinkSettings> {
    let mut names = BTreeSet::new();
    let mut sinks = Vec::new();
    for section in sections {
        check_task_name(&section.name, "sinks", &mut names, mistakes);
        if *section.enabled {
            sinks.extend(resolve_sink(section, mistakes));
        }
    }
    sinks
}

fn resolve_sink(section: &EventSinkSection, mistakes: &mut KeyedMistakes) -> Option<SinkSettings> {
    let before = mistakes.len();
    let kinds = resolve_kinds(&section.include, mistakes);
    let patterns = resolve_patterns(&section.channels, mistakes);
    if section.batch_max_events.count() == 0 {
        mistakes.push(section.batch_max_events.fault("must be at least 1"));
    }
    let batched = section.batch_max_events.count() * QUEUE_BYTES_PER_BATCHED;
    if section.queue_max_size.count() < QUEUE_BYTES_MIN {
        let text = format!("must be at least {QUEUE_BYTES_MIN} bytes");
        mistakes.push(section.queue_max_size.fault(text));
    } else if section.queue_max_size.count() < batched {
        let text = format!(
            "must be at least {batched} bytes: {QUEUE_BYTES_PER_BATCHED} for each of batch_max_events"
        );
        mistakes.push(section.queue_max_size.fault(text));
    }
    let target = match *section.r#type {
        EventSinkType::Webhook => resolve_webhook(&section.webhook, mistakes),
    };
    let settings = SinkSettings {
        name: section.name.as_str().into(),
        kinds,
        takes_channel: Arc::new(move |channel| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(channel))
        }),
        batch_max: section.batch_max_events.count(),
        batch_delay: *section.batch_max_delay,
        queue_bytes_max: section.queue_max_size.count(),
        target: SinkTarget::Webhook(Box::new(target?)),
    };
    (mistakes.len() == before).then_some(settings)
}

fn resolve_kinds(include: &Setting<Vec<String>>, mistakes: &mut KeyedMistakes) -> Vec<EventKind> {
    if include.is_empty() {
        mistakes.push(include.fault("names no event: the sink would get nothing"));
    }
    let mut kinds = Vec::new();
    for name in &**include {
        match EventKind::named(name) {
            Some(kind) => kinds.push(kind),
            None => {
                let known = EventKind::SELECTABLE.map(EventKind::name).join(", ");
                let text = format!("{}: expected some of {known}", shown(&name.as_str().into()));
                mistakes.push(include.fault(text));
            }
        }
    }
    kinds
}

fn resolve_patterns(
    channels: &Setting<Vec<String>>,
    mistakes: &mut KeyedMistakes,
) -> Vec<ChannelPattern> {
    let patterns = channels.iter().filter_map(|text| {
        let pattern = ChannelPattern::new(text);
        pattern.map_err(|error| mistakes.push(channels.fault(format!("{text:?}: {error}")))).ok()
    });
    patterns.collect()
}

fn resolve_webhook(
    webhook: &WebhookSection,
    mistakes: &mut KeyedMistakes,
) -> Option<WebhookSettings> {
    let address = match BackendAddress::parse(&webhook.endpoint) {
        Ok(BackendAddress::Http { uri, authorization }) => Some((uri, authorization)),
        Ok(BackendAddress::Grpc { .. }) | Err(_) => {
            let text = "expected a URL such as \"https://backend.example/events\"";
            mistakes.push(webhook.endpoint.fault(text));
            None
        }
    };
    if *webhook.tls.enabled && webhook.endpoint.starts_with("http://") {
        let text = "needs an endpoint that begins with https://";
        mistakes.push(webhook.tls.enabled.fault(text));
    }
    if webhook.timeout.is_zero() {
        mistakes.push(webhook.timeout.fault("must not be 0: a request would never succeed"));
    }
    let secret = resolve_secret(&webhook.secret, mistakes);
    let previous = (!webhook.previous_secret.is_empty())
        .then(|| resolve_secret(&webhook.previous_secret, mistakes));
    let mut headers = resolve_static_headers(&webhook.static_headers, mistakes);
    let tls = resolve_tls(&webhook.tls, mistakes);
    let (uri, authorization) = address?;
    if let Some(authorization) = authorization {
        headers.entry(AUTHORIZATION).or_insert(authorization);
    }
    Some(WebhookSettings {
        tls,
        uri,
        secrets: [secret, previous.flatten()].into_iter().flatten().collect(),
        timeout: *webhook.timeout,
        headers,
    })
}

fn resolve_secret(secret: &Setting<Secret>, mistakes: &mut KeyedMistakes) -> Option<WebhookSecret> {
    let parsed = WebhookSecret::parse(secret.as_str());
    parsed.map_err(|fault| mistakes.push(secret.fault(fault.to_string()))).ok()
}
