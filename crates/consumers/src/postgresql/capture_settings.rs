//! Settings of change data capture.

use super::dsn::Dsn;
use super::sql_name::TableName;
use super::tls::PostgresTls;
use crate::channel_template::ChannelTemplate;

/// Settings of a consumer that captures changes of tables.
#[derive(Clone, Debug)]
pub struct CaptureSettings {
    /// The database.
    pub dsn: Dsn,
    /// TLS in place of `sslmode`.
    pub tls: Option<PostgresTls>,
    /// Slot that keeps the place in the log.
    pub slot: String,
    /// Whether to create a slot that is missing.
    pub creates_slot: bool,
    /// Publication, which names the tables.
    pub publication: String,
    /// Whether to create a publication that is missing.
    pub creates_publication: bool,
    /// Tables of a publication that is created; none for all tables.
    pub tables: Vec<TableName>,
    /// Channels of a change.
    pub channels: Vec<ChannelTemplate>,
    /// Greatest row in bytes, as the log has it.
    pub row_bytes_max: usize,
}
