//! A Kafka broker for all tests of this binary. It ends with the process.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use consumers::decode::RecordForm;
use consumers::kafka::{KafkaForm, KafkaSettings};
use krafka::admin::{CreateTopicsOptions, NewTopic};
use krafka::producer::Producer;
use krafka::{Kafka, Record};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

pub(crate) struct Broker {
    process: Child,
    pub(crate) port: u16,
    pub(crate) sasl_port: u16,
    pub(crate) tls_port: u16,
    /// PEM of the certificate that the TLS port has.
    pub(crate) certificate: String,
    _folder: TempDir,
}

/// The broker that tests share; each has topics of its own.
pub(crate) fn shared() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(Broker::start)
}

const PATIENCE: Duration = Duration::from_secs(150);

impl Broker {
    fn start() -> Broker {
        let folder = TempDir::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let certificate = params.unwrap().self_signed(&key).unwrap().pem();
        let pem = format!("{}{certificate}", key.serialize_pem());
        std::fs::write(folder.path().join("server.pem"), pem).unwrap();
        let [port, controller, sasl_port, tls_port] = free_ports();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka-broker");
        let ports = [port, controller, sasl_port, tls_port].map(|port| port.to_string());
        let process = Command::new(script)
            .arg(folder.path())
            .args(ports)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut broker =
            Broker { process, port, sasl_port, tls_port, certificate, _folder: folder };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = broker.process.try_wait().unwrap();
            assert!(ended.is_none(), "the broker ended: {ended:?}; try scripts/kafka-broker fetch");
            assert!(began.elapsed() < PATIENCE, "the broker does not start");
            // Its start is no event for us.
            std::thread::sleep(Duration::from_millis(100));
        }
        broker
    }

    pub(crate) async fn client(&self) -> Kafka {
        let address = format!("127.0.0.1:{}", self.port);
        let began = Instant::now();
        loop {
            match Kafka::builder(&address).connect().await {
                Ok(kafka) => return kafka,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
        }
    }

    /// Creates topics, and returns a producer.
    pub(crate) async fn topics(&self, topics: &[(&str, i32)]) -> Producer {
        let kafka = self.client().await;
        let new: Vec<NewTopic> = topics
            .iter()
            .map(|(name, partitions)| NewTopic::new(*name, *partitions, 1).unwrap())
            .collect();
        let began = Instant::now();
        loop {
            // The port opens before the broker has registered.
            match kafka.admin().create_topics(new.clone(), CreateTopicsOptions::default()).await {
                Ok(_) => break,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
        }
        kafka.producer().build().await.unwrap()
    }

    /// Settings for one topic, which is also the name of the group.
    pub(crate) fn settings(&self, topic: &str) -> KafkaSettings {
        KafkaSettings {
            brokers: vec![format!("127.0.0.1:{}", self.port)],
            topics: vec![topic.to_owned()],
            consumer_group: topic.to_owned(),
            instance_id: String::new(),
            session_timeout: Duration::from_secs(6),
            max_poll_records: 100,
            fetch_max_bytes: 1024 * 1024,
            fetch_max_wait: Duration::from_millis(100),
            fetch_read_uncommitted: false,
            partition_queue_max_size: 200,
            dial_timeout: Duration::from_secs(3),
            sasl: None,
            tls: None,
            form: KafkaForm::Records(RecordForm::Command {
                method_header: "centrifugo-method".to_owned(),
            }),
            dead_letter_topic: String::new(),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.process.stdin.take().map(|mut end| end.flush()));
        let _ended = self.process.wait();
    }
}

/// A command for the handler: `publish` with this payload.
pub(crate) fn command(topic: &str, partition: i32, key: &str, payload: &str) -> Record {
    let body = format!(r#"{{"method":"publish","payload":{payload}}}"#);
    Record::new(topic, body).key(key.to_owned()).partition(partition)
}

fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // All are bound at the same time, so that they differ.
    let bound = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    bound.map(|listener| listener.local_addr().unwrap().port())
}
