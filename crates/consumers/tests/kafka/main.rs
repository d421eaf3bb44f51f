//! Consumers of a real Kafka broker.

mod broker;
mod cases;
mod recorder;
mod security;
