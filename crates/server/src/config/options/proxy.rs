//! Options of calls to backends.

use std::collections::BTreeMap;
use std::time::Duration;

use proxy::Share;

use crate::config::kind::{Secret, UpTo, one_of};
use crate::config::schema::{ListItem, section};

section! {
    /// `client.proxy`.
    ClientProxySection {
        connect: SwitchedProxySection;
        refresh: SwitchedProxySection;
    }
}

section! {
    /// A proxy with a switch of its own.
    SwitchedProxySection {
        enabled: bool = false, "Ask the backend: connect, about clients that connect without a token; refresh, about connections that expire.";
        ..proxy: ProxySection;
    }
}

section! {
    /// `channel.proxy`: the proxies with the name `default` of the namespaces.
    ChannelProxySection {
        subscribe: ProxySection;
        publish: ProxySection;
        sub_refresh: ProxySection;
    }
}

section! {
    /// One of `proxies`.
    NamedProxySection {
        name: String = "", "Name of a proxy for the options *_proxy_name and proxy_name. default is the name of the proxies in channel.proxy and rpc.proxy.";
        ..proxy: ProxySection;
    }
}

impl ListItem for NamedProxySection {
    const EXPECTED_LIST: &'static str = "a list of proxies with a name each, such as [{\"name\": \"orders\", \"endpoint\": \"http://orders/hook\"}]";
    const EXPECTED_ITEM: &'static str = "a proxy with a name and options";
    const EXAMPLE: &'static str = "Each proxy has the options of rpc.proxy.
name = \"orders\"
endpoint = \"http://localhost:3000/hook\"";
}

section! {
    /// Calls to one backend.
    ProxySection titled "Proxies: `client.proxy.*`, `channel.proxy.*`, `rpc.proxy` and `proxies[]`" {
        endpoint: String = "", "URL of the backend: http:// or https:// for POST requests with JSON, grpc:// or host:port for gRPC.";
        timeout: Duration = "3s", "Maximum duration of a call, including waiting, connecting and retries.";
        http_headers: Vec<String> = [], "Headers of the client's HTTP request that the backend gets. They are as trustworthy as the proxy before this server that sets them.";
        grpc_metadata: Vec<String> = [], "Metadata of a client's gRPC call that the backend gets.";
        emulated_headers: Vec<String> = [], "Headers in the client's connect command that the backend gets. The client chooses their values.";
        binary_encoding: bool = false, "Send data in base64. For data that is not JSON.";
        include_connection_meta: bool = false, "Send the meta of the connection, which the connect proxy or the token has set.";
        max_concurrency: UpTo<65536> = 256, "Maximum number of concurrent calls to the backend.";
        max_queue: UpTo<1048576> = 16384, "Maximum number of calls that wait for their turn. Further ones are refused (error 100).";
        share_answers: Share = "off", "Which connect and subscribe questions are the same, so that one call answers all of them: off for none, user for those with the same user, data and headers (the client id is not sent), channel for subscribe questions about one channel with the same data (user, meta and headers are not sent).";
        http: ProxyHttpSection;
        grpc: ProxyGrpcSection;
        breaker: ProxyBreakerSection;
    }
}

one_of!(Share {
    "off" => Share::Off,
    "user" => Share::User,
    "channel" => Share::Channel,
});

section! {
    /// `http` of a proxy.
    ProxyHttpSection {
        tls: ProxyTlsSection;
        static_headers: BTreeMap<String, String> = {}, "Headers of every request. Forwarded headers replace them.";
        status_to_code_transforms: Vec<StatusTransformSection>;
    }
}

section! {
    /// One of `http.status_to_code_transforms` of a proxy.
    StatusTransformSection {
        status_code: UpTo<599> = 0, "Status of an answer that has a meaning: an error or a disconnect.";
        to_error: TransformErrorSection;
        to_disconnect: TransformDisconnectSection;
    }
}

