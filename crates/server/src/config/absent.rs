//! Keys of the compatible server that have no effect here, with their defaults there.
//!
//! Invariant: together with the keys of this server these are all 825 keys of the compatible server
//! (6.9), so that none of them is reported as unknown.

use super::feature::Feature;

/// Keys that exist below each of some paths.
#[derive(Debug)]
pub(super) struct AbsentSection {
    /// Paths of the sections; the empty path is the top level.
    pub(super) below: &'static [&'static str],
    /// The keys apply only if these keys have these values; `[]` is the item of the key.
    pub(super) when: &'static [(&'static str, &'static str)],
    /// The keys below each path.
    pub(super) keys: &'static [AbsentKey],
}

/// A key without effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct AbsentKey {
    /// Path relative to the section.
    pub(super) name: &'static str,
    /// Default value in the compatible server.
    pub(super) default: &'static str,
    /// How another value is handled.
    pub(super) role: AbsentRole,
}

/// How a value other than the default is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AbsentRole {
    /// Switches on an unsupported feature: a mistake.
    Switch(Feature),
    /// Tunes an unsupported feature: accepted, because the feature has a switch.
    Detail,
    /// Tunes an implementation that differs here: a warning.
    Ignored,
}

const fn switch(name: &'static str, feature: Feature) -> AbsentKey {
    AbsentKey { name, default: "false", role: AbsentRole::Switch(feature) }
}

/// A switch that is not a boolean: off at its default value.
const fn choice(name: &'static str, default: &'static str, feature: Feature) -> AbsentKey {
    AbsentKey { name, default, role: AbsentRole::Switch(feature) }
}

const fn detail(name: &'static str, default: &'static str) -> AbsentKey {
    AbsentKey { name, default, role: AbsentRole::Detail }
}

const fn ignored(name: &'static str, default: &'static str) -> AbsentKey {
    AbsentKey { name, default, role: AbsentRole::Ignored }
}

const fn section(below: &'static [&'static str], keys: &'static [AbsentKey]) -> AbsentSection {
    AbsentSection { below, when: &[], keys }
}

const KAFKA_IS_CONSUMED: &[(&str, &str)] =
    &[("consumers[].enabled", "true"), ("consumers[].type", "kafka")];
const POSTGRES_IS_CONSUMED: &[(&str, &str)] =
    &[("consumers[].enabled", "true"), ("consumers[].type", "postgresql")];
const JETSTREAM_IS_CONSUMED: &[(&str, &str)] =
    &[("consumers[].enabled", "true"), ("consumers[].type", "nats_jetstream")];
const REDIS_IS_USED: &[(&str, &str)] = &[("engine.type", "redis")];
const REDIS_KEEPS_PRESENCE: &[(&str, &str)] =
    &[("presence_manager.enabled", "true"), ("presence_manager.type", "redis")];
const NATS_IS_USED: &[(&str, &str)] = &[("broker.enabled", "true"), ("broker.type", "nats")];
const GRPC_TLS_IS_SERVED: &[(&str, &str)] =
    &[("grpc_api.enabled", "true"), ("grpc_api.tls.enabled", "true")];
const TLS_IS_SERVED: &[(&str, &str)] = &[("http_server.tls.enabled", "true")];

