//! Rows of an outbox: order, dead letters, waits, several nodes, a long backlog.

use std::sync::Arc;
use std::time::{Duration, Instant};

use consumers::postgresql::{
    outbox,
    outbox_settings::{OutboxSettings, PartitionLock},
};

use crate::postgres_server::PostgresServer;
use crate::recorder::{Recorder, Running, resident_bytes};

pub(crate) const TABLE: &str = "create table outbox (
    id bigserial primary key,
    method text not null,
    payload jsonb,
    partition int not null default 0,
    created_at timestamptz not null default now()
);
create table outbox_dead (
    id bigint, method text, payload jsonb, partition int, error text,
    failed_at timestamptz not null default now()
);
create function announce() returns trigger language plpgsql as $$
begin
    perform pg_notify('outbox_rows', new.partition::text);
    return new;
end $$;
create trigger announce after insert on outbox for each row execute function announce();";

pub(crate) fn settings(server: &PostgresServer) -> OutboxSettings {
    OutboxSettings {
        dsn: server.dsn(),
        tls: None,
        table: "outbox".parse().unwrap(),
        partitions: 1,
        select_limit: 100,
        // Longer than any test, so that only notifications wake.
        poll_interval: Duration::from_secs(600),
        notification_channel: "outbox_rows".to_owned(),
        notification_dsn: None,
        lock: PartitionLock::Wait,
        dead_letters: None,
    }
}

pub(crate) fn start(settings: &OutboxSettings, recorder: &Arc<Recorder>) -> Running {
    let (settings, recorder) = (settings.clone(), recorder.clone());
    Running::start(|task| outbox::run(task, settings, recorder))
}

/// Inserts rows whose payloads are the numbers from `first` on, over three partitions.
fn insert(server: &PostgresServer, first: u32, count: u32) {
    let last = first + count - 1;
    server.sql(&format!(
        "insert into outbox (method, payload, partition) \
         select 'publish', jsonb_build_object('n', n), n % 3 from generate_series({first}, {last}) n"
    ));
}

