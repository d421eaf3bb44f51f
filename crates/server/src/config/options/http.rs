//! Options of the listeners and of the endpoints that they serve.

use std::time::Duration;

use crate::config::ErrorMode;
use crate::config::kind::{Secret, UpTo, one_of};
use crate::config::schema::{ListItem, section};

section! {
    /// `http_server`.
    HttpServerSection {
        address: String = "", "IP address, host name or unix:/path to listen on for clients. Empty listens on all IPv4 and IPv6 addresses.";
        port: u16 = 8000, "Port to listen on for clients. 0 lets the operating system choose a free port.";
        internal_address: String = "", "IP address, host name or unix:/path to listen on for the internal endpoints (API, metrics, health). Empty uses http_server.address.";
        internal_port: u16 = 0, "Port of the internal endpoints (API, metrics, health). 0 serves them on the public port, unless internal_address is a Unix socket or differs from http_server.address.";
        unix_socket_mode: String = "660", "File permissions of Unix sockets, in octal digits.";
        keep_alive_timeout: Duration = "75s", "Idle time after which an HTTP connection is closed. Set it longer than the idle timeout of the load balancer or client in front.";
        proxy_protocol: bool = false, "Expect a PROXY protocol header, version 1 or 2, on each connection to the public address. Peers outside client.trusted_proxies are refused.";
        tls: ServerTlsSection;
    }
}

section! {
    /// `http_server.tls` and `grpc_api.tls`.
    ServerTlsSection {
        enabled: bool = false, "Serve TLS on all ports of this section.";
        cert_pem: String = "", "Certificate chain: PEM, PEM in base64, or the path of a PEM file. A file is reloaded when it changes and on SIGHUP.";
        key_pem: Secret = "", "Private key of the certificate: PEM, PEM in base64, or the path of a PEM file.";
    }
}

section! {
    /// `websocket`.
    WebSocketSection {
        disabled: bool = false, "Do not serve WebSocket connections.";
        handler_prefix: String = "/connection/websocket", "URL path of the WebSocket endpoint.";
        compression: bool = false, "Negotiate compression of messages (permessage-deflate) with clients.";
        compression_level: UpTo<9> = 1, "Compression level, from 1 (fastest) to 9 (smallest).";
        compression_min_size: u32 = 0, "Messages shorter than this number of bytes are not compressed.";
        message_size_limit: u32 = 65536, "Maximum size of an incoming message in bytes. A larger message closes the connection with code 1009.";
        decompressed_message_size_limit: u32 = 0, "Maximum size of an incoming message in bytes after decompression. 0 means ten times message_size_limit.";
    }
}

section! {
    /// `http_api`.
    ApiSection {
        disabled: bool = false, "Do not serve the server API.";
        handler_prefix: String = "/api", "URL path of the server API.";
        key: Secret = "", "Key that callers of the server API must send. Empty refuses all calls, unless http_api.keys has keys.";
        insecure: bool = false, "Accept calls of the server API without a key. For development only.";
        external: bool = false, "Serve the server API on the public port even if there is an internal port.";
        error_mode: ErrorMode = "", "Form of errors: \"\" replies with status 200 and an error object, transport uses HTTP status codes.";
        keys: Vec<ApiKeySection>;
    }
}

section! {
    /// One of `http_api.keys`.
    ApiKeySection titled "Keys of the server API: `http_api.keys[]`" {
        name: String = "", "Name of the caller in logs and metrics. Must be unique.";
        key: Secret = "", "Key that the caller sends. Must be unique.";
        methods: Vec<String> = [], "Methods that the caller may use, such as [\"publish\", \"broadcast\"]. Empty allows all. A batch needs the methods of its commands.";
        channels: Vec<String> = [], "Patterns of channels that the caller may name, such as [\"news:*\"]. Empty allows all. Methods without a channel, such as clients or disconnect, are not limited by it, except that clients shows only these channels: set methods too.";
    }
}

impl ListItem for ApiKeySection {
    const EXPECTED_LIST: &'static str = "a list of keys, each with a name and a key";
    const EXPECTED_ITEM: &'static str = "a group with a name and a key";
    const EXAMPLE: &'static str = "Callers of the server API, each with its own key.
name = \"billing\"
key = \"…\"
methods = [\"publish\"]
channels = [\"news:*\"]";
    // Ignoring a misspelled limit would leave the key unlimited.
    const IS_STRICT: bool = true;
}

one_of!(ErrorMode { "" => ErrorMode::Body, "transport" => ErrorMode::Transport });

section! {
    /// `health`.
    HealthSection {
        enabled: bool = true, "Serve the liveness check, and the readiness check at /ready.";
        handler_prefix: String = "/health", "URL path of the liveness check.";
    }
}

section! {
    /// `prometheus`.
    PrometheusSection {
        enabled: bool = true, "Serve metrics in the text format of Prometheus.";
        handler_prefix: String = "/metrics", "URL path of the metrics.";
    }
}