/// Keys of Centrifugo 6.9 without effect here, by section.
#[rustfmt::skip]
pub(super) const ABSENT: &[AbsentSection] = &[
    section(&[""], &[
        ignored("enable_unreleased_features", "false"),
        ignored("pid_file", ""),
        ignored("node.info_metrics_aggregate_interval", "60s"),
        detail("usage_stats.disabled", "false"),
    ]),
    section(&["http_server"], &[
        switch("tls_autocert.enabled", Feature::Autocert),
        detail("tls_autocert.host_whitelist", ""),
        detail("tls_autocert.cache_dir", ""),
        detail("tls_autocert.email", ""),
        detail("tls_autocert.server_name", ""),
        detail("tls_autocert.http", "false"),
        detail("tls_autocert.http_addr", ":80"),
        switch("internal_tls.enabled", Feature::TlsByPort),
        switch("http3.enabled", Feature::Http3),
        switch("h2c_external", Feature::Http2),
        detail("tls.server_ca_pem", ""),
        detail("tls.insecure_skip_verify", "false"),
        detail("tls.server_name", ""),
    ]),
    section(&["http_server.internal_tls"], TLS),
    AbsentSection { below: &["http_server"], when: TLS_IS_SERVED, keys: &[
        choice("tls.client_ca_pem", "", Feature::ClientCertificates),
        switch("tls_external", Feature::TlsByPort),
    ] },
    section(&["log"], &[choice("file", "", Feature::LogFile)]),
    section(&["engine.redis"], &[ignored("history_use_lists", "false")]),
    section(&["engine.redis", "presence_manager.redis"], &[
        ignored("client_name", ""),
        ignored("sentinel_client_name", ""),
        ignored("presence_hash_field_ttl", "false"),
        ignored("presence_user_mapping", "false"),
        detail("tls.client_ca_pem", ""),
    ]),
    AbsentSection { below: &["engine.redis"], when: REDIS_IS_USED, keys: &[
        switch("force_resp2", Feature::RedisResp2),
        switch("replica_client.enabled", Feature::RedisReplicas),
        switch("tls.insecure_skip_verify", Feature::UnverifiedTls),
        switch("sentinel_tls.enabled", Feature::SentinelTls),
    ] },
    AbsentSection { below: &["presence_manager.redis"], when: REDIS_KEEPS_PRESENCE, keys: &[
        switch("force_resp2", Feature::RedisResp2),
        switch("replica_client.enabled", Feature::RedisReplicas),
        switch("tls.insecure_skip_verify", Feature::UnverifiedTls),
        switch("sentinel_tls.enabled", Feature::SentinelTls),
    ] },
    section(&["engine.redis.sentinel_tls", "presence_manager.redis.sentinel_tls"], TLS),
    section(&["broker.nats"], &[
        ignored("write_timeout", "1s"),
        ignored("tls.server_name", ""),
        detail("tls.client_ca_pem", ""),
        detail("raw_mode.channel_replacements", "{}"),
        detail("raw_mode.prefix", ""),
    ]),
    AbsentSection { below: &["broker.nats"], when: NATS_IS_USED, keys: &[
        switch("allow_wildcards", Feature::NatsWildcards),
        switch("raw_mode.enabled", Feature::NatsRaw),
        switch("tls.insecure_skip_verify", Feature::UnverifiedTls),
    ] },
    section(&["broker.redis", "broker.redisnats.redis", "map_broker.redis"], REDIS),
    section(&["broker.redis", "broker.redisnats.redis"], &[detail("history_use_lists", "false")]),
    section(&["broker.redisnats.nats"], &[
        detail("prefix", "centrifugo"),
        detail("url", "nats://localhost:4222"),
        detail("dial_timeout", "1s"),
        detail("write_timeout", "1s"),
        detail("allow_wildcards", "false"),
        detail("raw_mode.enabled", "false"),
        detail("raw_mode.channel_replacements", "{}"),
        detail("raw_mode.prefix", ""),
    ]),
    section(&["broker.postgres", "map_broker.postgres"], POSTGRES),
    section(&["map_broker"], &[
        detail("type", "memory"),
        detail("redis.cleanup_interval", "1s"),
        detail("redis.cleanup_batch_size", "100"),
        detail("redis.idempotent_result_ttl", "5m"),
        detail("redis.skip_pub_sub", "false"),
        detail("postgres.ttl_check_interval", "1s"),
    ]),
    section(&["controller"], &[
        switch("enabled", Feature::Controller),
        detail("type", ""),
        detail("postgres.dsn", ""),
        detail("postgres.pool_size", "8"),
        detail("postgres.num_shards", "1"),
        detail("postgres.table_prefix", "cf"),
        detail("postgres.poll_interval", "50ms"),
        detail("postgres.use_notify", "false"),
        detail("postgres.notify_dsn", ""),
        detail("postgres.partition_retention_days", "1"),
        detail("postgres.partition_lookahead_days", "2"),
        detail("postgres.partition_cleanup_interval", "1m"),
        detail("postgres.batch_size", "1000"),
        detail("postgres.skip_schema_init", "false"),
    ]),
    section(&["shared_poll"], &[
        detail("hmac_secret_key", ""),
        detail("hmac_previous_secret_key", ""),
        detail("hmac_previous_secret_key_valid_until", "0"),
        detail("concurrency_limit", "0"),
    ]),
    section(&[
        "channel.proxy.subscribe_stream", "channel.proxy.map_publish", "channel.proxy.map_remove",
        "channel.proxy.shared_poll_refresh",
    ], PROXY),
    section(TLS_OF_PROXIES, &[
        detail("client_ca_pem", ""),
        switch("insecure_skip_verify", Feature::UnverifiedTls),
    ]),
    section(TLS_OF_CLIENTS, TLS),
    section(TLS_OF_CLIENTS, &[detail("enabled", "false")]),
    section(&["client"], &[
        ignored("presence_update_interval", "27s"),
        ignored("channel_position_max_time_lag", "0s"),
        switch("connect_code_to_unidirectional_disconnect.enabled", Feature::UnidirectionalTransports),
        detail("connect_code_to_unidirectional_disconnect.transforms", "[]"),
    ]),
    section(&["client.token", "client.subscription_token"], &[
        ignored("insecure_skip_jwks_endpoint_safety_check", "false"),
    ]),
    section(&["channel.without_namespace", "channel.namespaces[]"], OF_NAMESPACES),
    section(&["consumers[]"], CONSUMERS),
    AbsentSection { below: &["consumers[].kafka"], when: KAFKA_IS_CONSUMED, keys: &[
        switch("tls.insecure_skip_verify", Feature::UnverifiedTls),
    ] },
    AbsentSection { below: &["consumers[].postgresql"], when: POSTGRES_IS_CONSUMED, keys: &[
        switch("tls.insecure_skip_verify", Feature::UnverifiedTls),
    ] },
    AbsentSection { below: &["consumers[].nats_jetstream"], when: JETSTREAM_IS_CONSUMED, keys: &[
        switch("tls.insecure_skip_verify", Feature::UnverifiedTls),
        choice("credentials_file", "", Feature::NatsCredentials),
    ] },
    section(&["consumers[].redis_stream"], REDIS),
    section(
        &[
            "consumers[].google_pub_sub.publication_data_mode",
            "consumers[].aws_sqs.publication_data_mode",
        ],
        PUBLICATION_ATTRIBUTES,
    ),
    section(
        &[
            "consumers[].redis_stream.tls",
            "consumers[].redis_stream.sentinel_tls",
        ],
        TLS,
    ),
    AbsentSection { below: &["grpc_api"], when: GRPC_TLS_IS_SERVED, keys: &[
        choice("tls.client_ca_pem", "", Feature::ClientCertificates),
    ] },
    section(&["grpc_api"], &[
        detail("tls.server_ca_pem", ""),
        detail("tls.insecure_skip_verify", "false"),
        detail("tls.server_name", ""),
    ]),
    section(&["websocket"], &[
        ignored("read_buffer_size", "0"),
        ignored("use_write_buffer_pool", "false"),
        ignored("write_buffer_size", "0"),
        ignored("write_timeout", "1s"),
    ]),
    section(&["sse", "http_stream"], &[switch("enabled", Feature::HttpTransports)]),
    section(&["webtransport"], &[
        switch("enabled", Feature::WebTransport),
        detail("handler_prefix", "/connection/webtransport"),
        detail("message_size_limit", "65536"),
    ]),
    section(&["uni_sse", "uni_http_stream", "uni_websocket", "uni_grpc"], &[
        switch("enabled", Feature::UnidirectionalTransports),
    ]),
    section(&["sse", "http_stream", "uni_sse", "uni_http_stream", "emulation"], &[
        detail("max_request_body_size", "65536"),
    ]),
    section(&["uni_sse", "uni_http_stream"], &[
        detail("connect_code_to_http_response.enabled", "false"),
        detail("connect_code_to_http_response.transforms", "[]"),
    ]),
    section(&[""], &[
        detail("sse.handler_prefix", "/connection/sse"),
        detail("http_stream.handler_prefix", "/connection/http_stream"),
        detail("uni_sse.handler_prefix", "/connection/uni_sse"),
        detail("uni_http_stream.handler_prefix", "/connection/uni_http_stream"),
        detail("emulation.handler_prefix", "/emulation"),
    ]),
    section(&["uni_websocket"], &[
        detail("handler_prefix", "/connection/uni_websocket"),
        detail("compression", "false"),
        detail("compression_min_size", "0"),
        detail("compression_level", "1"),
        detail("read_buffer_size", "0"),
        detail("use_write_buffer_pool", "false"),
        detail("write_buffer_size", "0"),
        detail("write_timeout", "1s"),
        detail("message_size_limit", "65536"),
        detail("decompressed_message_size_limit", "0"),
        detail("disable_closing_handshake", "false"),
        detail("disable_disconnect_push", "false"),
        detail("join_push_messages", "false"),
    ]),
    section(&["uni_grpc"], &[
        detail("address", ""),
        detail("port", "11000"),
        detail("max_receive_message_size", "0"),
    ]),
    section(&["admin"], &[
        switch("enabled", Feature::Admin),
        detail("handler_prefix", ""),
        detail("password", ""),
        detail("secret", ""),
        detail("insecure", "false"),
        detail("web_path", ""),
        detail("web_proxy_address", ""),
        detail("external", "false"),
    ]),
    section(&["prometheus"], &[
        switch("instrument_http_handlers", Feature::MetricsForms),
        switch("recovered_publications_histogram", Feature::MetricsForms),
        switch("native_histograms", Feature::MetricsForms),
    ]),
    section(&["swagger"], &[switch("enabled", Feature::Swagger), detail("handler_prefix", "/swagger")]),
    section(&["debug"], &[switch("enabled", Feature::Profiling), detail("handler_prefix", "/debug/pprof")]),
    section(&["init"], &[switch("enabled", Feature::Init), detail("handler_prefix", "/connection/init")]),
    section(&["opentelemetry"], &[
        switch("enabled", Feature::OpenTelemetry),
        detail("api", "false"),
        detail("consuming", "false"),
        detail("google_cloud_adc_auth", "false"),
    ]),
    section(&["graphite"], &[
        switch("enabled", Feature::Graphite),
        detail("host", "localhost"),
        detail("port", "2003"),
        detail("prefix", "centrifugo"),
        detail("interval", "10s"),
        detail("tags", "false"),
    ]),
];

