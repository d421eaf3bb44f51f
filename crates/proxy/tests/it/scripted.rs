//! A backend that does to each request what the test says, byte by byte.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use proxy::{
    Backend, BackendAddress, BackendError, BackendSettings, BinaryData, BreakerSettings,
    CallerHeaders, Forwarding, ProxyQuestion, ProxyReply, ProxyRequest, Share, WhenOpen,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the backend does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Sends these bytes and keeps the connection.
    Send(String),
    /// The same after a while.
    SendLate(Duration, String),
    /// Sends these bytes and closes the connection.
    SendAndClose(String),
    /// Resets the connection.
    Reset,
    /// Sends nothing.
    Hang,
    /// Sends bytes without an end.
    Flood,
}

/// A running backend.
pub(crate) struct Scripted {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    arrived: Arc<Notify>,
}

/// The bytes of a JSON answer with status 200.
pub(crate) fn json(body: &str) -> String {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

/// The bytes of an answer.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

impl Scripted {
    /// Answers the request with this number by what `script` says.
    pub(crate) async fn start(
        script: impl Fn(usize, &str) -> Act + Send + Sync + 'static,
    ) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, arrived) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(Notify::new()));
        let script = Arc::new(script);
        let scripted = Scripted { port, requests: requests.clone(), arrived: arrived.clone() };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (requests, script) = (requests.clone(), script.clone());
                let arrived = arrived.clone();
                tokio::spawn(serve(stream, requests, arrived, move |n, text| script(n, text)));
            }
        });
        scripted
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// Requests so far, head and body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits until this number of requests has arrived.
    pub(crate) async fn wait_for(&self, count: usize) {
        loop {
            let arrived = self.arrived.notified();
            if self.requests().len() >= count {
                return;
            }
            arrived.await;
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    requests: Arc<Mutex<Vec<String>>>,
    arrived: Arc<Notify>,
    script: impl Fn(usize, &str) -> Act,
) {
    while let Some(request) = read_request(&mut stream).await {
        let number = {
            let mut requests = requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        arrived.notify_waiters();
        let is_sent = match script(number, &request) {
            Act::Send(text) => stream.write_all(text.as_bytes()).await.is_ok(),
            Act::SendLate(pause, text) => {
                tokio::time::sleep(pause).await;
                stream.write_all(text.as_bytes()).await.is_ok()
            }
            Act::SendAndClose(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                let _ = stream.shutdown().await;
                false
            }
            Act::Reset => {
                stream.set_zero_linger().unwrap();
                false
            }
            Act::Hang => {
                std::future::pending::<()>().await;
                false
            }
            Act::Flood => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).await;
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
                while stream.write_all(chunk.as_bytes()).await.is_ok() {}
                false
            }
        };
        if !is_sent {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
                return Some(String::from_utf8(bytes).unwrap());
            }
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
    }
}

/// Settings for tests, with a breaker that does not open.
pub(crate) fn settings(url: &str) -> BackendSettings {
    BackendSettings {
        name: "rpc.proxy".to_owned(),
        address: BackendAddress::parse(url).unwrap(),
        timeout: Duration::from_secs(3),
        forwarding: Forwarding::default(),
        static_headers: HeaderMap::new(),
        data: BinaryData::Json,
        includes_meta: false,
        transforms: Vec::new(),
        compression: false,
        tls: None,
        breaker: BreakerSettings {
            error_percent: 101,
            slow_call_ms: 10_000,
            slow_percent: 101,
            window_ms: 10_000,
            calls_min: 3,
            open_ms: 5_000,
            probes: 1,
        },
        concurrency: 8,
        queue: 100,
        share: Share::Off,
        when_open: WhenOpen::Deny,
    }
}

/// A request of client `c1` of user `42`.
pub(crate) fn request(question: ProxyQuestion) -> ProxyRequest {
    ProxyRequest {
        client: "c1".to_owned(),
        transport: "websocket",
        protocol: "json",
        user: "42".to_owned(),
        meta: Bytes::from_static(br#"{"tenant":7}"#),
        question,
    }
}

pub(crate) fn rpc() -> ProxyRequest {
    let data = Bytes::from_static(b"{}");
    request(ProxyQuestion::Rpc { method: "sum".to_owned(), data })
}

pub(crate) fn subscribe(channel: &str) -> ProxyRequest {
    let (channel, token, data) = (channel.to_owned(), String::new(), Bytes::new());
    request(ProxyQuestion::Subscribe { channel, token, data })
}

pub(crate) async fn call(
    backend: &Backend,
    request: ProxyRequest,
) -> Result<ProxyReply, BackendError> {
    backend.call(request, &CallerHeaders::default()).await
}

pub(crate) fn header_map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs.map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
}
