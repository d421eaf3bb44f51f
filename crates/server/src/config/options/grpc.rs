//! Options of the server API over gRPC.

use super::http::ServerTlsSection;
use crate::config::ErrorMode;
use crate::config::kind::Secret;
use crate::config::schema::section;

section! {
    /// `grpc_api`.
    GrpcApiSection {
        enabled: bool = false, "Serve the server API over gRPC, on a port of its own.";
        address: String = "", "IP address, host name or unix:/path to listen on for gRPC. Empty listens on all IPv4 and IPv6 addresses.";
        port: u16 = 10000, "Port to listen on for gRPC. 0 lets the operating system choose a free port.";
        key: Secret = "", "Key that callers send as metadata (authorization: apikey KEY). Keys of http_api.keys are accepted too. Empty accepts http_api.key in its place.";
        insecure: bool = false, "Accept calls without a key. For development only.";
        error_mode: ErrorMode = "", "Form of errors: \"\" answers with an error in the response, transport with the gRPC status of the error.";
        reflection: bool = false, "Let everyone who reaches the port read the description of the API (gRPC server reflection, v1 and v1alpha).";
        max_receive_message_size: u32 = 0, "Maximum size of a request in bytes, after decompression. 0 means 4 MiB.";
        tls: ServerTlsSection;
    }
}
