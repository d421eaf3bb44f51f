//! Hostile and unlucky peers against the real process. Every case states a bound, measures it and
//! prints what it saw; afterwards nothing of the peers may be left.
//!
//! `make hostile` runs them against a release build and shows the measurements.

mod bytes;
mod case;
mod commands;
mod crowd;
mod floods;
mod frames;
mod handshake;
mod lockout;
mod neighbour;
mod peer;
#[path = "../support/process.rs"]
mod process;
mod rates;
#[path = "../../../server/tests/it/peer.rs"]
mod raw;
mod resets;
#[path = "../support/server.rs"]
mod server;
mod silence;
mod tokens;
