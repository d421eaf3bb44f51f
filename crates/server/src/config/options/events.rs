//! Options of events to other systems.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::kind::{Secret, UpTo, one_of};
use crate::config::schema::{ListItem, section};

use super::proxy::ProxyTlsSection;

section! {
    /// One of `events`.
    EventSinkSection titled "Events: `events[]`" {
        name: String = "", "Name of the sink in logs and metrics, of letters, digits and underscores.";
        enabled: bool = false, "Send events to this sink.";
        r#type: EventSinkType = "webhook", "Where events go: webhook, to an HTTP endpoint.";
        include: Vec<String> = ["online", "offline"], "Kinds of events: online, offline, subscribed, unsubscribed, occupied, vacated, node_joined, node_draining, node_left and node_heartbeat. Every sink also gets lost, in the place of events that could not be kept.";
        channels: Vec<String> = [], "Patterns such as \"chat:*\" of the channels whose events are sent. Empty sends those of all channels.";
        batch_max_events: UpTo<10000> = 500, "Maximum number of events in one request. A request also has at most 1 MiB, unless a single event is larger.";
        batch_max_delay: Duration = "100ms", "Time for which an event waits for others that go into the same request.";
        queue_max_size: u32 = 67108864, "Maximum size in bytes of the events that wait in memory while the receiver does not take them. Events beyond it are lost; they are counted, logged, and reported by an event lost in their place. At least 1 KiB for each of batch_max_events.";
        webhook: WebhookSection;
    }
}

impl ListItem for EventSinkSection {
    const EXPECTED_LIST: &'static str =
        "a list of sinks with a name each, such as [{\"name\": \"backend\"}]";
    const EXPECTED_ITEM: &'static str = "a sink with a name and options";
    const EXAMPLE: &'static str = "Clients that connect and disconnect; see docs/events.md.
name = \"backend\"
enabled = false
webhook = { endpoint = \"https://backend.example/events\", secret = \"whsec_…\" }";
}

/// Where the events of a sink go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventSinkType {
    Webhook,
}

one_of!(EventSinkType { "webhook" => EventSinkType::Webhook });

section! {
    /// `events[].webhook`.
    WebhookSection titled "Webhooks: `events[].webhook`" {
        endpoint: String = "", "URL of the receiver: http:// or https://. User and password in it are sent as basic authentication.";
        secret: Secret = "", "Secret of the signatures (Standard Webhooks): whsec_ and 24 to 64 bytes in base64, as echo whsec_$(openssl rand -base64 32) makes it.";
        previous_secret: Secret = "", "Former secret, with which requests are signed as well until all receivers have the new one.";
        timeout: Duration = "5s", "Maximum duration of a request, including connecting.";
        static_headers: BTreeMap<String, String> = {}, "Headers of every request.";
        tls: ProxyTlsSection;
    }
}
