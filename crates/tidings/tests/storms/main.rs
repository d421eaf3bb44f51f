//! Storms against the real process: sockets that die all the time, and all at once. Every client
//! must end with every publication exactly once, in order.
//!
//! The short forms run with the other tests; `make storms` runs the long ones against a release
//! build and prints what it measured. Times of death follow from a seed, which is printed.

mod avalanche;
mod client;
#[path = "../support/dice.rs"]
mod dice;
mod jitter;
#[path = "../support/link.rs"]
mod link;
mod load;
mod plan;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/server.rs"]
mod server;
mod storm;
