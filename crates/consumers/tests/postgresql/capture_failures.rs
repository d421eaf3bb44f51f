//! What change data capture says when it cannot run.

use std::sync::Arc;

use consumers::postgresql::capture_settings::CaptureSettings;

use crate::capture::{settings, start};
use crate::postgres_server::PostgresServer;
use crate::recorder::{LogBuffer, Recorder};

async fn says(settings: CaptureSettings, expected: &str) {
    let (log, _guard) = LogBuffer::collect();
    let consumer = start(&settings, &Arc::new(Recorder::default()));
    consumer.until(|counters| counters.snapshot().failures >= 1).await;
    assert!(log.text().contains(expected), "{expected}: {}", log.text());
    assert!(!log.text().contains("secret"), "{}", log.text());
    consumer.stop().await;
}

#[tokio::test]
async fn what_is_missing_or_forbidden_is_named() {
    let server = PostgresServer::start();
    server.sql("create table t (id int primary key); create role plain login password 'secret'");
    let all = || settings(&server);
    let no_publication = CaptureSettings { creates_publication: false, ..all() };
    says(no_publication, "publication \"tidings\"").await;
    says(
        CaptureSettings { dsn: server.dsn_as("plain", "secret"), ..all() },
        "must be superuser or replication role",
    )
    .await;
    says(
        CaptureSettings { dsn: server.dsn_as("plain", "secret2"), ..all() },
        "refuses the credentials",
    )
    .await;
    let tables = vec!["missing".parse().unwrap()];
    says(CaptureSettings { tables, ..all() }, "relation \"missing\" does not exist").await;
    server.sql("create publication tidings for table t");
    let no_slot = CaptureSettings { creates_slot: false, ..all() };
    says(no_slot, "replication slot \"tidings\"").await;
    server.sql("select pg_create_logical_replication_slot('tidings', 'test_decoding')");
    says(all(), "the slot \"tidings\" is of test_decoding, not of pgoutput").await;
}

#[tokio::test]
async fn a_server_without_logical_decoding_says_what_to_set() {
    let server = PostgresServer::start_with(&["wal_level=replica"]);
    says(settings(&server), "wal_level of PostgreSQL is replica; set wal_level = logical").await;
}
