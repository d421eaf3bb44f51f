//! Calls to the backends of an application: may this client connect, subscribe, publish; what is
//! the result of this RPC.
//!
//! A [`Backend`] is one endpoint with everything that calls to it share: connections, a circuit
//! breaker, a bound on concurrent calls, answers that may be given again. [`ProxyRequest`] and
//! [`ProxyReply`] are the same for HTTP and gRPC.
//!
//! Not here: sessions, permissions, configuration files. The crate uses neither `engine` nor
//! `server`.
//!
//! Invariant: a call ends before its deadline, with a reply or with a [`BackendError`] of one
//! [`FailureKind`], whatever the backend does.

pub mod answers;
pub mod backend;
pub mod breaker;
mod bulkhead;
pub mod failure;
mod grpc;
pub mod headers;
mod http;
mod json;
pub mod limits;
mod log_throttle;
pub mod protobuf;
pub mod reply;
pub mod request;
pub mod settings;
mod state;
pub mod stats;
pub mod tls;
mod transport;

pub use answers::Share;
pub use backend::Backend;
pub use breaker::{Breaker, BreakerSettings, BreakerState};
pub use failure::{BackendError, FailureKind};
pub use headers::{CallerHeaders, Forwarding};
pub use http::{failure_of, https_connector, retry_after};
pub use reply::{
    BackendConnect, BackendPublish, BackendRenewal, BackendSubscribe, ProxyReply, ProxyResult,
    SubscribeOverrides,
};
pub use request::{ProxyMethod, ProxyQuestion, ProxyRequest};
pub use settings::{
    AddressFault, BackendAddress, BackendSettings, BinaryData, StatusTransform, TransformTarget,
    WhenOpen,
};
pub use stats::BackendStats;
pub use tls::{BackendTls, BackendTlsError};