impl ListItem for StatusTransformSection {
    const EXPECTED_LIST: &'static str =
        "a list of transforms, such as [{\"status_code\": 403, \"to_error\": {\"code\": 403}}]";
    const EXPECTED_ITEM: &'static str =
        "a transform with status_code, and to_error or to_disconnect";
    const EXAMPLE: &'static str = "The meaning of a status of the backend.
status_code = 403
to_error = { code = 403, message = \"forbidden\", temporary = false }";
}

section! {
    /// `to_error` of a transform.
    TransformErrorSection {
        code: u32 = 0, "Code of the error; 0 for none.";
        message: String = "", "Message of the error, at most 123 ASCII characters.";
        temporary: bool = false, "Whether the client may try again.";
    }
}

section! {
    /// `to_disconnect` of a transform.
    TransformDisconnectSection {
        code: u32 = 0, "Code of the disconnect; 0 for none. Clients reconnect unless it is in 3500 – 3999 or 4500 – 4999.";
        reason: String = "", "Reason of the disconnect, at most 123 ASCII characters.";
    }
}

section! {
    /// `grpc` of a proxy.
    ProxyGrpcSection {
        tls: ProxyTlsSection;
        credentials_key: String = "", "Name of metadata that authenticates this server to the backend.";
        credentials_value: Secret = "", "Its value.";
        compression: bool = false, "Compress calls with gzip.";
        static_metadata: BTreeMap<String, String> = {}, "Metadata of every call. Forwarded headers replace it.";
    }
}

section! {
    /// `tls` of a proxy.
    ProxyTlsSection {
        enabled: bool = false, "Use these settings for https://, and use TLS for gRPC. Without them, https:// trusts the public certificate authorities.";
        server_ca_pem: String = "", "CA certificates that are trusted instead of the public ones: PEM, PEM in base64, or the path of a PEM file.";
        server_name: String = "", "Host name that the certificate of the backend must have. Empty means the host of the endpoint.";
        cert_pem: String = "", "Certificate chain that this node presents to the backend: PEM, PEM in base64, or the path of a PEM file. Empty presents none.";
        key_pem: Secret = "", "Private key of that certificate: PEM, PEM in base64, or the path of a PEM file.";
    }
}

section! {
    /// `breaker` of a proxy.
    ProxyBreakerSection {
        enabled: bool = true, "Stop calling a backend that fails or is slow, and refuse at once (error 100).";
        error_rate: UpTo<100> = 50, "Percentage of failed calls at which the breaker opens. 0 ignores failures.";
        slow_call: Duration = "2s", "Duration from which a call counts as slow.";
        slow_call_rate: UpTo<100> = 80, "Percentage of slow calls at which the breaker opens. 0 ignores slow calls.";
        window: Duration = "10s", "Time for which a call counts.";
        min_calls: u32 = 20, "Number of calls in this time below which the breaker does not open.";
        open_for: Duration = "5s", "Time for which the breaker stays open before it tests the backend.";
        probes: UpTo<1000> = 3, "Number of test calls. If all succeed, the breaker closes; if one fails, it opens again.";
        when_open: WhenOpenChoice = "deny", "What happens to connect and subscribe commands while the breaker is open: deny refuses them, allow gives the last answer to the same question again. allow needs share_answers.";
        stale_max_age: Duration = "5m", "Maximum age of that answer.";
    }
}

/// Value of `breaker.when_open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenOpenChoice {
    Deny,
    Allow,
}

one_of!(WhenOpenChoice { "deny" => WhenOpenChoice::Deny, "allow" => WhenOpenChoice::Allow });

section! {
    /// `rpc`.
    RpcSection {
        proxy: ProxySection;
        without_namespace: RpcOptionsSection;
        namespaces: Vec<RpcNamespaceSection>;
        namespace_boundary: String = ":", "Separator between the namespace and the rest of the name of a method. Empty means that no method has a namespace.";
        ping: RpcPingSection;
    }
}

section! {
    /// Options of methods of RPC.
    RpcOptionsSection {
        proxy_enabled: bool = false, "Call the backend for these methods.";
        proxy_name: String = "default", "Name of the proxy: one of proxies, or default for rpc.proxy.";
    }
}

section! {
    /// One of `rpc.namespaces`.
    RpcNamespaceSection {
        name: String = "", "Name of a namespace of RPC methods.";
        ..options: RpcOptionsSection;
    }
}

impl ListItem for RpcNamespaceSection {
    const EXPECTED_LIST: &'static str =
        "a list of namespaces with a name each, such as [{\"name\": \"orders\"}]";
    const EXPECTED_ITEM: &'static str = "a namespace with a name and options";
    const EXAMPLE: &'static str = "Each namespace has the options of rpc.without_namespace.
name = \"orders\"
proxy_enabled = true
proxy_name = \"orders\"";
}

section! {
    /// `rpc.ping`.
    RpcPingSection {
        enabled: bool = false, "Answer the RPC method rpc.ping.method with an empty object, without a backend.";
        method: String = "ping", "Name of that method.";
    }
}
