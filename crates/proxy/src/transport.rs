//! How a question travels: JSON over HTTP, or Protobuf over gRPC.
//!
//! Invariant: equal keys of questions mean equal requests to the backend.

use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::header::HeaderMap;

use crate::answers::QuestionKey;
use crate::failure::{BackendError, FailureKind};
use crate::grpc::GrpcEndpoint;
use crate::http::{HttpEndpoint, RawAnswer};
use crate::json::{NotJsonData, read_reply, write_request};
use crate::protobuf;
use crate::reply::ProxyReply;
use crate::request::{ProxyMethod, ProxyRequest};
use crate::settings::{BackendAddress, BackendSettings};

/// The connections to a backend.
pub(crate) enum BackendTransport {
    Http(HttpEndpoint),
    Grpc(GrpcEndpoint),
}

/// An encoded request.
pub(crate) struct EncodedQuestion {
    pub(crate) method: ProxyMethod,
    pub(crate) body: Bytes,
    pub(crate) forwarded: HeaderMap,
}

impl EncodedQuestion {
    /// Names and values are preceded by their length, so that no two questions look alike.
    pub(crate) fn key(&self) -> QuestionKey {
        let mut key = BytesMut::with_capacity(self.body.len() + 64);
        let mut put = |bytes: &[u8]| {
            key.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            key.put_slice(bytes);
        };
        put(self.method.name().as_bytes());
        put(&self.body);
        let mut headers: Vec<_> =
            self.forwarded.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        headers.sort_unstable();
        for (name, value) in headers {
            put(name.as_bytes());
            put(value);
        }
        key.freeze().as_ref().into()
    }
}

impl BackendTransport {
    pub(crate) fn new(settings: &BackendSettings) -> BackendTransport {
        match &settings.address {
            BackendAddress::Http { uri, authorization } => {
                BackendTransport::Http(HttpEndpoint::new(settings, uri, authorization.as_ref()))
            }
            BackendAddress::Grpc { authority } => {
                BackendTransport::Grpc(GrpcEndpoint::new(settings, authority))
            }
        }
    }

    /// Encodes a request.
    pub(crate) fn question(
        &self,
        request: &ProxyRequest,
        forwarded: HeaderMap,
        settings: &BackendSettings,
    ) -> Result<EncodedQuestion, BackendError> {
        let body = match self {
            BackendTransport::Http(_) => {
                write_request(request, settings.data).map_err(|NotJsonData| {
                    let detail = "the data of a client is not JSON; see binary_encoding";
                    BackendError::new(FailureKind::NotJson, detail)
                })?
            }
            BackendTransport::Grpc(_) => protobuf::write_request(request, settings.data),
        };
        Ok(EncodedQuestion { method: request.method(), body: body.into(), forwarded })
    }

    pub(crate) async fn call(&self, question: &EncodedQuestion) -> Result<RawAnswer, BackendError> {
        match self {
            BackendTransport::Http(endpoint) => {
                endpoint.call(question.body.clone(), &question.forwarded).await
            }
            BackendTransport::Grpc(endpoint) => {
                let EncodedQuestion { method, body, forwarded } = question;
                endpoint.call(*method, body.clone(), forwarded).await
            }
        }
    }

    pub(crate) fn read(
        &self,
        method: ProxyMethod,
        answer: &RawAnswer,
    ) -> Result<ProxyReply, BackendError> {
        match (self, &answer.other_type) {
            (BackendTransport::Http(_), None) => read_reply(method, &answer.body),
            (BackendTransport::Http(_), Some(kind)) => {
                read_reply(method, &answer.body).map_err(|error| {
                    let detail =
                        format!("the answer has the content type {kind:?}, and {}", error.detail);
                    BackendError::new(FailureKind::ContentType, detail)
                })
            }
            (BackendTransport::Grpc(_), _) => protobuf::read_reply(method, &answer.body),
        }
    }
}
