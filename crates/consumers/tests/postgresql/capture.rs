//! Changes of tables as publications: payloads, channels, order, restarts, a long transaction.

use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use consumers::postgresql::{capture_settings::CaptureSettings, change_capture};
use consumers::{Body, ConsumedMessage, Handled, Handler};

use crate::postgres_server::PostgresServer;
use crate::recorder::{Recorder, Running, resident_bytes};

pub(crate) fn settings(server: &PostgresServer) -> CaptureSettings {
    CaptureSettings {
        dsn: server.dsn(),
        tls: None,
        slot: "tidings".to_owned(),
        creates_slot: true,
        publication: "tidings".to_owned(),
        creates_publication: true,
        tables: Vec::new(),
        channels: vec!["db:{schema}.{table}:{id}".parse().unwrap()],
        row_bytes_max: 1 << 20,
    }
}

pub(crate) fn start(settings: &CaptureSettings, recorder: &Arc<Recorder>) -> Running {
    let (settings, recorder) = (settings.clone(), recorder.clone());
    Running::start(|task| change_capture::run(task, settings, recorder))
}

/// Starts, and returns once the slot is read.
async fn started(settings: &CaptureSettings, recorder: &Arc<Recorder>) -> Running {
    let consumer = start(settings, recorder);
    consumer.until(|counters| counters.snapshot().is_connected).await;
    consumer
}

