//! Order, loss, poison, faults of the handler, and members that come and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use consumers::Handled;
use consumers::debezium::ChangeEvents;
use consumers::decode::{PublicationHeaders, RecordForm};
use consumers::kafka::KafkaForm;
use krafka::Record;
use krafka::consumer::AutoOffsetReset;

use crate::broker::{command, shared};
use crate::recorder::{Member, Recorder};

/// Payloads `{"k":KEY,"n":NUMBER}` of `keys` keys with `each` numbers each, over four partitions.
async fn produce(topic: &str, keys: i32, each: i32) {
    let producer = shared().topics(&[(topic, 4)]).await;
    send(&producer, topic, keys, 0..each).await;
}

async fn send(
    producer: &krafka::producer::Producer,
    topic: &str,
    keys: i32,
    numbers: std::ops::Range<i32>,
) {
    let mut sent = Vec::new();
    for n in numbers {
        for k in 0..keys {
            let record = command(topic, k % 4, &k.to_string(), &format!(r#"{{"k":{k},"n":{n}}}"#));
            sent.push(producer.enqueue(record).await.unwrap());
        }
    }
    for acknowledgement in sent {
        let _sent = acknowledgement.await.unwrap();
    }
}

/// Checks that each key has all its numbers, in order once repeated ones are removed.
fn check(payloads: &[String], keys: i32, each: i32) {
    let mut next = BTreeMap::<i32, i32>::new();
    for payload in payloads {
        let numbers: serde_json::Value = serde_json::from_str(payload).unwrap();
        let at = |name: &str| i32::try_from(numbers[name].as_i64().unwrap()).unwrap();
        let next = next.entry(at("k")).or_default();
        assert!(at("n") <= *next, "a gap before {payload}");
        *next = (*next).max(at("n") + 1);
    }
    assert_eq!(next.len(), keys as usize);
    assert!(next.values().all(|next| *next == each), "{next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_is_handled_in_order_and_offsets_survive_a_restart() {
    produce("order", 12, 100).await;
    let settings = shared().settings("order");
    let recorder = Recorder::new();
    let member = Member::start(&settings, &recorder);
    let payloads = recorder.wait_for(1200).await;
    member.stop().await;
    check(&payloads, 12, 100);
    assert_eq!(payloads.len(), 1200);
    let producer = shared().client().await.producer().build().await.unwrap();
    send(&producer, "order", 12, 100..101).await;
    let recorder = Recorder::new();
    let member = Member::start(&settings, &recorder);
    let payloads = recorder.wait_for(12).await;
    member.stop().await;
    assert!(payloads.iter().all(|payload| payload.ends_with("\"n\":100}")), "{payloads:?}");
    assert_eq!(payloads.len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_killed_or_stopped_hands_its_partitions_over() {
    produce("members", 8, 200).await;
    let settings = shared().settings("members");
    let recorder = Recorder::new();
    let (first, second) =
        (Member::start(&settings, &recorder), Member::start(&settings, &recorder));
    recorder.wait_for(300).await;
    first.kill().await;
    let third = Member::start(&settings, &recorder);
    recorder.wait_for(900).await;
    second.stop().await;
    let mut count = 1600;
    while recorder.payloads().iter().collect::<std::collections::BTreeSet<_>>().len() < 1600 {
        recorder.wait_for(count).await;
        count += 1;
    }
    third.stop().await;
    check(&recorder.payloads(), 8, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_goes_to_the_dead_letters_and_stops_nothing() {
    let producer = shared().topics(&[("poison", 1), ("poison_dead", 1)]).await;
    let _sent = producer.send(command("poison", 0, "a", "1")).await.unwrap();
    let _sent = producer
        .send(Record::new("poison", "no JSON").key("a").header("trace", "t"))
        .await
        .unwrap();
    let _sent = producer.send(command("poison", 0, "a", "13")).await.unwrap();
    let _sent = producer.send(Record::tombstone("poison", "a")).await.unwrap();
    let _sent = producer.send(command("poison", 0, "a", "2")).await.unwrap();
    let mut settings = shared().settings("poison");
    settings.dead_letter_topic = "poison_dead".to_owned();
    let recorder = Recorder::answering(|payload| match payload {
        "13" => Handled::rejected("unlucky"),
        _ => Handled::Done,
    });
    let member = Member::start(&settings, &recorder);
    member.until("both are done", |counters| counters.snapshot().processed == 2).await;
    assert_eq!(recorder.payloads(), ["1", "2"]);
    let counts = member.counters.snapshot();
    assert_eq!((counts.rejected, counts.dead_letters, counts.processed), (3, 3, 2));
    member.stop().await;
    let kafka = shared().client().await;
    let reader = kafka.consumer("poison_dead").auto_offset_reset(AutoOffsetReset::Earliest);
    let reader = reader.build().await.unwrap();
    reader.subscribe(["poison_dead"]).await.unwrap();
    let mut letters = Vec::new();
    while letters.len() < 3 {
        let record = reader.recv().await.unwrap().unwrap();
        let header = |name: &str| {
            let found = record.headers.iter().find(|(header, _)| header == name);
            found.map(|(_, value)| String::from_utf8_lossy(value.as_ref().unwrap()).into_owned())
        };
        let value = record.value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(header("tidings-topic").unwrap(), "poison");
        assert_eq!(record.key_str(), Some("a"));
        letters.push((value, header("tidings-reason").unwrap(), header("trace")));
    }
    assert_eq!(letters[0].0.as_deref(), Some("no JSON"));
    assert!(letters[0].1.contains("no JSON object"), "{letters:?}");
    assert_eq!(letters[0].2.as_deref(), Some("t"));
    assert_eq!(letters[1].1, "unlucky");
    assert_eq!(letters[2].0, None);
    reader.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_away_stops_the_key_and_loses_nothing() {
    produce("away", 4, 300).await;
    let failures = Arc::new(AtomicU32::new(0));
    let counted = failures.clone();
    let recorder = Recorder::answering(move |payload| {
        let is_away = payload.contains("\"n\":150}") && counted.load(Ordering::Relaxed) < 12;
        match is_away {
            true => {
                counted.fetch_add(1, Ordering::Relaxed);
                Handled::wait("the broker is away")
            }
            false => Handled::Done,
        }
    });
    let member = Member::start(&shared().settings("away"), &recorder);
    let payloads = recorder.wait_for(1200).await;
    assert!(member.counters.snapshot().retries >= 12);
    member.until("no lag", |counters| counters.snapshot().lag == 0).await;
    member.stop().await;
    assert_eq!(payloads.len(), 1200);
    check(&payloads, 4, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_stays_in_kafka_while_the_handler_is_away() {
    produce("backlog", 4, 2_000).await;
    let recorder = Recorder::answering(|_| Handled::wait("away"));
    let mut settings = shared().settings("backlog");
    settings.partition_queue_max_size = 100;
    let member = Member::start(&settings, &recorder);
    member.until("all is lag", |counters| counters.snapshot().lag == 8_000).await;
    // One record of each key has started; all others wait behind it or in Kafka.
    assert!(member.counters.snapshot().retries > 0);
    member.stop().await;
    assert!(recorder.payloads().is_empty());
    let recorder = Recorder::new();
    let member = Member::start(&settings, &recorder);
    check(&recorder.wait_for(8_000).await, 4, 2_000);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publications_and_change_events_are_decoded() {
    let producer = shared().topics(&[("forms_data", 1), ("forms_events", 1)]).await;
    let data = Record::new("forms_data", "raw").header("centrifugo-channels", "a,b");
    let _sent = producer.send(data).await.unwrap();
    let event = r#"{"before":null,"after":{"id":1},"op":"c","source":{"db":"shop","table":"t"}}"#;
    let _sent = producer.send(Record::new("forms_events", event).key("1")).await.unwrap();
    let _sent = producer.send(Record::tombstone("forms_events", "1")).await.unwrap();
    let recorder = Recorder::new();
    let mut settings = shared().settings("forms_data");
    settings.form = KafkaForm::Records(RecordForm::PublicationData(PublicationHeaders::default()));
    let member = Member::start(&settings, &recorder);
    assert_eq!(recorder.wait_for(1).await, ["raw"]);
    member.stop().await;
    let recorder = Recorder::new();
    let mut settings = shared().settings("forms_events");
    let channel = "db:{table}:{id}".parse().unwrap();
    settings.form = KafkaForm::ChangeEvents(ChangeEvents { channel });
    let member = Member::start(&settings, &recorder);
    member.until("the end of the key", |counters| counters.snapshot().processed == 2).await;
    let payloads = recorder.payloads();
    assert!(payloads[0].starts_with(r#"{"operation":"insert","database":"shop""#), "{payloads:?}");
    member.stop().await;
}