/// Options of a namespace, and of `channel.without_namespace`.
#[rustfmt::skip]
const OF_NAMESPACES: &[AbsentKey] = &[
    choice("map_clients_presence_channel_prefix", "", Feature::MapChannels),
    choice("map_users_presence_channel_prefix", "", Feature::MapChannels),
    choice("allowed_delta_types", "", Feature::Delta),
    detail("delta_publish", "false"),
    switch("allow_tags_filter", Feature::TagsFilter),
    switch("subscribe_stream_proxy_enabled", Feature::SubscribeStreamProxy),
    detail("subscribe_stream_proxy_name", "default"),
    detail("subscribe_stream_proxy_bidirectional", "false"),
    choice("subscription_type", "stream", Feature::MapChannels),
    detail("map.mode", ""),
    detail("map.key_ttl", "0s"),
    detail("map.stream_size", "0"),
    detail("map.stream_ttl", "0s"),
    detail("map.meta_ttl", "0s"),
    detail("map.remove_client_on_unsubscribe", "false"),
    detail("map.client_key", ""),
    detail("map.allow_publish_for_client", "false"),
    detail("map.allow_publish_for_subscriber", "false"),
    detail("map.allow_publish_for_anonymous", "false"),
    detail("map.allow_remove_for_client", "false"),
    detail("map.allow_remove_for_subscriber", "false"),
    detail("map.allow_remove_for_anonymous", "false"),
    detail("map.publish_proxy_enabled", "false"),
    detail("map.publish_proxy_name", "default"),
    detail("map.remove_proxy_enabled", "false"),
    detail("map.remove_proxy_name", "default"),
    detail("map.default_page_size", "0"),
    detail("map.min_page_size", "0"),
    detail("map.max_page_size", "0"),
    detail("map.live_transition_max_publication_limit", "0"),
    detail("map.subscribe_catch_up_timeout", "0s"),
    detail("shared_poll.proxy_name", ""),
    detail("shared_poll.refresh_interval", "0s"),
    detail("shared_poll.refresh_batch_size", "0"),
    detail("shared_poll.max_keys_per_connection", "0"),
    detail("shared_poll.mode", ""),
    detail("shared_poll.channel_shutdown_delay", "0s"),
    detail("shared_poll.track_expired_extra_delay", "0s"),
    detail("shared_poll.publish_enabled", "false"),
];