/// Texts without time and place.
fn payloads(recorder: &Recorder) -> Vec<String> {
    let cut = |text: String| text.split(",\"time_ms\"").next().unwrap().to_owned();
    recorder.texts().into_iter().map(cut).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_publications_in_the_order_of_the_commits() {
    let server = PostgresServer::start();
    server.sql(
        "create table orders (id bigint primary key, body text, at timestamptz, paid bool, \
         price numeric, tags text[], extra jsonb);
         alter table orders alter column body set storage external;",
    );
    let recorder = Arc::new(Recorder::default());
    let settings = CaptureSettings { dsn: server.dsn_with_tls(), ..settings(&server) };
    let consumer = started(&settings, &recorder).await;
    server.sql(
        "insert into orders values (7, repeat('x', 9000), '2026-01-02 03:04:05Z', true, 1.50, \
         '{a,\"b c\"}', '{\"k\": [1]}');
         update orders set paid = false where id = 7;
         update orders set id = 8 where id = 7;
         delete from orders where id = 8;",
    );
    recorder.wait_for(4).await;
    let long = "x".repeat(9000);
    let same = r#""at":"2026-01-02 03:04:05+00","paid":false,"price":1.50,"tags":["a","b c"],"extra":{"k": [1]}}"#;
    let of = |operation: &str| {
        format!(r#"{{"operation":"{operation}","schema":"public","table":"orders""#)
    };
    let all = payloads(&recorder);
    assert_eq!(
        all[0],
        format!(
            r#"db:public.orders:7 {},"row":{{"id":7,"body":"{long}",{}"#,
            of("insert"),
            same.replace("false", "true")
        )
    );
    assert_eq!(
        all[1],
        format!(
            r#"db:public.orders:7 {},"row":{{"id":7,{same},"unchanged":["body"]"#,
            of("update")
        )
    );
    assert_eq!(
        all[2],
        format!(
            r#"db:public.orders:8,db:public.orders:7 {},"row":{{"id":8,{same},"old":{{"id":7}},"unchanged":["body"]"#,
            of("update")
        )
    );
    assert_eq!(all[3], format!(r#"db:public.orders:8 {},"old":{{"id":8}}"#, of("delete")));
    // With the whole old row nothing is left out.
    server.sql(
        "alter table orders replica identity full; insert into orders values (9, repeat('y', 9000)); \
         update orders set paid = true where id = 9; truncate orders;",
    );
    recorder.wait_for(6).await;
    let texts = recorder.texts();
    assert!(texts[5].contains("\"body\":\"yyy") && !texts[5].contains("unchanged"), "{}", texts[5]);
    assert_eq!(recorder.distinct_keys().len(), 6);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_goes_on_where_it_was_after_restarts_and_a_second_node_waits_for_it() {
    let mut server = PostgresServer::start();
    server.sql("create table t (id int primary key)");
    let recorder = Arc::new(Recorder::default());
    let settings = settings(&server);
    let first = started(&settings, &recorder).await;
    let second = start(&settings, &recorder);
    server.sql("insert into t select generate_series(1, 100)");
    recorder.wait_for(100).await;
    assert!(!second.counters.snapshot().is_connected);
    first.stop().await;
    second.until(|counters| counters.snapshot().is_connected).await;
    server.sql("insert into t select generate_series(101, 200)");
    recorder.wait_for_keys(200).await;
    second.stop().await;
    server.sql("insert into t select generate_series(201, 300)");
    server.restart();
    let third = started(&settings, &recorder).await;
    recorder.wait_for_keys(300).await;
    server.restart();
    server.sql("insert into t select generate_series(301, 400)");
    recorder.wait_for_keys(400).await;
    third.until(|counters| counters.snapshot().lag == 0).await;
    third.stop().await;
    assert_eq!(recorder.distinct_keys().len(), 400);
    let ids: Vec<String> = payloads(&recorder)
        .iter()
        .map(|text| text.split_once(' ').unwrap().0.rsplit_once(':').unwrap().1.to_owned())
        .collect();
    let mut seen = std::collections::HashSet::new();
    let first_of_each: Vec<String> = ids.into_iter().filter(|id| seen.insert(id.clone())).collect();
    assert_eq!(first_of_each, (1..=400).map(|id: u32| id.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_node_has_not_confirmed_comes_again_with_the_same_keys() {
    let server = PostgresServer::start();
    server.sql("create table t (id int primary key)");
    let recorder = Arc::new(Recorder::default());
    let settings = settings(&server);
    let first = started(&settings, &recorder).await;
    server.sql("insert into t select generate_series(1, 3000)");
    recorder.wait_for(1000).await;
    first.kill().await;
    let second = start(&settings, &recorder);
    second.until(|counters| counters.snapshot().processed >= 3000).await;
    assert!(recorder.count() >= 4000);
    assert_eq!(recorder.distinct_keys().len(), 3000);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_can_never_be_published_is_passed_over() {
    let server = PostgresServer::start();
    server.sql("create table t (id int, body text)");
    let recorder = Arc::new(Recorder::default());
    recorder.poison.lock().unwrap().push("poison");
    let settings = CaptureSettings { row_bytes_max: 10_000, ..settings(&server) };
    let consumer = started(&settings, &recorder).await;
    server.sql(
        "insert into t values (1, 'good'), (2, repeat('long', 500000)), (3, 'poison'), \
         (null, 'no channel'), (4, 'good')",
    );
    consumer.until(|counters| counters.snapshot().processed == 2).await;
    assert_eq!(consumer.counters.snapshot().rejected, 3);
    let keys = recorder.keys();
    assert!(keys[0].ends_with(":1") && keys[1].ends_with(":5"), "{keys:?}");
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_needs_little_memory_and_a_change_is_fast() {
    let server = PostgresServer::start();
    server.sql("create table t (id int primary key, body text)");
    let recorder = Arc::new(Delays::default());
    let consumer = {
        let (settings, recorder) = (settings(&server), recorder.clone());
        Running::start(|task| change_capture::run(task, settings, recorder))
    };
    consumer.until(|counters| counters.snapshot().is_connected).await;
    let before = resident_bytes();
    let begun = Instant::now();
    server.sql("insert into t select n, repeat('x', 1000) from generate_series(1, 100000) n");
    consumer.until(|counters| counters.snapshot().processed >= 100_000).await;
    let (grown, took) = (resident_bytes().saturating_sub(before), begun.elapsed());
    assert!(grown < 32 << 20, "{grown} bytes more");
    recorder.0.lock().unwrap().clear();
    for n in 1..=100u64 {
        server.sql(&format!("update t set body = 'y' where id = {n}"));
        consumer.until(|counters| counters.snapshot().processed >= 100_000 + n).await;
    }
    let mut delays = recorder.0.lock().unwrap().clone();
    delays.sort_unstable();
    println!(
        "capture: 100,000 rows of 1 KB in {took:?}, {} KiB more memory; commit to handler p50 {} ms \
         p99 {} ms",
        grown >> 10,
        delays[50],
        delays[98]
    );
    consumer.stop().await;
}

/// Keeps the milliseconds since the commit.
#[derive(Default)]
struct Delays(Mutex<Vec<u128>>);

impl Handler for Delays {
    async fn handle(&self, message: &ConsumedMessage) -> Handled {
        let Body::Publication(publication) = &message.body else { panic!("a publication") };
        let event: serde_json::Value = serde_json::from_slice(&publication.data).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let committed = u128::from(event["time_ms"].as_u64().unwrap());
        self.0.lock().unwrap().push(now.saturating_sub(committed));
        Handled::Done
    }
}
