//! The table of all options: path, kind, default value and meaning.
//!
//! Options of the compatible server for features that this server does not have are in `absent`.

mod absent;
mod feature;

pub use absent::{ABSENT, ABSENT_LISTS, AbsentKey, AbsentList, AbsentRole, Section};
pub use feature::Feature;

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Path with dots. For options of a namespace or a token, only the last part.
    pub path: &'static str,
    /// Type and range of its value.
    pub kind: Kind,
    /// Default value, as written in TOML without quotes.
    pub default: &'static str,
    /// Description for the reference and the sample file.
    pub doc: &'static str,
}

/// Type and range of the value of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number from 0 to this maximum.
    Integer(u64),
    /// A duration such as `"10s"` or `"1m30s"`.
    Duration,
    /// Any text.
    Text,
    /// Text that is never logged or printed.
    Secret,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A list of texts.
    List,
}

use Kind::{Bool, Duration, Integer, List, OneOf, Secret, Text};

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}

const COUNT: Kind = Integer(u32::MAX as u64);

/// Options outside namespaces and tokens.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("http_server.address", Text, "", "IP address, host name or unix:/path to listen on for clients. Empty listens on all IPv4 and IPv6 addresses."),
    key("http_server.port", Integer(65_535), "8000", "Port to listen on for clients. 0 lets the operating system choose a free port."),
    key("http_server.internal_address", Text, "", "IP address, host name or unix:/path to listen on for the internal endpoints (API, metrics, health). Empty uses http_server.address."),
    key("http_server.internal_port", Integer(65_535), "0", "Port of the internal endpoints (API, metrics, health). 0 serves them on the public port, unless internal_address is a Unix socket or differs from http_server.address."),
    key("http_server.unix_socket_mode", Text, "660", "File permissions of Unix sockets, in octal digits."),
    key("http_server.keep_alive_timeout", Duration, "75s", "Idle time after which an HTTP connection is closed. Set it longer than the idle timeout of the load balancer or client in front."),
    key("http_server.proxy_protocol", Bool, "false", "Expect a PROXY protocol header, version 1 or 2, on each connection to the public address. Peers outside client.trusted_proxies are refused."),
    key("http_server.tls.enabled", Bool, "false", "Serve TLS on all HTTP ports."),
    key("http_server.tls.cert_pem", Text, "", "Certificate chain: PEM, PEM in base64, or the path of a PEM file. A file is reloaded when it changes and on SIGHUP."),
    key("http_server.tls.key_pem", Secret, "", "Private key of the certificate: PEM, PEM in base64, or the path of a PEM file."),
    key("websocket.disabled", Bool, "false", "Do not serve WebSocket connections."),
    key("websocket.handler_prefix", Text, "/connection/websocket", "URL path of the WebSocket endpoint."),
    key("websocket.compression", Bool, "false", "Negotiate compression of messages (permessage-deflate) with clients."),
    key("websocket.compression_level", Integer(9), "1", "Compression level, from 1 (fastest) to 9 (smallest)."),
    key("websocket.compression_min_size", COUNT, "0", "Messages shorter than this number of bytes are not compressed."),
    key("websocket.message_size_limit", COUNT, "65536", "Maximum size of an incoming message in bytes. A larger message closes the connection with code 1009."),
    key("websocket.decompressed_message_size_limit", COUNT, "0", "Maximum size of an incoming message in bytes after decompression. 0 means ten times message_size_limit."),
    key("client.allowed_origins", List, "", "Origins of web pages that may connect, such as \"https://*.example.com\". \"*\" allows all. Empty allows only clients that send no Origin header."),
    key("client.ping_interval", Duration, "25s", "Interval between pings to a client. 0 sends no pings."),
    key("client.pong_timeout", Duration, "8s", "Time in which a client must answer a ping, otherwise it is disconnected (3012). Must be less than ping_interval. 0 expects no answers."),
    key("client.channel_limit", COUNT, "128", "Maximum number of subscriptions of one connection (error 106). 0 means the default."),
    key("client.connection_limit", COUNT, "0", "Maximum number of connections of this node whose connect command was accepted (HTTP status 503 at the handshake, code 3011 at the connect command). 0 means no limit."),
    key("client.unauthenticated_connection_limit", COUNT, "16384", "Maximum number of connections of this node that have not completed the connect command. One address (IPv6: one /64) may hold half of them. At the limit, the oldest connection of the address with the most connections is closed (3011). 0 means no limit."),
    key("client.connection_rate_limit", COUNT, "0", "Maximum number of WebSocket handshakes of this node per second (HTTP status 503). 0 means no limit."),
    key("client.user_connection_limit", COUNT, "0", "Maximum number of connections of one user on this node (3504). 0 means no limit."),
    key("client.queue_max_size", COUNT, "1048576", "Maximum number of bytes queued for one client. A client that exceeds it is disconnected as slow (3008)."),
    key("client.stale_close_delay", Duration, "10s", "Time in which a new connection must send the connect command (3502). 0 means the default."),
    key("client.expired_close_delay", Duration, "25s", "Time after the expiration of a connection in which the client may refresh it, before it is disconnected (3005)."),
    key("client.expired_sub_close_delay", Duration, "25s", "Time after the expiration of a subscription in which the client may refresh it, before it is unsubscribed (2501)."),
    key("client.channel_position_check_delay", Duration, "40s", "Idle time of a channel after which the positions of its subscribers are compared with the broker."),
    key("client.history_max_publication_limit", COUNT, "300", "Maximum number of publications in one history reply. 0 means no limit."),
    key("client.recovery_max_publication_limit", COUNT, "300", "Maximum number of publications in one recovery. 0 means no limit."),
    key("client.leave_grace", Duration, "0s", "Time for which a disconnected client stays in presence before its leave is sent. A client that reconnects within this time joins again before its old connection leaves. A node that shuts down does not wait."),
    key("client.connect_include_server_time", Bool, "false", "Include the time of the server in the connect reply."),
    key("client.insecure", Bool, "false", "Allow every client every operation, without tokens and without expiration. For development only."),
    key("client.insecure_skip_token_signature_verify", Bool, "false", "Accept tokens without verifying their signatures. For development only."),
    key("client.allow_anonymous_connect_without_token", Bool, "false", "Accept clients without a token as anonymous users."),
    key("client.disallow_anonymous_connection_tokens", Bool, "false", "Refuse connection tokens without a user (3507)."),
    key("client.trusted_proxies", List, "", "Proxies whose statements of a client's address are accepted (client.trusted_proxies_header, PROXY protocol): networks such as \"10.0.0.0/8\", addresses, or \"unix:\" for peers on a Unix socket. Limits per address then apply to the address of the client."),
    key("client.trusted_proxies_header", Text, "X-Forwarded-For", "The only header in which trusted proxies send the address of the client, such as X-Forwarded-For, Forwarded or X-Real-IP. The proxy must write it itself on every request. All other headers are ignored."),
    key("client.user_id_http_header", Text, "", "Header in which a reverse proxy sends the id of the user that it has authenticated. Empty ignores such headers."),
    key("client.subscribe_to_user_personal_channel.enabled", Bool, "false", "Subscribe each user to a personal channel on the server side."),
    key("client.subscribe_to_user_personal_channel.personal_channel_namespace", Text, "", "Namespace of the personal channels. Empty means channels without a namespace."),
    key("client.subscribe_to_user_personal_channel.single_connection", Bool, "false", "Keep only the newest connection of each user; older ones are disconnected (3504)."),
    key("client.subscription_token.enabled", Bool, "false", "Verify subscription tokens with the keys of client.subscription_token instead of those of client.token."),
    key("channel.max_length", Integer(4096), "255", "Maximum length of a channel name in bytes (error 107)."),
    key("channel.private_prefix", Text, "$", "Channels whose names begin with this prefix require a subscription token."),
    key("channel.namespace_boundary", Text, ":", "Separator between the namespace and the rest of a channel name."),
    key("channel.user_boundary", Text, "#", "Separator between a channel name and the list of users that it is limited to."),
    key("channel.user_separator", Text, ",", "Separator between the users in that list."),
    key("channel.publication_data_format", OneOf(DATA_FORMATS), "", "Required format of payloads in namespaces that set none: \"\" (any payload that is not empty), json, json_object, or binary (any payload). Clients of the JSON protocol do not receive payloads that are not JSON."),
    key("channel.history_meta_ttl", Duration, "720h", "Time for which offset and epoch of a channel are kept after its last publication."),
    key("http_api.disabled", Bool, "false", "Do not serve the server API."),
    key("http_api.handler_prefix", Text, "/api", "URL path of the server API."),
    key("http_api.key", Secret, "", "Key that callers of the server API must send. Empty refuses all calls, unless http_api.keys has keys."),
    key("http_api.insecure", Bool, "false", "Accept calls of the server API without a key. For development only."),
    key("http_api.external", Bool, "false", "Serve the server API on the public port even if there is an internal port."),
    key("http_api.error_mode", OneOf(&["", "transport"]), "", "Form of errors: \"\" replies with status 200 and an error object, transport uses HTTP status codes."),
    key("health.enabled", Bool, "true", "Serve the liveness check, and the readiness check at /ready."),
    key("health.handler_prefix", Text, "/health", "URL path of the liveness check."),
    key("prometheus.enabled", Bool, "true", "Serve metrics in the text format of Prometheus."),
    key("prometheus.handler_prefix", Text, "/metrics", "URL path of the metrics."),
    key("log.level", OneOf(&["none", "trace", "debug", "info", "warn", "error", "fatal"]), "info", "Minimum level of log messages. fatal is the same as error; none logs nothing."),
    key("log.format", OneOf(&["auto", "pretty", "json"]), "auto", "Format of log messages: pretty for people, json for machines. auto is pretty on a terminal and json otherwise."),
    key("shutdown.timeout", Duration, "30s", "Maximum duration of a shutdown. After it the process exits with connections still open."),
    key("shutdown.drain_rate", COUNT, "0", "Maximum number of clients of this node that are disconnected per second at shutdown. With many clients, draining takes longer than drain_window, but not longer than the timeout. 0 means no limit."),
    key("shutdown.drain_window", Duration, "3s", "Time over which clients are disconnected at shutdown with the advice to reconnect (3001). Must be less than the timeout."),
    key("server.workers", Integer(1024), "0", "Number of worker threads. 0 means one per core."),
    key("engine.type", OneOf(&["memory", "redis"]), "memory", "Where channels, history and presence are kept: memory of this process (one node), or redis (any number of nodes)."),
    key("engine.redis.address", List, "redis://127.0.0.1:6379", "Addresses of Redis: [\"redis://user:password@host:6379/0\"], with rediss:// for TLS. Several addresses are independent servers; channels are distributed over them. redis+cluster://host,host connects to a Cluster, redis+sentinel://host,host?sentinel_master_name=NAME finds the master through Sentinels."),
    key("engine.redis.cluster_address", List, "", "Addresses (host:port) of nodes of a Redis Cluster. Replaces engine.redis.address."),
    key("engine.redis.sentinel_address", List, "", "Addresses (host:port) of Sentinels. Replaces engine.redis.address."),
    key("engine.redis.sentinel_master_name", Text, "", "Name of the master that the Sentinels monitor."),
    key("engine.redis.user", Text, "", "User, unless the address contains one."),
    key("engine.redis.password", Secret, "", "Password, unless the address contains one."),
    key("engine.redis.db", Integer(u32::MAX as u64), "0", "Number of the database, unless the address contains one. Must be 0 in a Cluster."),
    key("engine.redis.sentinel_user", Text, "", "User to authenticate to the Sentinels."),
    key("engine.redis.sentinel_password", Secret, "", "Password to authenticate to the Sentinels."),
    key("engine.redis.prefix", Text, "tidings", "Prefix of all keys and channels in Redis. Installations that share a Redis need different prefixes."),
    key("engine.redis.connect_timeout", Duration, "1s", "Timeout for connecting to Redis."),
    key("engine.redis.io_timeout", Duration, "3s", "Timeout for a reply of Redis. After it the request has failed."),
    key("engine.redis.presence_ttl", Duration, "60s", "Time after which presence entries of a failed node expire if no other node has removed them."),
    key("engine.redis.lease", Duration, "12s", "Time without a sign of life after which a node counts as failed. Another node then removes its clients from presence and reports them as offline."),
    key("engine.redis.wait_at_start", Bool, "true", "If Redis cannot be reached at start, wait until it can. If false, exit with an error. Wrong settings always end the start."),
    key("engine.redis.tls.enabled", Bool, "false", "Use TLS for connections to Redis, as rediss:// does."),
    key("engine.redis.tls.server_ca_pem", Text, "", "CA certificates that are trusted instead of the public ones: PEM, PEM in base64, or the path of a PEM file."),
    key("engine.redis.tls.server_name", Text, "", "Host name that the certificate of Redis must have. Empty means the host of the address."),
    key("engine.redis.tls.cert_pem", Text, "", "Certificate chain that this node presents to Redis: PEM, PEM in base64, or the path of a PEM file. Empty presents none."),
    key("engine.redis.tls.key_pem", Secret, "", "Private key of that certificate: PEM, PEM in base64, or the path of a PEM file."),
    key("engine.memory.bytes_max", Integer(u64::MAX >> 1), "0", "Maximum memory in bytes for what the memory engine keeps: channels, history, presence and idempotency keys. Requests that need more are refused (error 111). 0 means half of the memory that the process may use."),
    key("engine.memory.channels_max", COUNT, "0", "Maximum number of channels that the memory engine keeps (error 111). 0 limits only the bytes."),
    key("limits.connection.commands", Text, "500/s burst 2000", "Commands of one connection (error 111), as a token bucket: a rate per time (s, m, h, or several units: 5s) and a burst. Without burst, the burst equals the amount of the rate. off or empty means no limit. The default burst is at least four times client.channel_limit."),
    key("limits.connection.publishes", Text, "200/s burst 1000", "Publications of one connection (error 111)."),
    key("limits.connection.subscribes", Text, "50/s burst 512", "Subscribe commands of one connection (error 111). The default burst is at least twice client.channel_limit."),
    key("limits.connection.new_channels", Text, "20/s burst 512", "Channels that one connection uses in publish, subscribe or history and that its worker has not seen recently (error 111). The default burst is at least twice client.channel_limit."),
    key("limits.connection.bytes", Text, "2MiB/s burst 8MiB", "Bytes of incoming messages of one connection, after decompression. A message larger than the burst passes when the bucket is full."),
    key("limits.connection.refusals", Text, "10/s burst 1000", "Refusals by the buckets above. A connection that exceeds this rate is closed (3013)."),
    key("limits.user.commands", Text, "", "Commands of all connections of one user on this node. Anonymous users are not counted."),
    key("limits.user.publishes", Text, "", "Publications of all connections of one user on this node. Anonymous users are not counted."),
    key("limits.user.subscribes", Text, "", "Subscribe commands of all connections of one user on this node. Anonymous users are not counted."),
    key("limits.user.connects", Text, "", "Connect commands of one user on this node. Anonymous users are not counted."),
    key("limits.address.handshakes", Text, "", "WebSocket handshakes from one IPv4 address or one IPv6 /64 on this node (HTTP status 429). Behind a proxy, set client.trusted_proxies."),
    key("limits.address.connects", Text, "", "TCP connections from one IPv4 address or one IPv6 /64 on this node. Connections above the rate are closed immediately."),
    key("limits.api_key.requests", Text, "", "Calls of the server API with one key on this node (HTTP status 429). Each command of a batch counts."),
    key("demo.enabled", Bool, "false", "Serve the demo page and publish its example data."),
    key("broker.enabled", Bool, "false", "Use the broker of broker.type instead of the engine."),
    key("broker.type", OneOf(&["memory", "nats", "redis", "postgres", "redisnats"]), "memory", "Broker that replaces the engine. Only nats is supported; memory is accepted with the memory engine and changes nothing."),
    key("broker.nats.url", Secret, "nats://localhost:4222", "Addresses of NATS servers, separated by commas. They may contain a user and password, or a token. tls:// requires TLS."),
    key("broker.nats.prefix", Text, "tidings", "Prefix of all subjects in NATS. Installations that share a NATS need different prefixes."),
    key("broker.nats.dial_timeout", Duration, "1s", "Timeout for connecting to NATS."),
    key("broker.nats.tls.enabled", Bool, "false", "Require TLS for connections to NATS."),
    key("broker.nats.tls.server_ca_pem_file", Text, "", "Path of a PEM file with CA certificates that are trusted in addition to those of the system."),
    key("broker.nats.tls.server_ca_pem", Text, "", "Same as server_ca_pem_file; the name that Centrifugo uses."),
    key("broker.nats.tls.cert_pem", Text, "", "Path of a PEM file with the certificate chain that this node presents to NATS. Empty presents none."),
    key("broker.nats.tls.key_pem", Secret, "", "Path of a PEM file with the private key of that certificate."),
    key("broker.nats.jetstream.replicas", Integer(5), "1", "Number of replicas of JetStream streams in a cluster of NATS servers."),
    key("node.name", Text, "", "Name of this node in events and in the server API. Must be unique in the cluster. Empty means the host name."),
    key("lifecycle.enabled", Bool, "true", "Publish events in sys:presence and in a stream of the broker when clients connect and disconnect. Requests of the server API for one client are then sent only to the nodes that have it. Must be the same on all nodes."),
    key("lifecycle.events_max", COUNT, "100000", "Maximum number of events in that stream. Events are kept for at most seven days."),
];

