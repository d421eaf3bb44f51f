//! Settings of an outbox.

use std::time::Duration;

use super::dsn::Dsn;
use super::sql_name::TableName;
use super::tls::PostgresTls;

/// Settings of a consumer that reads an outbox table.
#[derive(Clone, Debug)]
pub struct OutboxSettings {
    /// The database.
    pub dsn: Dsn,
    /// TLS in place of `sslmode`.
    pub tls: Option<PostgresTls>,
    /// The table.
    pub table: TableName,
    /// Partitions, numbered from 0.
    pub partitions: u32,
    /// Rows of one transaction.
    pub select_limit: u32,
    /// Time between two looks at a partition without a notification.
    pub poll_interval: Duration,
    /// Channel of `NOTIFY` whose payload is a partition; empty for none.
    pub notification_channel: String,
    /// The database for `LISTEN`, where `dsn` is a pooler.
    pub notification_dsn: Option<Dsn>,
    /// How a partition's lock is taken.
    pub lock: PartitionLock,
    /// Table for rows that can never take effect.
    pub dead_letters: Option<TableName>,
}

/// How the lock of a partition is taken that another node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionLock {
    /// Wait in the database: the next node goes on at once.
    Wait,
    /// Try again after the poll interval.
    Try,
}
