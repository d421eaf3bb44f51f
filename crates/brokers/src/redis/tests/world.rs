//! The simulated world: several nodes' state machines, model servers, a network, and everything
//! that can fail, from a seed.
//!
//! Invariant: what a run checks holds for every seed: one reply for each request, one order, no
//! hidden gap, presence and lifecycle events of those who live.

mod batches;
mod congestion;
mod endpoint;
mod evictions;
mod faults;
mod lost_link;
mod messages;
mod network;
mod node;
mod pair;
mod run;
mod server;
mod simulation;
mod truth;
mod workload;
