//! Every key: where it stands, what it holds, its default and its meaning.
//!
//! Those of the compatible server for what is not here stand in `absent`.

mod absent;
mod feature;

pub use absent::{ABSENT, ABSENT_LISTS, AbsentKey, AbsentList, AbsentRole, Section};
pub use feature::Feature;

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Path with dots; within a namespace or a token, only the last part.
    pub path: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Its value when nothing is written, as it would be written in TOML without quotes.
    pub default: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number up to a bound.
    Integer(u64),
    /// A time such as `"10s"` or `"1m30s"`.
    Duration,
    /// Text.
    Text,
    /// Text that is never shown.
    Secret,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A list of texts.
    List,
}

use Kind::{Bool, Duration, Integer, List, OneOf, Secret, Text};

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}

const COUNT: Kind = Integer(u32::MAX as u64);

/// Keys outside namespaces and tokens.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("http_server.address", Text, "", "Address, name or unix:/path to listen on; empty for all addresses, IPv4 and IPv6."),
    key("http_server.port", Integer(65_535), "8000", "Port to listen on; 0 lets the system choose."),
    key("http_server.internal_address", Text, "", "Address, name or unix:/path of the internal endpoints; empty for that of clients."),
    key("http_server.internal_port", Integer(65_535), "0", "Port of its own for API, metrics and health; 0 keeps them on the public one, unless internal_address is a Unix socket or another address than that of clients."),
    key("http_server.unix_socket_mode", Text, "660", "Permissions of the file of a Unix socket, octal."),
    key("http_server.keep_alive_timeout", Duration, "75s", "Time to wait for another request on an HTTP connection; longer than the one of the load balancer or client in front."),
    key("http_server.proxy_protocol", Bool, "false", "Connections to the public address begin with a PROXY header, version 1 or 2; peers outside client.trusted_proxies are refused."),
    key("http_server.tls.enabled", Bool, "false", "Serve TLS."),
    key("http_server.tls.cert_pem", Text, "", "Certificate chain: PEM, PEM in base64, or a file, which is read again when it changes and at SIGHUP."),
    key("http_server.tls.key_pem", Secret, "", "Private key: PEM, PEM in base64, or a file."),
    key("websocket.disabled", Bool, "false", "Do not serve WebSocket connections."),
    key("websocket.handler_prefix", Text, "/connection/websocket", "Path of WebSocket connections."),
    key("websocket.compression", Bool, "false", "Negotiate permessage-deflate."),
    key("websocket.compression_level", Integer(9), "1", "1 (fast) to 9 (small)."),
    key("websocket.compression_min_size", COUNT, "0", "Bytes below which messages are not compressed."),
    key("websocket.message_size_limit", COUNT, "65536", "Bytes of an incoming message at most (close code 1009)."),
    key("websocket.decompressed_message_size_limit", COUNT, "0", "Bytes of an inflated message at most; 0 is ten times the message limit."),
    key("client.allowed_origins", List, "", "Web pages that may connect, such as \"https://*.example.com\"; \"*\" for all. Empty admits only clients that send no Origin."),
    key("client.ping_interval", Duration, "25s", "Time between pings; 0 for none."),
    key("client.pong_timeout", Duration, "8s", "Time to answer a ping (3012); less than the interval; 0 if answers are not expected."),
    key("client.channel_limit", COUNT, "128", "Subscriptions of one connection at most (error 106); 0 for the default."),
    key("client.connection_limit", COUNT, "0", "Admitted connections of this node at most (503 at the handshake, 3011 at the connect command); 0 for no limit."),
    key("client.unauthenticated_connection_limit", COUNT, "16384", "Connections of this node at most whose connect command was not accepted yet, half of them of one address (IPv6: of one /64). The oldest of the address with most of them makes room (3011); 0 for no limit."),
    key("client.connection_rate_limit", COUNT, "0", "Handshakes of this node per second at most (503); 0 for no limit."),
    key("client.user_connection_limit", COUNT, "0", "Connections of one admitted user on this node at most (3504); 0 for no limit."),
    key("client.queue_max_size", COUNT, "1048576", "Bytes queued towards one client at most; beyond that it is slow (3008)."),
    key("client.stale_close_delay", Duration, "10s", "Time to send the connect command (3502); 0 for the default."),
    key("client.expired_close_delay", Duration, "25s", "Grace after a connection's lifetime (3005)."),
    key("client.expired_sub_close_delay", Duration, "25s", "Grace after a subscription's lifetime (2501)."),
    key("client.channel_position_check_delay", Duration, "40s", "Silence of a channel after which its position is checked with the broker."),
    key("client.history_max_publication_limit", COUNT, "300", "Publications of one history reply at most; 0 for no limit."),
    key("client.recovery_max_publication_limit", COUNT, "300", "Publications of one recovery at most; 0 for no limit."),
    key("client.leave_grace", Duration, "0s", "Time for which a client whose connection ended stays present, and its leave is not told: whoever reconnects meanwhile has joined again before. A node that stops does not wait."),
    key("client.connect_include_server_time", Bool, "false", "Send the server's time with the connect reply."),
    key("client.insecure", Bool, "false", "Everybody may do everything, nothing expires. For development."),
    key("client.insecure_skip_token_signature_verify", Bool, "false", "Believe tokens without checking signatures. For development."),
    key("client.allow_anonymous_connect_without_token", Bool, "false", "Admit clients without a token as the anonymous user."),
    key("client.disallow_anonymous_connection_tokens", Bool, "false", "Refuse tokens without a user (3507)."),
    key("client.trusted_proxies", List, "", "Proxies that are believed when they name a client's address (X-Forwarded-For, Forwarded, PROXY protocol): networks such as \"10.0.0.0/8\", addresses, or \"unix:\" for whoever connects through a Unix socket. Limits per address then count that address."),
    key("client.user_id_http_header", Text, "", "Header in which a reverse proxy names the user."),
    key("client.subscribe_to_user_personal_channel.enabled", Bool, "false", "Subscribe each user to a channel of its own."),
    key("client.subscribe_to_user_personal_channel.personal_channel_namespace", Text, "", "Namespace of the personal channels."),
    key("client.subscribe_to_user_personal_channel.single_connection", Bool, "false", "A user's newest connection ends its others (3504)."),
    key("client.subscription_token.enabled", Bool, "false", "Subscription tokens have keys of their own."),
    key("channel.max_length", Integer(4096), "255", "Bytes of a channel name at most (error 107)."),
    key("channel.private_prefix", Text, "$", "Channels that begin so need a subscription token."),
    key("channel.namespace_boundary", Text, ":", "Separates the namespace from the rest of a channel name."),
    key("channel.user_boundary", Text, "#", "Separates the users that a channel is limited to."),
    key("channel.user_separator", Text, ",", "Separates those users from each other."),
    key("channel.publication_data_format", OneOf(DATA_FORMATS), "", "What payloads must be where a namespace does not say: \"\" anything but nothing, json, json_object, or binary for anything. A client of the JSON protocol misses publications that are not JSON."),
    key("channel.history_meta_ttl", Duration, "720h", "Time that offset and epoch of a channel are kept after its last publication."),
    key("http_api.disabled", Bool, "false", "Do not serve the server API."),
    key("http_api.handler_prefix", Text, "/api", "Path of the server API."),
    key("http_api.key", Secret, "", "Key that the server API asks for; empty refuses everybody."),
    key("http_api.insecure", Bool, "false", "The server API asks for no key. For development."),
    key("http_api.external", Bool, "false", "Serve the API on the public port even when there is an internal one."),
    key("http_api.error_mode", OneOf(&["", "transport"]), "", "transport: errors have their own HTTP status."),
    key("health.enabled", Bool, "true", "Serve liveness (and readiness at /ready)."),
    key("health.handler_prefix", Text, "/health", "Path of the liveness check."),
    key("prometheus.enabled", Bool, "true", "Serve metrics."),
    key("prometheus.handler_prefix", Text, "/metrics", "Path of the metrics."),
    key("log.level", OneOf(&["none", "trace", "debug", "info", "warn", "error", "fatal"]), "info", "What is logged; fatal is the same as error."),
    key("log.format", OneOf(&["auto", "pretty", "json"]), "auto", "auto: pretty on a terminal, JSON otherwise."),
    key("shutdown.timeout", Duration, "30s", "Time to stop; then the process ends whatever remains."),
    key("shutdown.drain_rate", COUNT, "0", "Clients of this node asked to reconnect in a second at most: with many, it takes longer than the window, but no longer than the timeout. 0 for as many as there are."),
    key("shutdown.drain_window", Duration, "3s", "Over how long clients are asked to reconnect elsewhere (3001); less than the timeout."),
    key("server.workers", Integer(1024), "0", "Worker threads; 0 for one per core."),
    key("engine.type", OneOf(&["memory", "redis"]), "memory", "What carries publications: memory of this process, or Redis for any number of nodes."),
    key("engine.redis.address", List, "redis://127.0.0.1:6379", "Where Redis is: [\"redis://user:password@host:6379/0\"], rediss:// for TLS; several are independent servers over which channels are spread; redis+cluster://host,host for a Cluster; redis+sentinel://host,host?sentinel_master_name=NAME for Sentinels."),
    key("engine.redis.cluster_address", List, "", "Addresses host:port of a Redis Cluster, in place of the address."),
    key("engine.redis.sentinel_address", List, "", "Addresses host:port of Sentinels, in place of the address."),
    key("engine.redis.sentinel_master_name", Text, "", "Name of the master among the Sentinels."),
    key("engine.redis.user", Text, "", "User, when the address has none."),
    key("engine.redis.password", Secret, "", "Password, when the address has none."),
    key("engine.redis.db", Integer(u32::MAX as u64), "0", "Number of the database, when the address has none; 0 in a Cluster."),
    key("engine.redis.sentinel_user", Text, "", "User for the Sentinels."),
    key("engine.redis.sentinel_password", Secret, "", "Password for the Sentinels."),
    key("engine.redis.prefix", Text, "tidings", "What every key and channel in Redis begins with; separates installations."),
    key("engine.redis.connect_timeout", Duration, "1s", "Time to connect to Redis."),
    key("engine.redis.io_timeout", Duration, "3s", "Time for an answer of Redis; then what was asked has failed."),
    key("engine.redis.presence_ttl", Duration, "60s", "Time after which clients are not present any more whose node is gone without any other noticing."),
    key("engine.redis.lease", Duration, "12s", "Silence of a node after which another one clears it away: its clients are offline and present nowhere."),
    key("engine.redis.wait_at_start", Bool, "true", "Wait at the start until Redis can be reached; otherwise fail. Wrong settings always fail."),
    key("engine.redis.tls.enabled", Bool, "false", "Speak TLS with Redis, as rediss:// does."),
    key("engine.redis.tls.server_ca_pem", Text, "", "Certificates to trust instead of the public ones: PEM, PEM in base64, or a file."),
    key("engine.redis.tls.server_name", Text, "", "Name that the certificate must have; empty for the host's."),
    key("engine.redis.tls.cert_pem", Text, "", "Certificate chain that shows who we are: PEM, PEM in base64, or a file."),
    key("engine.redis.tls.key_pem", Secret, "", "Its private key: PEM, PEM in base64, or a file."),
    key("engine.memory.bytes_max", Integer(u64::MAX >> 1), "0", "Bytes that the memory engine keeps at most: channels, history, presence, idempotency keys; beyond, what would keep more is refused (error 111). 0 for half of the memory that the process may use."),
    key("engine.memory.channels_max", COUNT, "0", "Channels that the memory engine keeps at most (error 111); 0 for no limit but the bytes."),
    key("limits.connection.commands", Text, "500/s burst 2000", "Commands of one connection (error 111), as tokens of a bucket: so many in a time (s, m, h, or several: 5s), and so many at once. Without burst as many at once as in the time; off or empty for no limit. At least four times client.channel_limit at once where it is not written."),
    key("limits.connection.publishes", Text, "200/s burst 1000", "Publications of one connection."),
    key("limits.connection.subscribes", Text, "50/s burst 512", "Subscribe commands of one connection. At least twice client.channel_limit at once where it is not written."),
    key("limits.connection.new_channels", Text, "20/s burst 512", "Channels that one connection names in publish, subscribe and history and that its worker has not seen lately. At least twice client.channel_limit at once where it is not written."),
    key("limits.connection.bytes", Text, "2MiB/s burst 8MiB", "Bytes of one connection's messages, inflated; a message larger than the burst passes when the bucket is full."),
    key("limits.connection.refusals", Text, "10/s burst 1000", "Refusals by the buckets above that one connection may go on after; beyond, it is closed (3013)."),
    key("limits.user.commands", Text, "", "Commands of all connections of one user on this node; anonymous users are not counted."),
    key("limits.user.publishes", Text, "", "Publications of all connections of one user on this node."),
    key("limits.user.subscribes", Text, "", "Subscribe commands of all connections of one user on this node."),
    key("limits.user.connects", Text, "", "Connect commands of one user on this node."),
    key("limits.address.handshakes", Text, "", "WebSocket handshakes from one address, or one /64 of IPv6, on this node (429); behind a proxy only with client.trusted_proxies."),
    key("limits.address.connects", Text, "", "TCP connections from one address, or one /64 of IPv6, on this node; more are closed at once."),
    key("limits.api_key.requests", Text, "", "Server API calls with one key on this node (429); each command of a batch is one."),
    key("demo.enabled", Bool, "false", "Serve the demo page and feed its ticker."),
    key("broker.enabled", Bool, "false", "Use the broker of broker.type in place of the engine."),
    key("broker.type", OneOf(&["memory", "nats", "redis", "postgres", "redisnats"]), "memory", "What carries everything in place of the engine: NATS."),
    key("broker.nats.url", Secret, "nats://localhost:4222", "Addresses of NATS, separated by commas; a user, password or token may stand in them. tls:// refuses servers without TLS."),
    key("broker.nats.prefix", Text, "tidings", "Separates installations that share a NATS."),
    key("broker.nats.dial_timeout", Duration, "1s", "Time to connect to NATS."),
    key("broker.nats.tls.enabled", Bool, "false", "Refuse a NATS without TLS."),
    key("broker.nats.tls.server_ca_pem_file", Text, "", "File with certificates of authorities to trust besides those of the system, PEM."),
    key("broker.nats.tls.server_ca_pem", Text, "", "The same, as the compatible server calls it."),
    key("broker.nats.tls.cert_pem", Text, "", "File with a certificate chain that shows who we are, PEM."),
    key("broker.nats.tls.key_pem", Secret, "", "File with its private key, PEM."),
    key("broker.nats.jetstream.replicas", Integer(5), "1", "Copies of what JetStream keeps, in a cluster of NATS servers."),
    key("node.name", Text, "", "Name of this node, in events and in the API; differs from all others. Empty for the host's name."),
    key("lifecycle.enabled", Bool, "true", "Tell in sys:presence, and in a stream of the broker, when clients come and go; orders then go only to the nodes that have the client. The same on all nodes."),
    key("lifecycle.events_max", COUNT, "100000", "Events that the stream keeps for backends; seven days at most."),
];

