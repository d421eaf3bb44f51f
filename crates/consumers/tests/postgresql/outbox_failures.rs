//! What an outbox says when it cannot run.

use std::sync::Arc;

use consumers::postgresql::outbox_settings::OutboxSettings;

use crate::outbox::{TABLE, settings, start};
use crate::postgres_server::PostgresServer;
use crate::recorder::{LogBuffer, Recorder};

#[tokio::test]
async fn what_is_wrong_is_named_and_waited_for() {
    let server = PostgresServer::start();
    let (log, _guard) = LogBuffer::collect();
    let recorder = Arc::new(Recorder::default());
    let cases: [(OutboxSettings, &str); 4] = [
        (settings(&server), "relation \"outbox\" does not exist"),
        (
            OutboxSettings { dsn: server.dsn_as("postgres", "wrong secret"), ..settings(&server) },
            "refuses the credentials",
        ),
        (
            OutboxSettings { dsn: server.dsn_as("nobody", "wrong secret"), ..settings(&server) },
            "refuses the credentials",
        ),
        (
            {
                let mut dsn = server.dsn();
                dsn.hosts[0].port = 1;
                OutboxSettings { dsn, ..settings(&server) }
            },
            "localhost:1 cannot be reached",
        ),
    ];
    for (settings, expected) in cases {
        let consumer = start(&settings, &recorder);
        consumer.until(|counters| counters.snapshot().failures >= 1).await;
        assert!(log.text().contains(expected), "{expected}: {}", log.text());
        consumer.stop().await;
    }
    assert!(!log.text().contains("wrong secret"), "{}", log.text());
    // It goes on by itself when the table is there.
    let consumer = start(&settings(&server), &recorder);
    consumer.until(|counters| counters.snapshot().failures >= 1).await;
    server.sql(TABLE);
    server.sql("insert into outbox (method, payload) values ('publish', '{}')");
    recorder.wait_for(1).await;
    consumer.stop().await;
}

#[tokio::test]
async fn a_database_that_restarts_is_found_again() {
    let mut server = PostgresServer::start();
    server.sql(TABLE);
    let recorder = Arc::new(Recorder::default());
    let consumer = start(&settings(&server), &recorder);
    server.sql("insert into outbox (method, payload) values ('publish', '{\"n\": 1}')");
    recorder.wait_for(1).await;
    server.restart();
    server.sql("insert into outbox (method, payload) values ('publish', '{\"n\": 2}')");
    recorder.wait_for(2).await;
    assert!(consumer.counters.snapshot().failures >= 1);
    consumer.stop().await;
}
