//! Calls over gRPC: unary calls of the service in `proto/proxy.proto`.
//!
//! Invariant: messages pass as bytes; an answer is read up to a bound.

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper::Uri;
use hyper::header::HeaderMap;
use hyper::http::uri::PathAndQuery;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use crate::failure::{BackendError, FailureKind};
use crate::http::{RawAnswer, connector, failure_of, max_age, replace, retry_after};
use crate::limits::{ANSWER_BYTES_MAX, IDLE_TIMEOUT, PING_INTERVAL, PING_TIMEOUT};
use crate::request::ProxyMethod;
use crate::settings::BackendSettings;

/// The connection to a gRPC service.
pub(crate) struct GrpcEndpoint {
    client: tonic::client::Grpc<Client<HttpsConnector<HttpConnector>, tonic::body::Body>>,
    /// Metadata of every call.
    metadata: HeaderMap,
}

impl GrpcEndpoint {
    pub(crate) fn new(settings: &BackendSettings, authority: &str) -> GrpcEndpoint {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http2_only(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector(settings));
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let origin: Uri = format!("{scheme}://{authority}").parse().expect("a checked authority");
        let mut client = tonic::client::Grpc::with_origin(client, origin)
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        if settings.compression {
            client = client
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip);
        }
        GrpcEndpoint { client, metadata: settings.static_headers.clone() }
    }

    /// Sends a request and reads the answer.
    pub(crate) async fn call(
        &self,
        method: ProxyMethod,
        body: Bytes,
        forwarded: &HeaderMap,
    ) -> Result<RawAnswer, BackendError> {
        let mut metadata = self.metadata.clone();
        replace(&mut metadata, forwarded);
        let mut request = Request::new(body);
        *request.metadata_mut() = MetadataMap::from_headers(metadata);
        let mut client = self.client.clone();
        client.ready().await.map_err(|error| failure_of(&error))?;
        let answer = client.unary(request, path(method), RawCodec).await;
        let answer = answer.map_err(|status| failure_of_status(&status))?;
        let max_age = max_age(answer.metadata().as_ref());
        Ok(RawAnswer { body: answer.into_inner(), max_age, other_type: None })
    }
}

fn path(method: ProxyMethod) -> PathAndQuery {
    PathAndQuery::from_static(match method {
        ProxyMethod::Connect => "/centrifugal.centrifugo.proxy.CentrifugoProxy/Connect",
        ProxyMethod::Refresh => "/centrifugal.centrifugo.proxy.CentrifugoProxy/Refresh",
        ProxyMethod::Subscribe => "/centrifugal.centrifugo.proxy.CentrifugoProxy/Subscribe",
        ProxyMethod::Publish => "/centrifugal.centrifugo.proxy.CentrifugoProxy/Publish",
        ProxyMethod::SubRefresh => "/centrifugal.centrifugo.proxy.CentrifugoProxy/SubRefresh",
        ProxyMethod::Rpc => "/centrifugal.centrifugo.proxy.CentrifugoProxy/RPC",
    })
}

/// The failure behind a status: that of the connection, if there was none.
fn failure_of_status(status: &Status) -> BackendError {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return failure_of(error);
        }
        source = error.source();
    }
    let retry_after = retry_after(status.metadata().as_ref());
    let is_pause = retry_after.is_some()
        && matches!(status.code(), Code::ResourceExhausted | Code::Unavailable);
    let kind = match status.code() {
        _ if is_pause => FailureKind::Throttled,
        Code::DeadlineExceeded => FailureKind::Timeout,
        Code::OutOfRange => FailureKind::TooLarge,
        _ => FailureKind::Status,
    };
    let detail = format!("status {:?}: {}", status.code(), status.message());
    let retry_after = retry_after.filter(|_| is_pause);
    BackendError { retry_after, ..BackendError::new(kind, detail) }
}

/// Passes messages as bytes.
#[derive(Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