const DATA_FORMATS: &[&str] = &["", "json", "json_object", "binary"];

/// Keys of one group of `http_api.keys`.
#[rustfmt::skip]
pub const API_KEY_KEYS: &[Key] = &[
    key("name", Text, "", "Name of the caller, in logs and metrics; each is there once."),
    key("key", Secret, "", "Its key."),
    key("methods", List, "", "Methods that it may call, such as [\"publish\", \"broadcast\"]; empty for all. A batch needs those of its commands."),
    key("channels", List, "", "Patterns of channels that it may name, such as [\"news:*\"]; empty for all."),
];

/// Keys below `client.token` and `client.subscription_token`.
#[rustfmt::skip]
pub const TOKEN_KEYS: &[Key] = &[
    key("hmac_secret_key", Secret, "", "Secret of HS256, HS384 and HS512 tokens."),
    key("hmac_previous_secret_key", Secret, "", "Secret that is still accepted."),
    key("hmac_previous_secret_key_valid_until", Integer(u64::MAX >> 1), "0", "Unix seconds until which it is; 0 for always."),
    key("rsa_public_key", Text, "", "Public key of RS256, RS384 and RS512 tokens: PEM, PEM in base64, or a file."),
    key("ecdsa_public_key", Text, "", "Public key of ES256, ES384 and ES512 tokens: PEM, PEM in base64, or a file."),
    key("jwks_public_endpoint", Text, "", "Address of a key set; when set, the other keys are not used."),
    key("audience", Text, "", "What a token's aud must contain."),
    key("audience_regex", Text, "", "What a token's aud must match."),
    key("issuer", Text, "", "What a token's iss must be."),
    key("issuer_regex", Text, "", "What a token's iss must match."),
    key("user_id_claim", Text, "", "Claim that names the user; empty for sub."),
    key("role_claim", Text, "role", "Claim of connection tokens that holds roles, a text or a list of texts; see docs/permissions.md."),
];