const DATA_FORMATS: &[&str] = &["", "json", "json_object", "binary"];

/// Options of one entry of `http_api.keys`.
#[rustfmt::skip]
pub const API_KEY_KEYS: &[Key] = &[
    key("name", Text, "", "Name of the caller in logs and metrics. Must be unique."),
    key("key", Secret, "", "Key that the caller sends. Must be unique."),
    key("methods", List, "", "Methods that the caller may use, such as [\"publish\", \"broadcast\"]. Empty allows all. A batch needs the methods of its commands."),
    key("channels", List, "", "Patterns of channels that the caller may name, such as [\"news:*\"]. Empty allows all."),
];

/// Options below `client.token` and `client.subscription_token`.
#[rustfmt::skip]
pub const TOKEN_KEYS: &[Key] = &[
    key("hmac_secret_key", Secret, "", "Secret for HS256, HS384 and HS512 tokens. Empty refuses them."),
    key("hmac_previous_secret_key", Secret, "", "Previous secret, which is still accepted while tokens signed with it are in use."),
    key("hmac_previous_secret_key_valid_until", Integer(u64::MAX >> 1), "0", "Unix time in seconds until which the previous secret is accepted. 0 means forever."),
    key("rsa_public_key", Text, "", "Public key for RS256, RS384 and RS512 tokens: PEM, PEM in base64, or the path of a PEM file."),
    key("ecdsa_public_key", Text, "", "Public key for ES256, ES384 and ES512 tokens: PEM, PEM in base64, or the path of a PEM file."),
    key("jwks_public_endpoint", Text, "", "URL of a JSON Web Key Set. If set, the other keys are not used."),
    key("audience", Text, "", "Value that claim aud must contain. Empty does not check it."),
    key("audience_regex", Text, "", "Regular expression that a value of claim aud must match. Empty does not check it."),
    key("issuer", Text, "", "Value of claim iss. Empty does not check it."),
    key("issuer_regex", Text, "", "Regular expression that claim iss must match. Empty does not check it."),
    key("user_id_claim", Text, "", "Claim that holds the user id. Empty means sub."),
    key("role_claim", Text, "role", "Claim of connection tokens that holds the roles of the user, as a text or a list of texts; see docs/permissions.md. Empty disables roles."),
];