/// A group about TLS, but for its switch.
const TLS: &[AbsentKey] = &[
    detail("cert_pem", ""),
    detail("key_pem", ""),
    detail("server_ca_pem", ""),
    detail("client_ca_pem", ""),
    detail("insecure_skip_verify", "false"),
    detail("server_name", ""),
];

const TLS_OF_CLIENTS: &[&str] = &[
    "broker.redis.tls",
    "broker.redis.sentinel_tls",
    "broker.redisnats.redis.tls",
    "broker.redisnats.redis.sentinel_tls",
    "broker.redisnats.nats.tls",
    "broker.postgres.tls",
    "map_broker.redis.tls",
    "map_broker.redis.sentinel_tls",
    "map_broker.postgres.tls",
    "controller.postgres.tls",
    "channel.proxy.subscribe_stream.http.tls",
    "channel.proxy.subscribe_stream.grpc.tls",
    "channel.proxy.map_publish.http.tls",
    "channel.proxy.map_publish.grpc.tls",
    "channel.proxy.map_remove.http.tls",
    "channel.proxy.map_remove.grpc.tls",
    "channel.proxy.shared_poll_refresh.http.tls",
    "channel.proxy.shared_poll_refresh.grpc.tls",
    "uni_grpc.tls",
];

const TLS_OF_PROXIES: &[&str] = &[
    "client.proxy.connect.http.tls",
    "client.proxy.connect.grpc.tls",
    "client.proxy.refresh.http.tls",
    "client.proxy.refresh.grpc.tls",
    "channel.proxy.subscribe.http.tls",
    "channel.proxy.subscribe.grpc.tls",
    "channel.proxy.publish.http.tls",
    "channel.proxy.publish.grpc.tls",
    "channel.proxy.sub_refresh.http.tls",
    "channel.proxy.sub_refresh.grpc.tls",
    "rpc.proxy.http.tls",
    "rpc.proxy.grpc.tls",
    "proxies[].http.tls",
    "proxies[].grpc.tls",
];

