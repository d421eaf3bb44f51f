//! Resolves `grpc_api`: address, keys and limits of the server API over gRPC.
//!
//! Invariant: without a key no configuration is valid, unless `grpc_api.insecure` says that callers
//! need none.

use super::address::is_everywhere;
use super::api_keys::ApiKey;
use super::listening::{resolve_address, resolve_tls};
use super::mistakes::KeyedMistakes;
use super::options::grpc::GrpcApiSection;
use super::{Api, ErrorMode, HttpServer, Tls};
use crate::limits::{API_BODY_MAX, GRPC_MESSAGE_MAX};
use crate::listener::ListenOn;

/// The server API over gRPC.
#[derive(Clone, Debug)]
pub struct GrpcApi {
    /// Address to listen on; empty for all addresses.
    pub address: String,
    /// Port to listen on; 0 lets the kernel choose.
    pub port: u16,
    /// File permissions if the address is a Unix socket.
    pub unix_socket_mode: u32,
    /// Certificate and private key; `None` serves without TLS.
    pub tls: Option<Tls>,
    /// Keys that are accepted.
    pub keys: Vec<ApiKey>,
    /// Accept calls without a key.
    pub insecure: bool,
    /// Form of error replies.
    pub error_mode: ErrorMode,
    /// Whether the description of the API can be read.
    pub reflection: bool,
    /// Maximum size of a request in bytes.
    pub message_size_max: usize,
}

impl GrpcApi {
    /// The address to listen on.
    #[must_use]
    pub fn listen_on(&self) -> ListenOn {
        ListenOn::new(&self.address, self.port, self.unix_socket_mode)
    }
}

/// Resolves the section; `None` if it is not enabled.
pub(super) fn resolve(
    grpc: &GrpcApiSection,
    api: &Api,
    http: &HttpServer,
    mistakes: &mut KeyedMistakes,
) -> Option<GrpcApi> {
    if !*grpc.enabled {
        return None;
    }
    let address = resolve_address(&grpc.address, &grpc.port, mistakes);
    if let Some(other) = same_port(&address, *grpc.port, http) {
        let text = format!("must differ from {other}: both listen on the same address");
        mistakes.push(grpc.port.fault(text));
    }
    let message_size_max = match grpc.max_receive_message_size.count() {
        0 => GRPC_MESSAGE_MAX,
        size if size > MESSAGE_SIZE_CEILING => {
            let text = format!("must be at most {MESSAGE_SIZE_CEILING}");
            mistakes.push(grpc.max_receive_message_size.fault(text));
            GRPC_MESSAGE_MAX
        }
        size => size,
    };
    Some(GrpcApi {
        port: *grpc.port,
        unix_socket_mode: http.unix_socket_mode,
        tls: resolve_tls(&grpc.tls, mistakes),
        keys: resolve_keys(grpc, api, mistakes),
        insecure: *grpc.insecure,
        error_mode: *grpc.error_mode,
        reflection: *grpc.reflection,
        message_size_max,
        address,
    })
}

/// The key of the section, or else that of `http_api.key`, and the keys of the list.
fn resolve_keys(grpc: &GrpcApiSection, api: &Api, mistakes: &mut KeyedMistakes) -> Vec<ApiKey> {
    let Some(own) = grpc.key.some() else {
        if api.keys.is_empty() && !*grpc.insecure {
            let text = "is required, or a key of http_api: without one, everyone who reaches the port could call the server API \
                        (grpc_api.insecure = true allows that)";
            mistakes.push(grpc.key.fault(text));
        }
        return api.keys.clone();
    };
    let mut keys = vec![ApiKey::unlimited(KEY_NAME, &own)];
    let of_http = |key: &&ApiKey| key.is(api.key.as_bytes());
    for key in api.keys.iter().filter(|key| !of_http(key)) {
        if key.is(own.as_bytes()) {
            let text = "is also a key of http_api.keys, which may have limits: use another one";
            mistakes.push(grpc.key.fault(text));
        }
        if key.name == KEY_NAME {
            let text = format!("has the name {KEY_NAME:?}, which is also one of http_api.keys");
            mistakes.push(grpc.key.fault(text));
        }
        keys.push(key.clone());
    }
    keys
}

/// The key of the HTTP port that is also this port, on an address in common.
fn same_port(address: &str, port: u16, http: &HttpServer) -> Option<&'static str> {
    let is_same = |other: &str, other_port: u16| {
        let is_unix = address.starts_with("unix:") || other.starts_with("unix:");
        let is_everywhere = is_everywhere(address) || is_everywhere(other);
        match is_unix {
            true => address == other,
            false => port != 0 && port == other_port && (is_everywhere || address == other),
        }
    };
    if is_same(&http.address, http.port) {
        return Some("http_server.port");
    }
    let internal = http.internal_listen_on().is_some();
    let port = http.internal_port.unwrap_or(0);
    (internal && is_same(&http.internal_address, port)).then_some("http_server.internal_port")
}

/// Name of the key of `grpc_api.key` in logs and metrics.
const KEY_NAME: &str = "grpc";

/// Maximum of `grpc_api.max_receive_message_size`: eight times the body limit of HTTP.
const MESSAGE_SIZE_CEILING: usize = 8 * API_BODY_MAX;