/// Keys of a namespace, and of `channel.without_namespace`.
#[rustfmt::skip]
pub const NAMESPACE_KEYS: &[Key] = &[
    key("presence", Bool, "false", "Keep who is online."),
    key("join_leave", Bool, "false", "Tell when somebody joins or leaves."),
    key("force_push_join_leave", Bool, "false", "Tell it to every subscriber, asked for or not."),
    key("history_size", COUNT, "0", "Publications retained; needs history_ttl."),
    key("history_ttl", Duration, "0s", "Time that publications are retained; needs history_size."),
    key("history_meta_ttl", Duration, "0s", "Time that offset and epoch are kept; 0 for channel.history_meta_ttl."),
    key("channel_ttl", Duration, "0s", "Time that a channel lasts from its first subscriber on; then its subscribers are notified (2100) and what it retains is gone. 0 for ever."),
    key("force_positioning", Bool, "false", "Notice gaps for every subscriber."),
    key("allow_positioning", Bool, "false", "Notice gaps for subscribers that ask."),
    key("force_recovery", Bool, "false", "Recover every subscriber."),
    key("allow_recovery", Bool, "false", "Recover subscribers that ask."),
    key("force_recovery_mode", OneOf(&["", "stream", "cache"]), "", "stream: everything missed; cache: the newest publication."),
    key("auto_cache_recover", Bool, "false", "In cache mode, give the newest publication to every new subscriber."),
    key("allow_subscribe_for_client", Bool, "false", "Users may subscribe without a token."),
    key("allow_subscribe_for_anonymous", Bool, "false", "Anonymous users may too."),
    key("allow_subscribe_for_roles", List, "", "Roles (claim role_claim of the connection token) whose holders may subscribe without a token."),
    key("allow_publish_for_client", Bool, "false", "Users may publish."),
    key("allow_publish_for_subscriber", Bool, "false", "Subscribers may publish."),
    key("allow_publish_for_anonymous", Bool, "false", "Anonymous users may too."),
    key("allow_publish_for_roles", List, "", "Roles (claim role_claim of the connection token) whose holders may publish."),
    key("allow_presence_for_client", Bool, "false", "Users may read presence."),
    key("allow_presence_for_subscriber", Bool, "false", "Subscribers may read presence."),
    key("allow_presence_for_anonymous", Bool, "false", "Anonymous users may too."),
    key("allow_presence_for_roles", List, "", "Roles (claim role_claim of the connection token) whose holders may read presence."),
    key("allow_history_for_client", Bool, "false", "Users may read history."),
    key("allow_history_for_subscriber", Bool, "false", "Subscribers may read history."),
    key("allow_history_for_anonymous", Bool, "false", "Anonymous users may too."),
    key("allow_history_for_roles", List, "", "Roles (claim role_claim of the connection token) whose holders may read history."),
    key("allow_user_limited_channels", Bool, "false", "name#user1,user2 admits the users listed."),
    key("channel_regex", Text, "", "What the name behind the namespace must match; empty for any ASCII name."),
    key("publication_data_format", OneOf(DATA_FORMATS), "", "As channel.publication_data_format, for this namespace."),
];
