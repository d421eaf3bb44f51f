//! The state machine in a simulated world: its own commands and scripts, a model of Redis, a
//! network that fails.
//!
//! Invariant: a run follows from its seed alone; no test here reads a clock or opens a socket, but
//! the one that compares the model with a real server.

mod differential;
mod model;
mod model_server;
mod world;