/// A Redis beside that of the engine, but for TLS.
const REDIS: &[AbsentKey] = &[
    detail("prefix", "centrifugo"),
    detail("address", "redis://127.0.0.1:6379"),
    detail("connect_timeout", "1s"),
    detail("io_timeout", "4s"),
    detail("db", "0"),
    detail("user", ""),
    detail("password", ""),
    detail("client_name", ""),
    detail("force_resp2", "false"),
    detail("cluster_address", ""),
    detail("sentinel_address", ""),
    detail("sentinel_user", ""),
    detail("sentinel_password", ""),
    detail("sentinel_master_name", ""),
    detail("sentinel_client_name", ""),
    detail("replica_client.enabled", "false"),
];

/// A broker in PostgreSQL, but for TLS.
const POSTGRES: &[AbsentKey] = &[
    detail("dsn", ""),
    detail("pool_size", "16"),
    detail("num_shards", "8"),
    detail("cleanup_interval", "1m"),
    detail("idempotent_result_ttl", "5m"),
    detail("binary_data", "false"),
    detail("stream_retention", "24h"),
    detail("use_notify", "false"),
    detail("notify_dsn", ""),
    detail("table_prefix", "cf"),
    detail("skip_schema_init", "false"),
    detail("outbox.poll_interval", "100ms"),
    detail("outbox.batch_size", "1000"),
    detail("partition_lookahead_days", "2"),
    detail("partition_retention_days", "7"),
];

