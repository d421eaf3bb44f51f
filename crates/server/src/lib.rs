//! The server: sockets, clocks, threads and logs.
//!
//! [`Server::start`] takes a valid [`config::Config`] and returns a running server. Listeners
//! accept connections and speak HTTP on a small tokio runtime. After the WebSocket handshake a
//! socket belongs to one worker, a thread without tokio. Invariant: protocol rules belong to the
//! engine; this crate moves bytes, events and time.

pub mod config;
mod expression;
mod json;
mod memory_size;
mod pattern;

mod server;
mod supervision;

pub mod client_address;
mod listener;
mod listeners;
mod welcome;

pub mod admission;
pub mod token;
pub mod worker;

mod backends;
mod broker;
mod cluster;

mod api;
mod consumers;
mod demo;
mod events;
mod grpc;
mod service;

pub mod clock;
pub mod doctor;
pub mod limits;
pub mod telemetry;

pub use listener::{CertificateError, ListenAddress, check_certificates};
pub use server::{Server, StartError};
pub use service::method::API_METHODS;
