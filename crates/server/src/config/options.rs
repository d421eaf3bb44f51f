//! All options of the server, with their defaults and descriptions.
//!
//! Invariant: an option is declared here and nowhere else. `schema` says what follows from a
//! declaration. Options of the compatible server for features that this server does not have are in
//! `absent`.

pub(super) mod channel;
pub(super) mod client;
pub(super) mod consumers;
pub(super) mod engine;
pub(super) mod events;
pub(super) mod grpc;
pub(super) mod http;
pub(super) mod nats_consumers;
pub(super) mod postgresql_consumers;
pub(super) mod proxy;

use std::time::Duration;

use self::consumers::ConsumerSection;
use channel::ChannelSection;
use client::ClientSection;
use engine::{BrokerSection, EngineSection, PresenceManagerSection};
use events::EventSinkSection;
use grpc::GrpcApiSection;
use http::{ApiSection, HealthSection, HttpServerSection, PrometheusSection, WebSocketSection};
use proxy::{NamedProxySection, RpcSection};

use super::kind::{UpTo, one_of};
use super::schema::section;
use super::{LogFormat, LogLevel};

section! {
    /// The whole configuration.
    Options titled "Server" {
        http_server: HttpServerSection;
        websocket: WebSocketSection;
        client: ClientSection;
        channel: ChannelSection;
        http_api: ApiSection;
        consumers: Vec<ConsumerSection>;
        events: Vec<EventSinkSection>;
        grpc_api: GrpcApiSection;
        health: HealthSection;
        prometheus: PrometheusSection;
        log: LogSection;
        shutdown: ShutdownSection;
        server: ServerSection;
        engine: EngineSection;
        limits: LimitsSection;
        demo: DemoSection;
        broker: BrokerSection;
        presence_manager: PresenceManagerSection;
        node: NodeSection;
        lifecycle: LifecycleSection;
        rpc: RpcSection;
        proxies: Vec<NamedProxySection>;
    }
}

section! {
    /// `log`.
    LogSection {
        level: LogLevel = "info", "Minimum level of log messages. fatal is the same as error; none logs nothing.";
        format: LogFormat = "auto", "Format of log messages: pretty for people, json for machines. auto is pretty on a terminal and json otherwise.";
    }
}

one_of!(LogLevel {
    "none" => LogLevel::None,
    "trace" => LogLevel::Trace,
    "debug" => LogLevel::Debug,
    "info" => LogLevel::Info,
    "warn" => LogLevel::Warn,
    "error" => LogLevel::Error,
    "fatal" => LogLevel::Error,
});

one_of!(LogFormat {
    "auto" => LogFormat::Auto,
    "pretty" => LogFormat::Pretty,
    "json" => LogFormat::Json,
});

section! {
    /// `shutdown`.
    ShutdownSection {
        timeout: Duration = "30s", "Maximum duration of a shutdown. After it the remaining connections are cut off. The process exits up to 10s later if receivers of events or the broker do not answer.";
        drain_rate: u32 = 0, "Maximum number of clients of this node that are disconnected per second at shutdown. With many clients, draining takes longer than drain_window, but not longer than the timeout. 0 means no limit.";
        drain_window: Duration = "3s", "Time over which clients are disconnected at shutdown with the advice to reconnect (3001). Must be less than the timeout.";
    }
}

section! {
    /// `server`.
    ServerSection {
        workers: UpTo<1024> = 0, "Number of worker threads. 0 means one per core.";
    }
}

section! {
    /// `limits`: the rate of each bucket.
    LimitsSection {
        connection: ConnectionLimitsSection;
        user: UserLimitsSection;
        address: AddressLimitsSection;
        api_key: ApiKeyLimitsSection;
    }
}

section! {
    /// `limits.connection`.
    ConnectionLimitsSection {
        commands: String = "500/s burst 2000", "Commands of one connection (error 111), as a token bucket: a rate per time (s, m, h, or several units: 5s) and a burst. Without burst, the burst equals the amount of the rate. off or empty means no limit. The default burst is at least four times client.channel_limit.";
        publishes: String = "200/s burst 1000", "Publications of one connection (error 111).";
        subscribes: String = "50/s burst 512", "Subscribe commands of one connection (error 111). The default burst is at least twice client.channel_limit.";
        new_channels: String = "20/s burst 512", "Channels that one connection uses in publish, subscribe or history and that its worker has not seen recently (error 111). The default burst is at least twice client.channel_limit.";
        bytes: String = "2MiB/s burst 8MiB", "Bytes of incoming messages of one connection, after decompression. A message larger than the burst passes when the bucket is full.";
        refusals: String = "10/s burst 1000", "Refusals by the buckets above. A connection that exceeds this rate is closed (3013).";
    }
}

section! {
    /// `limits.user`.
    UserLimitsSection {
        commands: String = "", "Commands of all connections of one user on this node. Anonymous users are not counted.";
        publishes: String = "", "Publications of all connections of one user on this node. Anonymous users are not counted.";
        subscribes: String = "", "Subscribe commands of all connections of one user on this node. Anonymous users are not counted.";
        connects: String = "", "Connect commands of one user on this node. Anonymous users are not counted.";
    }
}

section! {
    /// `limits.address`.
    AddressLimitsSection {
        handshakes: String = "", "WebSocket handshakes from one IPv4 address or one IPv6 /64 on this node (HTTP status 429). Behind a proxy, set client.trusted_proxies.";
        connects: String = "", "TCP connections from one IPv4 address or one IPv6 /64 on this node. Connections above the rate are closed immediately.";
    }
}

section! {
    /// `limits.api_key`.
    ApiKeyLimitsSection {
        requests: String = "", "Calls of the server API with one key on this node (HTTP status 429). Each command of a batch counts.";
    }
}

section! {
    /// `demo`.
    DemoSection {
        enabled: bool = false, "Serve the demo page and publish its example data.";
    }
}

section! {
    /// `node`.
    NodeSection {
        name: String = "", "Name of this node in events and in the server API. Must be unique in the cluster. Empty means the host name.";
    }
}

section! {
    /// `lifecycle`.
    LifecycleSection {
        enabled: bool = true, "Publish events in sys:presence and in a stream of the broker when clients connect and disconnect. Requests of the server API for one client are then sent only to the nodes that have it. Must be the same on all nodes.";
        events_max: u32 = 100000, "Maximum number of events in that stream. Events are kept for at most seven days.";
    }
}
