//! The WebSocket endpoint: turns an HTTP request into a connection on a worker.
//!
//! Invariant: every refusal has a status and one line of text, and is counted.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONNECTION, CONTENT_TYPE, ORIGIN, RETRY_AFTER,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::response::Response;
use engine::PingStyle;
use engine::limits::ID_BYTES_MAX;
use engine::rates::Bucket;
use hyper::body::Body as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};
use wire::protocol::{Codec, ErrorReply};
use wire::websocket::deflate::Window;
use wire::websocket::handshake::{self, Accepted, HandshakeRefusal, RequestHead};

use super::RequestOrigin;
use super::stream::HttpStream;
use crate::admission::Admission;
use crate::admission::unauthenticated::Unauthenticated;
use crate::backends::Backends;
use crate::client_address::ClientAddress;
use crate::clock::ServerClock;
use crate::cluster::node::Node;
use crate::config::OriginPolicy;
use crate::limits::throttle::{Throttle, set_retry_after};
use crate::telemetry::{HttpCounts, RefusalSubject, shown};
use crate::worker::{Arrival, ArrivedStream, WorkerHandle};

/// State of the WebSocket endpoint.
pub(crate) struct Sockets {
    pub(crate) node: Arc<Node>,
    pub(crate) workers: Arc<Vec<WorkerHandle>>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) origins: OriginPolicy,
    pub(crate) clock: ServerClock,
    pub(crate) counts: Arc<HttpCounts>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) allows_deflate: bool,
    pub(crate) user_header: Option<String>,
    pub(crate) backends: Arc<Backends>,
}

/// A request that passed all checks.
struct Admitted {
    unauthenticated: Unauthenticated,
    accepted: Accepted,
    user: Option<Box<str>>,
    headers: Option<Arc<HeaderMap>>,
}

/// Status and text of a refusal.
type Reason = (StatusCode, String);

/// Encoding and pings that a request selects.
struct Choice {
    codec: Codec,
    deflate: Option<Window>,
    ping_style: PingStyle,
}

const JSON: &str = "centrifuge-json";
const PROTOBUF: &str = "centrifuge-protobuf";

/// Answers a request for the WebSocket endpoint.
pub(crate) async fn upgrade(State(sockets): State<Arc<Sockets>>, mut request: Request) -> Response {
    let origin: Option<&RequestOrigin> = request.extensions().get();
    let address = origin.expect("the listener gives every request one").client;
    if let Err(limited) = sockets.throttle.take_of_address(Bucket::AddressHandshakes, address) {
        sockets.counts.refused(StatusCode::TOO_MANY_REQUESTS.as_u16());
        debug!(%address, "a handshake is refused: too many from this address");
        let text = ErrorReply::from(limited).message;
        let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, &text);
        set_retry_after(&mut response, limited);
        return response;
    }
    let admitted = match sockets.admit(&request, address) {
        Ok(admitted) => admitted,
        Err((status, reason)) => {
            sockets.counts.refused(status.as_u16());
            debug!(%status, reason, "a handshake is refused");
            return refuse(status, &reason);
        }
    };
    let choice = choose(&request, &admitted.accepted);
    let response = accept(&admitted.accepted, choice.codec);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(move_to_worker(sockets, upgrade, choice, admitted));
    response
}

impl Sockets {
    /// Checks a request. The Origin is checked first, so that a page can learn from a plain request
    /// why its WebSocket is refused.
    fn admit(&self, request: &Request, address: ClientAddress) -> Result<Admitted, Reason> {
        if !self.node.is_ready() {
            let text = "the server is shutting down; reconnect";
            return Err((StatusCode::SERVICE_UNAVAILABLE, text.to_owned()));
        }
        self.check_origin(request)?;
        let head = RequestHead {
            method: request.method().as_str(),
            is_http_1_1: request.version() >= Version::HTTP_11,
            headers: request
                .headers()
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes()))
                .collect(),
        };
        let mut accepted = handshake::accept(&head).map_err(|refusal| {
            let status = StatusCode::from_u16(refusal.status()).expect("a status of our own");
            (status, refusal.to_string())
        })?;
        // Whether its bytes are those of a body or frames, a proxy in front may see in another way.
        if !request.body().is_end_stream() {
            let text = "a WebSocket handshake has no body";
            return Err((StatusCode::BAD_REQUEST, text.to_owned()));
        }
        accepted.deflate = accepted.deflate.filter(|_| self.allows_deflate);
        let user = self.user(request)?;
        let now_ms = self.clock.monotonic_ms();
        let unauthenticated = self.admission.handshake(now_ms, address).ok_or_else(|| {
            let text = "too many connections; try again later";
            (StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
        })?;
        let headers = self.backends.kept_headers(request.headers());
        Ok(Admitted { unauthenticated, accepted, user, headers })
    }

    fn check_origin(&self, request: &Request) -> Result<(), Reason> {
        let origin = request.headers().get(ORIGIN);
        // An origin that is not text matches no pattern.
        let origin = origin.map(|origin| origin.to_str().unwrap_or("\u{fffd}"));
        if self.origins.allows(origin) {
            return Ok(());
        }
        let peer: Option<&RequestOrigin> = request.extensions().get();
        self.note_origin(origin.unwrap_or_default(), peer.map(|peer| peer.client));
        let text = "pages of this Origin may not connect (client.allowed_origins)";
        Err((StatusCode::FORBIDDEN, text.to_owned()))
    }

    fn note_origin(&self, origin: &str, address: Option<ClientAddress>) {
        if let Some(left_out) = self.counts.refusals.note(RefusalSubject::Origin, "not_allowed") {
            let (origin, key) = (shown(origin), "client.allowed_origins");
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            warn!(
                origin,
                key,
                address,
                left_out,
                "pages of this Origin may not connect; list it to admit them"
            );
        }
    }

    /// The user that a reverse proxy has authenticated (`client.user_id_http_header`). A duplicate
    /// header is refused, because one of the two was sent by the client.
    fn user(&self, request: &Request) -> Result<Option<Box<str>>, Reason> {
        let Some(name) = &self.user_header else { return Ok(None) };
        let mut values = request.headers().get_all(name).iter();
        let value = values.next();
        if values.next().is_some() {
            return Err((StatusCode::BAD_REQUEST, format!("the header {name} is there twice")));
        }
        let text = value.map(|value| std::str::from_utf8(value.as_bytes())).transpose();
        let text = text.map_err(|_| {
            (StatusCode::BAD_REQUEST, format!("the header {name} is not a text in UTF-8"))
        })?;
        let user = text.map(str::trim).filter(|user| !user.is_empty());
        // Every admitted user can be revoked, so its id has at most the length of a revocation's.
        if user.is_some_and(|user| user.len() > ID_BYTES_MAX) {
            let reason =
                format!("the user in the header {name} has more than {ID_BYTES_MAX} bytes");
            return Err((StatusCode::BAD_REQUEST, reason));
        }
        Ok(user.map(Box::from))
    }
}

