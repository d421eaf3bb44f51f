//! The consumer of JetStream against a real server, which each test starts for itself.

use std::collections::HashSet;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use consumers::decode::{PublicationHeaders, RecordForm};
use consumers::nats_jetstream::{
    self, DeliverPolicy, NatsConsumerSettings, NatsConsumerTls, NatsLogin,
};
use consumers::{
    Body, ConsumedMessage, ConsumerCounters, ConsumerTask, Handled, Handler, StopTrigger,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);

struct NatsServer {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl NatsServer {
    fn start() -> NatsServer {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = NatsServer::spawn(&folder, port);
        NatsServer { folder, port, child }
    }

    fn spawn(folder: &tempfile::TempDir, port: u16) -> Child {
        Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "--user", "push", "--pass", "right"])
            .arg("-js")
            .arg("-sd")
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server; apt-get install nats-server")
    }

    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = NatsServer::spawn(&self.folder, self.port);
    }

    async fn client(&self) -> Client {
        let connect = async {
            loop {
                let options = async_nats::ConnectOptions::new()
                    .user_and_password("push".to_owned(), "right".to_owned());
                match options.connect(format!("127.0.0.1:{}", self.port)).await {
                    Ok(client) => return client,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, connect).await.expect("NATS starts")
    }

    /// Creates the stream `orders`.
    async fn create_stream(&self, client: &Client) {
        let body = json!({"name": "orders", "subjects": ["orders.>"], "storage": "file"});
        let create = async {
            loop {
                let reply =
                    client.request("$JS.API.STREAM.CREATE.orders", body.to_string().into()).await;
                if let Ok(reply) = reply {
                    let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
                    assert!(reply.get("error").is_none(), "{reply}");
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, create).await.expect("JetStream starts");
    }

    fn settings(&self) -> NatsConsumerSettings {
        NatsConsumerSettings {
            url: format!("nats://127.0.0.1:{}", self.port),
            login: NatsLogin::User("push".to_owned(), "right".to_owned()),
            tls: NatsConsumerTls::default(),
            stream: "orders".to_owned(),
            subjects: Vec::new(),
            durable: "tidings".to_owned(),
            deliver: DeliverPolicy::All,
            max_ack_pending: 100,
            uses_existing: false,
            form: RecordForm::Command { method_header: "centrifugo-method".to_owned() },
            dead_letter_subject: String::new(),
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Records payloads; rejects those with `bad`, and answers the first ones as `script` says.
#[derive(Default)]
struct Recorder {
    payloads: Mutex<Vec<String>>,
    script: Mutex<Vec<Handled>>,
}

impl Handler for Recorder {
    async fn handle(&self, message: &ConsumedMessage) -> Handled {
        let payload = match &message.body {
            Body::Command { payload, .. } => payload.clone(),
            Body::Publication(publication) => {
                assert_eq!(publication.channels, ["a", "b"]);
                publication.data.clone()
            }
        };
        let payload = String::from_utf8(payload.into()).unwrap();
        if payload.contains("bad") {
            return Handled::rejected("it is bad");
        }
        if let Some(answer) = self.script.lock().unwrap().pop() {
            return answer;
        }
        self.payloads.lock().unwrap().push(payload);
        Handled::Done
    }
}

struct Running {
    counters: Arc<ConsumerCounters>,
    stop: StopTrigger,
    handle: JoinHandle<()>,
}

impl Running {
    fn start(settings: NatsConsumerSettings, recorder: &Arc<Recorder>) -> Running {
        let (stop, signal) = StopTrigger::new();
        let counters = Arc::<ConsumerCounters>::default();
        let task = ConsumerTask { name: "shop".into(), counters: counters.clone(), stop: signal };
        let handle = tokio::spawn(nats_jetstream::run(task, settings, recorder.clone()));
        Running { counters, stop, handle }
    }

    async fn until(&self, holds: impl Fn(&ConsumerCounters) -> bool) {
        let waiting = async {
            while !holds(&self.counters) {
                // Counters are read by scrapes and have no events.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("{:?}", self.counters.snapshot()));
    }

    async fn stop(self) {
        self.stop.stop();
        self.handle.await.unwrap();
    }
}

async fn send(client: &Client, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let body = json!({"method": "publish", "payload": {"n": n}}).to_string();
        client.request("orders.new", body.into()).await.unwrap();
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("{{\"n\":{n}}}")).collect()
}

impl Recorder {
    fn has(&self, number: u32) -> bool {
        self.payloads.lock().unwrap().contains(&format!("{{\"n\":{number}}}"))
    }

    /// The payloads without those delivered again: a server that is killed may have lost the newest
    /// acknowledgements.
    fn first_deliveries(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let payloads = self.payloads.lock().unwrap();
        payloads.iter().filter(|payload| seen.insert(payload.as_str())).cloned().collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_handled_in_order_and_acknowledged_once_they_took_effect() {
    let mut server = NatsServer::start();
    let client = server.client().await;
    server.create_stream(&client).await;
    send(&client, 0..250).await;
    let recorder = Arc::new(Recorder::default());
    *recorder.script.lock().unwrap() = vec![Handled::wait("the broker is away"); 3];
    let first = Running::start(server.settings(), &recorder);
    first.until(|counters| counters.snapshot().processed == 250).await;
    assert_eq!(*recorder.payloads.lock().unwrap(), numbers(0..250));
    assert_eq!(first.counters.snapshot().retries, 3);
    first.stop().await;
    // The durable consumer goes on behind them, also after a restart of the server.
    send(&client, 250..260).await;
    server.restart();
    let second = Running::start(server.settings(), &recorder);
    second.until(|_| recorder.has(259)).await;
    assert_eq!(recorder.first_deliveries(), numbers(0..260));
    server.restart();
    let client = server.client().await;
    server.create_stream(&client).await;
    send(&client, 260..270).await;
    second.until(|_| recorder.has(269)).await;
    assert_eq!(recorder.first_deliveries(), numbers(0..270));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_can_never_be_handled_is_a_dead_letter() {
    let server = NatsServer::start();
    let client = server.client().await;
    server.create_stream(&client).await;
    let mut dead = client.subscribe("dead").await.unwrap();
    for body in ["no json", r#"{"method":"publish","payload":{"bad":1}}"#] {
        client.request("orders.new", body.into()).await.unwrap();
    }
    send(&client, 0..1).await;
    let recorder = Arc::new(Recorder::default());
    let settings =
        NatsConsumerSettings { dead_letter_subject: "dead".to_owned(), ..server.settings() };
    let consumer = Running::start(settings, &recorder);
    consumer.until(|counters| counters.snapshot().processed == 1).await;
    let snapshot = consumer.counters.snapshot();
    assert_eq!((snapshot.rejected, snapshot.dead_letters), (2, 2));
    for (body, reason) in [("no json", "the body is no JSON object"), ("{\"method\"", "it is bad")]
    {
        let letter = futures_util::StreamExt::next(&mut dead).await.unwrap();
        assert!(letter.payload.starts_with(body.as_bytes()));
        let error = letter.headers.unwrap().get("tidings-error").unwrap().to_string();
        assert!(error.starts_with(reason), "{error}");
    }
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_make_a_body_a_publication() {
    let server = NatsServer::start();
    let client = server.client().await;
    server.create_stream(&client).await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("centrifugo-channels", "a,b");
    client.publish_with_headers("orders.new", headers, "data".into()).await.unwrap();
    client.flush().await.unwrap();
    let recorder = Arc::new(Recorder::default());
    let form = RecordForm::PublicationData(PublicationHeaders::default());
    let settings = NatsConsumerSettings { form, ..server.settings() };
    let consumer = Running::start(settings, &recorder);
    consumer.until(|counters| counters.snapshot().processed == 1).await;
    assert_eq!(*recorder.payloads.lock().unwrap(), ["data"]);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_forbidden_is_waited_for() {
    let server = NatsServer::start();
    let recorder = Arc::new(Recorder::default());
    let login = NatsLogin::User("push".to_owned(), "wrong".to_owned());
    let refused = Running::start(NatsConsumerSettings { login, ..server.settings() }, &recorder);
    refused.until(|counters| counters.snapshot().failures >= 1).await;
    refused.stop().await;
    let client = server.client().await;
    let waiting = Running::start(server.settings(), &recorder);
    waiting.until(|counters| counters.snapshot().failures >= 1).await;
    server.create_stream(&client).await;
    send(&client, 0..1).await;
    waiting.until(|counters| counters.snapshot().processed == 1).await;
    waiting.stop().await;
}
