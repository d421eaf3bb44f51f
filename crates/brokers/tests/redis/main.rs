//! The Redis broker against real Redis servers: the cases that every broker must pass, on one node and over two, what
//! faults show, and why it refuses to start.
//!
//! Every test starts its own `redis-server` on a free port and ends it.

mod conformance;
mod crowd;
mod faults;
mod server;
mod start;
mod world;
