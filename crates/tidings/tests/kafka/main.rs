//! A stream through Kafka to subscribers: a producer, a group of two nodes on one Redis, one of
//! which is killed in the middle, and a client per channel that checks what it receives.
//!
//! The short form runs with the other tests. `make kafka` runs a million messages against a release
//! build, and prints their rate beside that of a bare consumer of the same library.

#[path = "../../../consumers/tests/kafka/broker.rs"]
#[expect(dead_code, reason = "the tests of the crate use more of it")]
mod broker;
#[path = "../support/process.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod process;
mod redis;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::{Client, ClientOptions, Event, Events, SubscriptionOptions};
use krafka::Record;
use krafka::consumer::AutoOffsetReset;
use krafka::producer::Producer;
use tempfile::TempDir;
use tokio::sync::Notify;

use broker::{Broker, shared};
use process::{Running, configured, tidings};
use redis::Redis;

const PARTITIONS: i32 = 4;

/// How much is sent.
struct Load {
    channels: usize,
    each: usize,
    patience: Duration,
}

fn load() -> Load {
    match std::env::var("KAFKA").as_deref() {
        Ok("long") => Load { channels: 1_000, each: 1_000, patience: Duration::from_secs(600) },
        _ => Load { channels: 50, each: 100, patience: Duration::from_secs(90) },
    }
}

/// A node that consumes the topic `stream`.
struct Node {
    running: Running,
    port: u16,
    _folder: TempDir,
}

impl Node {
    /// A member of this group with this engine.
    fn start(broker: &Broker, engine: &str, group: &str) -> Node {
        Node::reading("stream", broker, engine, group)
    }

    /// The same for another topic.
    fn reading(topic: &str, broker: &Broker, engine: &str, group: &str) -> Node {
        let config = format!(
            r#"
            http_server = {{ address = "127.0.0.1", port = 0 }}
            client = {{ insecure = true }}
            engine = {engine}
            channel = {{ namespaces = [{{ name = "stream", history_size = 2000, history_ttl = "600s", force_recovery = true }}] }}
            prometheus = {{ enabled = true }}
            [[consumers]]
            name = "stream"
            enabled = true
            type = "kafka"
            [consumers.kafka]
            brokers = ["127.0.0.1:{port}"]
            topics = ["{topic}"]
            consumer_group = "{group}"
            [consumers.kafka.publication_data_mode]
            enabled = true
            "#,
            port = broker.port
        );
        let (folder, file) = configured(&config);
        let (running, port) = Running::serving(tidings(&["serve", "-c", file.to_str().unwrap()]));
        Node { running, port, _folder: folder }
    }

    /// The value of a metric of the consumer.
    fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let line = page.lines().find_map(|line| {
            line.strip_prefix(&format!("tidings_consumer_{name}{{consumer=\"stream\"}} "))
        });
        line.map_or(0, |value| value.parse().unwrap())
    }

    async fn until(&self, name: &str, holds: impl Fn(u64) -> bool) {
        let began = Instant::now();
        while !holds(self.metric(name)) {
            assert!(began.elapsed() < Duration::from_secs(300), "{name}: {}", self.metric(name));
            // A metric has no events.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn processor_time(&self) -> Duration {
        processor_time(&self.running.child.id().to_string())
    }
}

/// Processor time that a process has used.
fn processor_time(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.map(|field| field.parse::<u64>().unwrap()).sum::<u64>() * 10)
}

/// What all subscribers have received.
#[derive(Default)]
struct Received {
    count: AtomicUsize,
    repeated: AtomicUsize,
    all: Notify,
}

