//! A consumer of the changes of tables of PostgreSQL: logical decoding by `pgoutput`.
//!
//! The server keeps the log from the place that the consumer has confirmed in its slot. One node at
//! a time reads a slot; the others wait until it is free.
//!
//! Invariant: a place in the log is confirmed only after every change before it took effect, or can
//! never take effect and was counted and logged.

use std::sync::Arc;

use tracing::info;

use super::capture_settings::CaptureSettings;
use super::change_stream::{ChangeStream, StreamError};
use super::login::{self, SessionMode};
use super::postgres_connection::PostgresConnection;
use super::postgres_error::PostgresError;
use super::sql_name::{TableName, identifier, literal};
use crate::delivery::Delivery;
use crate::error::ConsumerError;
use crate::handler::Handler;
use crate::limits::SLOT_RETRY;
use crate::restart::{ConsumerTask, run_until_stopped};

/// What the server has for a slot.
enum Slot {
    Usable,
    Missing,
    Unusable(String),
}

/// Consumes until the stop.
pub async fn run<H: Handler>(task: ConsumerTask, settings: CaptureSettings, handler: Arc<H>) {
    let settings = Arc::new(settings);
    run_until_stopped(&task, || consume(&task, &settings, handler.clone())).await;
}

async fn consume<H: Handler>(
    task: &ConsumerTask,
    settings: &Arc<CaptureSettings>,
    handler: Arc<H>,
) -> Result<(), ConsumerError> {
    let source = CaptureSource { consumer: &task.name, settings };
    let connection = tokio::select! {
        claimed = source.claim_slot() => claimed?,
        () = task.stop.requested() => return Ok(()),
    };
    info!(consumer = %task.name, slot = %settings.slot, "consumer: changes are read from the slot");
    task.counters.connected();
    let delivery = Delivery::new(handler, task.counters.clone());
    let stream = ChangeStream::new(task.clone(), settings.clone(), delivery);
    stream.run(connection).await.map_err(|error| match error {
        StreamError::Postgres(error) => error.of_consumer(SOURCE),
        error => {
            let (source_name, reason) = (SOURCE.to_owned(), error.to_string());
            ConsumerError::Unavailable { source_name, reason }
        }
    })
}

/// The database side, before the stream.
struct CaptureSource<'s> {
    consumer: &'s str,
    settings: &'s CaptureSettings,
}

