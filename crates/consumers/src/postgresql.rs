//! Consumers of PostgreSQL: an outbox, and the changes of tables.
//!
//! Both use one small connection over `postgres-protocol`: the client libraries for applications
//! have no replication, and need more than a statement at a time.

pub mod dsn;
pub mod lsn;
pub mod postgres_error;
pub mod sql_name;
pub mod tls;

mod login;
mod postgres_connection;
mod postgres_socket;

pub mod outbox;
mod outbox_lag;
mod outbox_partition;
mod outbox_payload;
pub mod outbox_settings;
mod outbox_task;

mod pgoutput;
mod relations;
mod replication_frame;
mod row_json;

pub mod capture_settings;
pub mod change_capture;
mod change_stream;