/// Subscribes to one channel and checks that its numbers come in order, each once.
async fn subscriber(port: u16, channel: usize, each: usize, received: Arc<Received>, total: usize) {
    let url = format!("ws://127.0.0.1:{port}/connection/websocket");
    let (client, mut events): (Client, Events) =
        Client::connect(&url, ClientOptions::default()).unwrap();
    let name = format!("stream:{channel}");
    let recoverable = SubscriptionOptions { recoverable: true, ..Default::default() };
    client.subscribe(&name, recoverable).await.unwrap();
    let mut next = 0;
    while next < each {
        match events.next().await.expect("the client lives") {
            Event::Publication { publication, .. } => {
                let number: usize =
                    std::str::from_utf8(&publication.data).unwrap().parse().unwrap();
                assert!(number <= next, "{name}: {number} after {next}");
                if number < next {
                    received.repeated.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                next += 1;
                if received.count.fetch_add(1, Ordering::Relaxed) + 1 == total {
                    received.all.notify_one();
                }
            }
            Event::Subscribed { subscribed, .. } => {
                assert!(!subscribed.was_recovering || subscribed.recovered, "{name} has lost");
            }
            Event::Unsubscribed { reason, .. } => panic!("{name}: {reason:?}"),
            _ => {}
        }
    }
}

/// Sends all numbers of all channels; some of them twice, as a producer that retries does.
async fn produce(producer: &Producer, load: &Load) {
    let mut pending = std::collections::VecDeque::new();
    for number in 0..load.each {
        for channel in 0..load.channels {
            let times = if number % 100 == 50 { 2 } else { 1 };
            for _ in 0..times {
                let record = Record::new("stream", number.to_string())
                    .key(channel.to_string())
                    .header("centrifugo-channels", format!("stream:{channel}"))
                    .header("centrifugo-idempotency-key", format!("{channel}-{number}"));
                pending.push_back(producer.enqueue(record).await.unwrap());
                if pending.len() > 5_000 {
                    let _sent = pending.pop_front().unwrap().await.unwrap();
                }
            }
        }
    }
    for acknowledgement in pending {
        let _sent = acknowledgement.await.unwrap();
    }
}

/// Prints what a bare consumer of the library needs to read and commit everything, and what a node
/// needs, alone and without subscribers.
async fn compare(broker: &Broker, records: usize) {
    let kafka = broker.client().await;
    let builder = kafka.consumer("bare").auto_offset_reset(AutoOffsetReset::Earliest);
    let bare = builder.enable_auto_commit(false).max_poll_records(100).build().await.unwrap();
    bare.subscribe(["stream"]).await.unwrap();
    let (mut count, mut committed) = (0, Instant::now());
    let (began, used) = (Instant::now(), processor_time("self"));
    while count < records {
        count += bare.poll(Duration::from_secs(1)).await.unwrap().len();
        if committed.elapsed() > Duration::from_millis(200) {
            bare.commit().await.unwrap();
            committed = Instant::now();
        }
    }
    report("bare consumer", records, began.elapsed(), processor_time("self") - used);
    bare.close().await.unwrap();
    let node = Node::start(broker, "{ type = \"memory\" }", "alone");
    let (began, used) = (Instant::now(), node.processor_time());
    node.until("processed_total", |count| count >= records as u64).await;
    report("one node in memory", records, began.elapsed(), node.processor_time() - used);
}

fn report(name: &str, records: usize, time: Duration, processor: Duration) {
    let per = |time: Duration| records as f64 / time.as_secs_f64() / 1_000.0;
    let (rate, rate_per_core) = (per(time), per(processor));
    println!(
        "{name}: {rate:.0} thousand records/s, {rate_per_core:.0} thousand per second of processor"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_reaches_its_subscribers_in_order_and_once_although_a_node_is_killed() {
    let load = load();
    let (broker, redis) = (shared(), Redis::start());
    let producer = broker.topics(&[("stream", PARTITIONS)]).await;
    let total = load.channels * load.each;
    let engine = redis.engine();
    let survivor = Node::start(broker, &engine, "nodes");
    let received = Arc::<Received>::default();
    let subscribers: Vec<_> = (0..load.channels)
        .map(|channel| {
            tokio::spawn(subscriber(survivor.port, channel, load.each, received.clone(), total))
        })
        .collect();
    let mut victim = Node::start(broker, &engine, "nodes");
    survivor.until("up", |up| up == 1).await;
    // Half of the partitions have moved to it.
    victim.running.says("stream[");
    let began = Instant::now();
    let sending = async {
        produce(&producer, &load).await;
        began.elapsed()
    };
    let killing = async {
        victim.until("processed_total", |count| count > total as u64 / 10).await;
        victim.running.child.kill().unwrap();
        began.elapsed()
    };
    let receiving = async {
        received.all.notified().await;
        began.elapsed()
    };
    let all = async { tokio::join!(sending, killing, receiving) };
    let Ok((sent, killed, whole)) = tokio::time::timeout(load.patience, all).await else {
        panic!("{} of {total} were received", received.count.load(Ordering::Relaxed));
    };
    for subscriber in subscribers {
        subscriber.await.unwrap();
    }
    let repeated = received.repeated.load(Ordering::Relaxed);
    assert_eq!(repeated, 0, "repeated messages have a key and are removed");
    survivor.until("lag", |lag| lag == 0).await;
    println!(
        "{total} messages to {} subscribers: sent in {sent:.1?}, one of two nodes killed after \
         {killed:.1?}, all received after {whole:.1?}; the survivor used {:.1?} of a processor",
        load.channels,
        survivor.processor_time()
    );
    if std::env::var("KAFKA").is_ok() {
        drop(survivor);
        compare(broker, load.channels * (load.each + load.each / 100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_wait_for_a_broker_that_is_away_and_poison_is_set_aside() {
    let (broker, mut redis) = (shared(), Redis::start());
    let producer = broker.topics(&[("waiting", 2)]).await;
    let node = Node::reading("waiting", broker, &redis.engine(), "waiting");
    let to = |channel: &str, number: u32| {
        let record = Record::new("waiting", number.to_string()).key(number.to_string());
        record.header("centrifugo-channels", channel.to_owned())
    };
    let _sent = producer.send(to("stream:a", 0)).await.unwrap();
    node.until("processed_total", |count| count == 1).await;
    redis.kill();
    for number in 1..200 {
        let _sent = producer.send(to("stream:a", number)).await.unwrap();
    }
    let _sent = producer.send(to("nowhere:a", 200)).await.unwrap();
    node.until("retries_total", |count| count > 0).await;
    redis.come_back();
    node.until("processed_total", |count| count == 200).await;
    node.until("rejected_total", |count| count == 1).await;
    node.until("lag", |lag| lag == 0).await;
    assert_eq!(node.metric("up"), 1);
}
