//! This node as a member of a cluster, whose nodes are connected by the broker.
//!
//! Invariant: the broker is the only connection between nodes.

pub(crate) mod dynamic_config;
pub(crate) mod members;
pub(crate) mod node;
pub(crate) mod questions;
pub(crate) mod revocation_sync;
pub(crate) mod service_endpoint;
pub(crate) mod survey;
mod waiting_callers;
