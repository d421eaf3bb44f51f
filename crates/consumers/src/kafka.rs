//! Consumes topics of Kafka as a member of a consumer group.
//!
//! ```text
//! consumer.rs    polls, hands records to partitions, commits, pauses and resumes
//! assignment.rs  the partitions of this member; finishes those that are taken away
//! partition.rs   one task per partition: starts what may start, notes what is finished
//! ```
//!
//! Invariant: an offset is committed only when all records before it took effect or are stored as
//! dead letters.

mod assignment;
mod connect;
mod consumer;
mod dead_letters;
mod partition;
mod partition_queue;
mod settings;

pub use consumer::run;
pub use settings::{KafkaForm, KafkaSasl, KafkaSaslMechanism, KafkaSettings, KafkaTls};