/// Codec and ping style. A Protobuf subprotocol or query parameter selects Protobuf.
fn choose(request: &Request, accepted: &Accepted) -> Choice {
    let query = request.uri().query().unwrap_or_default();
    let has = |pair: &str| query.split('&').any(|one| one == pair);
    let is_protobuf = accepted.subprotocols.iter().any(|name| name == PROTOBUF)
        || has("cf_protocol=protobuf")
        || has("format=protobuf");
    Choice {
        codec: if is_protobuf { Codec::Protobuf } else { Codec::Json },
        deflate: accepted.deflate.map(|negotiated| negotiated.window),
        ping_style: match has("cf_ws_frame_ping_pong=true") {
            true => PingStyle::Frame,
            false => PingStyle::Protocol,
        },
    }
}

fn accept(accepted: &Accepted, codec: Codec) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let subprotocol = match codec {
        Codec::Json => JSON,
        Codec::Protobuf => PROTOBUF,
    };
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let mut insert = |name, text: &str| {
        let value = HeaderValue::from_str(text).expect("made of plain characters");
        headers.insert(name, value);
    };
    insert(SEC_WEBSOCKET_ACCEPT, &accepted.accept);
    if accepted.subprotocols.iter().any(|offered| offered == subprotocol) {
        insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    if let Some(deflate) = &accepted.deflate {
        insert(SEC_WEBSOCKET_EXTENSIONS, &deflate.header());
    }
    response
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{reason}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // Pages of other origins may read the reason; the response contains nothing else.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if status.as_u16() == HandshakeRefusal::Version.status() {
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    if status.as_u16() == HandshakeRefusal::Method.status() {
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}

/// Takes the socket from hyper when the 101 is written and passes it to the least loaded worker.
async fn move_to_worker(
    sockets: Arc<Sockets>,
    upgrade: OnUpgrade,
    choice: Choice,
    admitted: Admitted,
) {
    let taken = match upgrade.await {
        Ok(upgraded) => take_socket(upgraded),
        Err(error) => return debug!(%error, "connection lost during the handshake"),
    };
    let (stream, early) = match taken {
        Ok(taken) => taken,
        Err(error) => return warn!(%error, "socket could not be detached from hyper"),
    };
    let arrival = Arrival {
        stream,
        early,
        codec: choice.codec,
        deflate: choice.deflate,
        ping_style: choice.ping_style,
        user: admitted.user,
        headers: admitted.headers,
        unauthenticated: admitted.unauthenticated,
    };
    let worker = sockets.workers.iter().min_by_key(|worker| worker.load());
    worker.expect("there is at least one worker").hand_over(arrival);
}

fn take_socket(upgraded: Upgraded) -> std::io::Result<(ArrivedStream, Vec<u8>)> {
    let upgraded = match upgraded.downcast::<TokioIo<HttpStream<TcpStream>>>() {
        Ok(parts) => {
            let tcp = parts.io.into_inner().into_inner().into_std()?;
            return Ok((ArrivedStream::Plain(tcp), parts.read_buf.to_vec()));
        }
        Err(upgraded) => upgraded,
    };
    let parts = upgraded
        .downcast::<TokioIo<TlsStream<HttpStream<TcpStream>>>>()
        .expect("a listener serves TCP or TLS over TCP");
    let (tcp, tls) = parts.io.into_inner().into_inner();
    let tcp = tcp.into_inner().into_std()?;
    Ok((ArrivedStream::Tls(tcp, Box::new(tls)), parts.read_buf.to_vec()))
}