fn number(text: &str) -> u32 {
    text.trim_start_matches("publish {\"n\": ").trim_end_matches('}').parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_handled_in_the_order_of_their_partition_and_removed() {
    let server = PostgresServer::start();
    server.sql(TABLE);
    insert(&server, 0, 50);
    let recorder = Arc::new(Recorder::default());
    // TLS with a verified certificate.
    let dsn = server.dsn_with_tls();
    let settings = OutboxSettings { partitions: 3, select_limit: 7, dsn, ..settings(&server) };
    let consumer = start(&settings, &recorder);
    recorder.wait_for(50).await;
    insert(&server, 50, 50);
    recorder.wait_for(100).await;
    let numbers: Vec<u32> = recorder.texts().iter().map(|text| number(text)).collect();
    for partition in 0..3 {
        let of: Vec<u32> = numbers.iter().copied().filter(|n| n % 3 == partition).collect();
        assert!(of.is_sorted(), "partition {partition}: {of:?}");
        assert_eq!(of.len(), if partition == 0 { 34 } else { 33 });
    }
    assert_eq!(recorder.messages()[0].origin.consumer, "shop".into());
    consumer.stop().await;
    assert_eq!(server.sql("select count(*) from outbox"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_can_never_be_handled_is_a_dead_letter_and_stops_nobody() {
    let server = PostgresServer::start();
    server.sql(TABLE);
    server.sql(
        "insert into outbox (method, payload) values ('publish', '{\"n\": 1}'), ('drop', '{}'), \
         ('publish', null), ('publish', '{\"bad\": 1}'), \
         ('publish', to_jsonb(repeat('x', 17 * 1024 * 1024))), ('publish', '{\"n\": 2}')",
    );
    let recorder = Arc::new(Recorder::default());
    recorder.poison.lock().unwrap().push("bad");
    let dead_letters = Some("outbox_dead".parse().unwrap());
    let consumer = start(&OutboxSettings { dead_letters, ..settings(&server) }, &recorder);
    recorder.wait_for(2).await;
    assert_eq!(recorder.texts(), ["publish {\"n\": 1}", "publish {\"n\": 2}"]);
    consumer.until(|counters| counters.snapshot().dead_letters == 4).await;
    let counters = consumer.counters.snapshot();
    assert_eq!((counters.processed, counters.rejected), (2, 4));
    consumer.stop().await;
    assert_eq!(
        server.sql("select id, method, left(error, 40) from outbox_dead order by id"),
        "2|drop|unknown method \"drop\"; the methods are p\n\
         3|publish|the payload is null\n\
         4|publish|it contains bad\n\
         5|publish|the payload has 17825794 bytes, more tha"
    );
    assert_eq!(server.sql("select count(*) from outbox"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_has_to_wait_holds_its_partition_and_no_transaction() {
    let server = PostgresServer::start();
    server.sql(TABLE);
    insert(&server, 3, 1);
    let recorder = Recorder::waiting(4);
    let consumer = start(&settings(&server), &recorder);
    consumer.until(|counters| counters.snapshot().retries >= 2).await;
    insert(&server, 6, 1);
    recorder.wait_for(2).await;
    assert_eq!(recorder.texts(), ["publish {\"n\": 3}", "publish {\"n\": 6}"]);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_goes_on_when_one_stops_or_is_killed_and_no_row_is_lost() {
    let server = PostgresServer::start();
    server.sql(TABLE);
    let recorder = Arc::new(Recorder::default());
    let settings = OutboxSettings { partitions: 3, ..settings(&server) };
    let first = start(&settings, &recorder);
    let second = start(&settings, &recorder);
    insert(&server, 0, 3000);
    recorder.wait_for(500).await;
    first.kill().await;
    recorder.wait_for(1500).await;
    second.stop().await;
    let third = start(&settings, &recorder);
    insert(&server, 3000, 30);
    third.until(|_| server.sql("select count(*) from outbox") == "0").await;
    let mut numbers: Vec<u32> = recorder.texts().iter().map(|text| number(text)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, Vec::from_iter(0..3030));
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_needs_little_memory_and_a_notification_is_fast() {
    let server = PostgresServer::start();
    server.sql(TABLE);
    server.sql("alter table outbox disable trigger all");
    server.sql(
        "insert into outbox (method, payload) select 'publish', \
         jsonb_build_object('n', n, 'filler', repeat('x', 1000)) from generate_series(1, 20000) n",
    );
    server.sql("alter table outbox enable trigger all");
    let recorder = Arc::new(Counting);
    let before = resident_bytes();
    let begun = Instant::now();
    let consumer = {
        let (settings, recorder) = (settings(&server), recorder.clone());
        Running::start(|task| outbox::run(task, settings, recorder))
    };
    consumer.until(|counters| counters.snapshot().processed >= 20_000).await;
    let (grown, took) = (resident_bytes().saturating_sub(before), begun.elapsed());
    assert!(grown < 32 << 20, "{grown} bytes more");
    let mut delays = Vec::new();
    for n in 0..100 {
        let committed = Instant::now();
        insert(&server, n * 3, 1);
        consumer.until(|counters| counters.snapshot().processed > 20_000 + u64::from(n)).await;
        delays.push(committed.elapsed());
    }
    delays.sort_unstable();
    println!(
        "outbox: 20,000 rows of 1 KB in {took:?}, {} KiB more memory; psql to handler p50 {:?} p99 {:?}",
        grown >> 10,
        delays[50],
        delays[98]
    );
    consumer.stop().await;
}

/// Keeps nothing.
struct Counting;

impl consumers::Handler for Counting {
    async fn handle(&self, _: &consumers::ConsumedMessage) -> consumers::Handled {
        consumers::Handled::Done
    }
}