/// Options of requests to a backend, except TLS.
const PROXY: &[AbsentKey] = &[
    detail("endpoint", ""),
    detail("timeout", "1s"),
    detail("http_headers", ""),
    detail("grpc_metadata", ""),
    detail("emulated_headers", ""),
    detail("binary_encoding", "false"),
    detail("include_connection_meta", "false"),
    detail("http.static_headers", "{}"),
    detail("http.status_to_code_transforms", "[]"),
    detail("grpc.credentials_key", ""),
    detail("grpc.credentials_value", ""),
    detail("grpc.compression", "false"),
    detail("grpc.static_metadata", "{}"),
];

/// Options of sources of consumers that are not supported.
const CONSUMERS: &[AbsentKey] = &[
    detail("kafka.assume_role_arn", ""),
    detail("kafka.tls.client_ca_pem", ""),
    detail("postgresql.tls.client_ca_pem", ""),
    detail("nats_jetstream.tls.client_ca_pem", ""),
    ignored("nats_jetstream.tls.server_name", ""),
    detail("redis_stream.streams", ""),
    detail("redis_stream.consumer_group", ""),
    detail("redis_stream.visibility_timeout", "30s"),
    detail("redis_stream.num_workers", "1"),
    detail("redis_stream.payload_value", "payload"),
    detail("redis_stream.method_value", "method"),
    detail("redis_stream.publication_data_mode.enabled", "false"),
    detail("redis_stream.publication_data_mode.channels_value", "centrifugo-channels"),
    detail(
        "redis_stream.publication_data_mode.idempotency_key_value",
        "centrifugo-idempotency-key",
    ),
    detail("redis_stream.publication_data_mode.delta_value", "centrifugo-delta"),
    detail("redis_stream.publication_data_mode.version_value", "centrifugo-version"),
    detail("redis_stream.publication_data_mode.version_epoch_value", "centrifugo-version-epoch"),
    detail("redis_stream.publication_data_mode.tags_value_prefix", "centrifugo-tag-"),
    detail("google_pub_sub.project_id", ""),
    detail("google_pub_sub.subscriptions", ""),
    detail("google_pub_sub.max_outstanding_messages", "100"),
    detail("google_pub_sub.max_outstanding_bytes", "1000000"),
    detail("google_pub_sub.auth_mechanism", ""),
    detail("google_pub_sub.credentials_file", ""),
    detail("google_pub_sub.method_attribute", "centrifugo-method"),
    detail("aws_sqs.queues", ""),
    detail("aws_sqs.sns_envelope", "false"),
    detail("aws_sqs.region", ""),
    detail("aws_sqs.max_number_of_messages", "10"),
    detail("aws_sqs.wait_time_time", "20s"),
    detail("aws_sqs.visibility_timeout", "30s"),
    detail("aws_sqs.max_concurrency", "1"),
    detail("aws_sqs.credentials_profile", ""),
    detail("aws_sqs.assume_role_arn", ""),
    detail("aws_sqs.method_attribute", "centrifugo-method"),
    detail("aws_sqs.localstack_endpoint", ""),
    detail("azure_service_bus.connection_string", ""),
    detail("azure_service_bus.use_azure_identity", "false"),
    detail("azure_service_bus.fully_qualified_namespace", ""),
    detail("azure_service_bus.tenant_id", ""),
    detail("azure_service_bus.client_id", ""),
    detail("azure_service_bus.client_secret", ""),
    detail("azure_service_bus.queues", ""),
    detail("azure_service_bus.use_sessions", "false"),
    detail("azure_service_bus.max_concurrent_calls", "1"),
    detail("azure_service_bus.max_receive_messages", "1"),
    detail("azure_service_bus.method_property", "centrifugo-method"),
];

/// Publication data mode of sources whose names of headers end in `_attribute` or `_header`.
const PUBLICATION_ATTRIBUTES: &[AbsentKey] = &[
    detail("enabled", "false"),
    detail("channels_attribute", "centrifugo-channels"),
    detail("idempotency_key_attribute", "centrifugo-idempotency-key"),
    detail("delta_attribute", "centrifugo-delta"),
    detail("version_attribute", "centrifugo-version"),
    detail("version_epoch_attribute", "centrifugo-version-epoch"),
    detail("tags_attribute_prefix", "centrifugo-tag-"),
];