impl CaptureSource<'_> {
    /// A connection that streams the slot; waits while another node has it.
    async fn claim_slot(&self) -> Result<PostgresConnection, ConsumerError> {
        let settings = self.settings;
        let mode = SessionMode::Replication;
        let opened = login::open(&settings.dsn, settings.tls.as_ref(), mode).await;
        let mut connection = opened.map_err(|error| error.of_consumer(SOURCE))?;
        self.prepare(&mut connection).await?;
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {})",
            identifier(&settings.slot),
            publication_names(&settings.publication),
        );
        let mut is_told = false;
        loop {
            match connection.begin_copy(&command).await {
                Ok(()) => return Ok(connection),
                Err(error) if error.code() == Some(OBJECT_IN_USE) => {
                    if !is_told {
                        info!(
                            consumer = %self.consumer, slot = %settings.slot, %error,
                            "consumer: another node reads the slot; this one waits"
                        );
                        is_told = true;
                    }
                    tokio::time::sleep(SLOT_RETRY).await;
                }
                Err(error) => return Err(error.of_consumer(SOURCE)),
            }
        }
    }

    /// Checks the server, and creates what is missing where the settings say so.
    async fn prepare(&self, connection: &mut PostgresConnection) -> Result<(), ConsumerError> {
        let failed = |error: PostgresError| error.of_consumer(SOURCE);
        let rows = connection.simple("show wal_level").await.map_err(failed)?;
        let level = rows.first().and_then(|row| row.text(0)).unwrap_or_default();
        if level != "logical" {
            let reason = format!(
                "wal_level of PostgreSQL is {level}; set wal_level = logical and restart it"
            );
            return Err(ConsumerError::Settings { reason });
        }
        self.prepare_publication(connection).await?;
        self.prepare_slot(connection).await
    }

    async fn prepare_publication(
        &self,
        connection: &mut PostgresConnection,
    ) -> Result<(), ConsumerError> {
        let failed = |error: PostgresError| error.of_consumer(SOURCE);
        let CaptureSettings { publication, creates_publication, tables, .. } = self.settings;
        let sql = format!("select 1 from pg_publication where pubname = {}", literal(publication));
        if !connection.simple(&sql).await.map_err(failed)?.is_empty() {
            return Ok(());
        }
        if !creates_publication {
            let missing = format!("publication {publication:?} in the database");
            return Err(ConsumerError::Missing { missing });
        }
        let of: Vec<String> = tables.iter().map(TableName::to_string).collect();
        let of = match of.is_empty() {
            true => "all tables".to_owned(),
            false => format!("table {}", of.join(", ")),
        };
        let created = connection
            .simple(&format!("create publication {} for {of}", identifier(publication)))
            .await;
        match created {
            Ok(_) => {
                info!(consumer = %self.consumer, %publication, %of, "consumer: publication created");
            }
            Err(error) if error.code() == Some(DUPLICATE_OBJECT) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(())
    }

    async fn prepare_slot(&self, connection: &mut PostgresConnection) -> Result<(), ConsumerError> {
        let failed = |error: PostgresError| error.of_consumer(SOURCE);
        let CaptureSettings { slot, creates_slot, .. } = self.settings;
        match self.slot(connection).await.map_err(failed)? {
            Slot::Usable => return Ok(()),
            Slot::Unusable(reason) => return Err(ConsumerError::Settings { reason }),
            Slot::Missing if !creates_slot => {
                let missing = format!("replication slot {slot:?} in PostgreSQL");
                return Err(ConsumerError::Missing { missing });
            }
            Slot::Missing => {}
        }
        let sql =
            format!("select pg_create_logical_replication_slot({}, 'pgoutput')", literal(slot));
        match connection.simple(&sql).await {
            Ok(_) => info!(consumer = %self.consumer, %slot, "consumer: replication slot created"),
            Err(error) if error.code() == Some(DUPLICATE_OBJECT) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(())
    }

    async fn slot(&self, connection: &mut PostgresConnection) -> Result<Slot, PostgresError> {
        let slot = &self.settings.slot;
        let sql = format!(
            "select coalesce(plugin, slot_type), coalesce(database = current_database(), false),              coalesce(wal_status, '') from pg_replication_slots where slot_name = {}",
            literal(slot)
        );
        let rows = connection.simple(&sql).await?;
        let Some(row) = rows.first() else { return Ok(Slot::Missing) };
        Ok(match (row.text(0), row.text(1), row.text(2)) {
            (Some("pgoutput"), Some("t"), Some("lost")) => Slot::Unusable(format!(
                "the slot {slot:?} has lost a part of its log (max_slot_wal_keep_size): changes                  are missing; drop it, and let clients load their state anew"
            )),
            (Some("pgoutput"), Some("t"), _) => Slot::Usable,
            (Some("pgoutput"), ..) => {
                Slot::Unusable(format!("the slot {slot:?} is of another database"))
            }
            (plugin, ..) => Slot::Unusable(format!(
                "the slot {slot:?} is of {}, not of pgoutput",
                plugin.unwrap_or("another kind")
            )),
        })
    }
}

/// A list of one name, as the option of the plugin has it.
fn publication_names(publication: &str) -> String {
    // Options of a replication command are always in standard strings.
    format!("'{}'", identifier(publication).replace('\'', "''"))
}

const SOURCE: &str = "PostgreSQL";
const OBJECT_IN_USE: &str = "55006";
const DUPLICATE_OBJECT: &str = "42710";