/// Options of a namespace, and of `channel.without_namespace`.
#[rustfmt::skip]
pub const NAMESPACE_KEYS: &[Key] = &[
    key("presence", Bool, "false", "Keep the list of subscribed clients of each channel."),
    key("join_leave", Bool, "false", "Publish join and leave events when clients subscribe and unsubscribe."),
    key("force_push_join_leave", Bool, "false", "Send join and leave events to all subscribers. If false, only to those that request them."),
    key("history_size", COUNT, "0", "Number of publications to keep per channel. Needs history_ttl. 0 keeps none."),
    key("history_ttl", Duration, "0s", "Time for which publications are kept. Needs history_size."),
    key("history_meta_ttl", Duration, "0s", "Time for which offset and epoch of a channel are kept after its last publication. 0 means channel.history_meta_ttl."),
    key("channel_ttl", Duration, "0s", "Lifetime of a channel from its first subscriber. At its end all subscribers are unsubscribed (2100) and the data of the channel is removed. 0 means forever."),
    key("force_positioning", Bool, "false", "Detect gaps for all subscribers."),
    key("allow_positioning", Bool, "false", "Detect gaps for subscribers that request it."),
    key("force_recovery", Bool, "false", "Recover missed publications for all subscribers."),
    key("allow_recovery", Bool, "false", "Recover missed publications for subscribers that request it."),
    key("force_recovery_mode", OneOf(&["", "stream", "cache"]), "", "Publications that a recovery sends: stream sends all missed ones, cache sends only the newest one. Empty means stream."),
    key("auto_cache_recover", Bool, "false", "In cache mode, send the newest publication to every new subscriber."),
    key("allow_subscribe_for_client", Bool, "false", "Authenticated users may subscribe without a subscription token."),
    key("allow_subscribe_for_anonymous", Bool, "false", "Anonymous users may subscribe too. Needs allow_subscribe_for_client."),
    key("allow_subscribe_for_roles", List, "", "Roles whose holders may subscribe without a subscription token."),
    key("allow_publish_for_client", Bool, "false", "Authenticated users may publish."),
    key("allow_publish_for_subscriber", Bool, "false", "Subscribers of a channel may publish to it."),
    key("allow_publish_for_anonymous", Bool, "false", "Anonymous users may publish too. Needs one of the two options above."),
    key("allow_publish_for_roles", List, "", "Roles whose holders may publish."),
    key("allow_presence_for_client", Bool, "false", "Authenticated users may read presence."),
    key("allow_presence_for_subscriber", Bool, "false", "Subscribers of a channel may read its presence."),
    key("allow_presence_for_anonymous", Bool, "false", "Anonymous users may read presence too. Needs one of the two options above."),
    key("allow_presence_for_roles", List, "", "Roles whose holders may read presence."),
    key("allow_history_for_client", Bool, "false", "Authenticated users may read history."),
    key("allow_history_for_subscriber", Bool, "false", "Subscribers of a channel may read its history."),
    key("allow_history_for_anonymous", Bool, "false", "Anonymous users may read history too. Needs one of the two options above."),
    key("allow_history_for_roles", List, "", "Roles whose holders may read history."),
    key("allow_user_limited_channels", Bool, "false", "Allow channels that are limited to users by their names: name#user1,user2 admits these two users."),
    key("channel_regex", Text, "", "Regular expression that the part of a channel name after the namespace must match. Empty allows any ASCII name."),
    key("publication_data_format", OneOf(DATA_FORMATS), "", "Required format of payloads, as channel.publication_data_format. Empty means the value of that option."),
];
