//! Features of the compatible server that this version does not support: the name of each, and an
//! alternative.

/// An unsupported feature, named after the key that switches it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Feature {
    /// `admin`.
    Admin,
    /// `http_server.tls_autocert`.
    Autocert,
    /// `broker.type`, where it is not NATS.
    BrokerBesideEngine,
    /// `http_server.tls.client_ca_pem`.
    ClientCertificates,
    /// `controller`.
    Controller,
    /// `allowed_delta_types`.
    Delta,
    /// `graphite`.
    Graphite,
    /// `http_server.h2c_external`.
    Http2,
    /// `http_server.http3`.
    Http3,
    /// `sse` and `http_stream`.
    HttpTransports,
    /// `init`.
    Init,
    /// `log.file`.
    LogFile,
    /// `subscription_type: map`.
    MapChannels,
    /// Switches of `prometheus`.
    MetricsForms,
    /// `consumers[].nats_jetstream.credentials_file`.
    NatsCredentials,
    /// `broker.nats.raw_mode`.
    NatsRaw,
    /// `broker.nats.allow_wildcards`.
    NatsWildcards,
    /// `opentelemetry`.
    OpenTelemetry,
    /// `debug`.
    Profiling,
    /// `engine.redis.replica_client`.
    RedisReplicas,
    /// `engine.redis.force_resp2`.
    RedisResp2,
    /// `engine.redis.sentinel_tls`.
    SentinelTls,
    /// `subscribe_stream_proxy_enabled`.
    SubscribeStreamProxy,
    /// `swagger`.
    Swagger,
    /// `allow_tags_filter`.
    TagsFilter,
    /// `http_server.tls_external` and `http_server.internal_tls`.
    TlsByPort,
    /// `uni_websocket`, `uni_sse`, `uni_http_stream` and `uni_grpc`.
    UnidirectionalTransports,
    /// `insecure_skip_verify` towards Redis, NATS, Kafka, PostgreSQL and backends.
    UnverifiedTls,
    /// `webtransport`.
    WebTransport,
}

impl Feature {
    /// Name and alternative.
    fn texts(self) -> (&'static str, &'static str) {
        use Feature as F;
        match self {
            F::Admin => ("the admin page", "use the server API and the metrics"),
            F::Autocert => (
                "certificates by ACME",
                "set http_server.tls.cert_pem and key_pem, or terminate TLS in a proxy",
            ),
            F::BrokerBesideEngine => (
                "a broker of this type beside the engine",
                "engine.type = \"redis\" carries publications and presence",
            ),
            F::ClientCertificates => ("client certificates", "verify them in a proxy"),
            F::Controller => ("a controller of its own", "the engine connects the nodes"),
            F::Delta => ("delta compression", "use websocket.compression"),
            F::Graphite => ("export to Graphite", "scrape /metrics (prometheus.enabled)"),
            F::Http2 => ("HTTP/2 in cleartext", "clients connect by HTTP/1.1"),
            F::Http3 => ("HTTP/3", "clients connect by HTTP/1.1"),
            F::HttpTransports => ("a transport over HTTP", "clients connect by WebSocket"),
            F::Init => ("the init endpoint", "clients connect without it"),
            F::LogFile => ("a log file", "redirect standard error"),
            F::MapChannels => {
                ("a subscription type other than stream", "use a channel with history")
            }
            F::MetricsForms => {
                ("a further form of metrics", "docs/metrics.md lists the supported metrics")
            }
            F::NatsCredentials => {
                ("a credentials file of NATS", "set username and password, or token")
            }
            F::NatsRaw => ("the raw mode of NATS", "publish through the server API"),
            F::NatsWildcards => ("subscribing by wildcard", "subscribe to single channels"),
            F::OpenTelemetry => ("tracing by OpenTelemetry", "use logs and metrics"),
            F::Profiling => ("profiling by HTTP", "use a profiler of the operating system"),
            F::RedisReplicas => ("reading from replicas of Redis", "reads go to the master"),
            F::RedisResp2 => ("RESP2 for Redis", "use Redis 6 or later, which supports RESP3"),
            F::SentinelTls => ("TLS for Sentinels", "connect to them through a private network"),
            F::SubscribeStreamProxy => ("the subscribe stream proxy", "publish by http_api"),
            F::Swagger => ("the Swagger page", "the description is served at /api/openapi.json"),
            F::TagsFilter => ("filtering by tags", "use a channel for each kind of data"),
            F::TlsByPort => (
                "TLS that differs between the ports",
                "http_server.tls applies to both; or terminate TLS in a proxy",
            ),
            F::UnidirectionalTransports => {
                ("a unidirectional transport", "clients connect by WebSocket")
            }
            F::UnverifiedTls => ("TLS without verification", "set server_ca_pem to the CA"),
            F::WebTransport => ("WebTransport", "clients connect by WebSocket"),
        }
    }

    /// The name of the feature in messages and in the reference.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        self.texts().0
    }

    /// The mistake in a configuration that switches the feature on.
    #[must_use]
    pub(super) fn refusal(self) -> String {
        let (name, instead) = self.texts();
        format!("{name} is not supported yet; switch it off ({instead})")
    }
}
