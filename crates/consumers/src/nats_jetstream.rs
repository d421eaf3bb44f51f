//! A consumer of a stream of NATS JetStream: a durable consumer that is pulled.
//!
//! The requests of JetStream are a few messages of plain NATS, so that the client needs no more
//! than the broker's.

mod ack_subject;
mod connect;
mod consumer;
mod pull;
mod settings;

pub use consumer::run;
pub use settings::{DeliverPolicy, NatsConsumerSettings, NatsConsumerTls, NatsLogin};
