//! The server API over gRPC, with a client generated from its description.

mod client;
mod limits;
mod methods;
mod stop;

use std::net::SocketAddr;

use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use self::client::compatible as pb;
use self::client::compatible::centrifugo_api_client::CentrifugoApiClient;
use crate::support::Fixture;

const KEY: &str = "a key for gRPC";

/// Settings that serve gRPC.
const SERVED: [(&str, &str); 4] = [
    ("grpc_api.enabled", "true"),
    ("grpc_api.address", "127.0.0.1"),
    ("grpc_api.port", "0"),
    ("grpc_api.key", KEY),
];

fn started(settings: &[(&str, &str)]) -> Fixture {
    Fixture::with(&[&SERVED, settings].concat())
}

fn address(fixture: &Fixture) -> SocketAddr {
    let server = fixture.server.as_ref().unwrap();
    server.grpc_addresses()[0].to_string().parse().unwrap()
}

async fn channel(fixture: &Fixture) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", address(fixture))).unwrap();
    endpoint.connect().await.unwrap()
}

async fn client(fixture: &Fixture) -> CentrifugoApiClient<Channel> {
    CentrifugoApiClient::new(channel(fixture).await)
}

/// A request with the key.
fn with_key<T>(message: T) -> Request<T> {
    with(message, &[("authorization", &format!("apikey {KEY}"))])
}

fn with<T>(message: T, metadata: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, MetadataValue::try_from(*value).unwrap());
    }
    request
}

fn publication(channel: &str, data: &str) -> pb::PublishRequest {
    let (channel, data) = (channel.to_owned(), data.to_owned().into());
    pb::PublishRequest { channel, data, ..pb::PublishRequest::default() }
}

#[test]
fn a_call_needs_a_key_and_what_the_key_permits() {
    let desk = r#"[{"name": "desk", "key": "a key for the desk", "methods": ["publish"], "channels": ["open:*"]}]"#;
    let fixture = started(&[("http_api.keys", desk)]);
    fixture.runtime.block_on(async {
        let mut client = client(&fixture).await;
        let mut code = async |authorization: &str, channel: &str| -> Result<u32, Code> {
            let metadata = [("authorization", authorization)];
            let metadata = if authorization.is_empty() { &[][..] } else { &metadata };
            let answer = client.publish(with(publication(channel, "{}"), metadata)).await;
            let answer = answer.map_err(|status| status.code())?;
            Ok(answer.into_inner().error.map_or(0, |error| error.code))
        };
        assert_eq!(code("", "open:x").await, Err(Code::Unauthenticated));
        assert_eq!(code("apikey wrong", "open:x").await, Err(Code::Unauthenticated));
        assert_eq!(code(KEY, "open:x").await, Err(Code::Unauthenticated));
        assert_eq!(code(&format!("ApiKey {KEY}"), "open:x").await, Ok(0));
        // http_api.key is for HTTP if gRPC has its own; the named keys are for both.
        let of_http = format!("apikey {}", crate::support::API_KEY);
        assert_eq!(code(&of_http, "open:x").await, Err(Code::Unauthenticated));
        assert_eq!(code("apikey a key for the desk", "open:x").await, Ok(0));
        assert_eq!(code("apikey a key for the desk", "closed:x").await, Ok(103));
        let metadata = [("authorization", "apikey a key for the desk")];
        let answer = client.info(with(pb::InfoRequest {}, &metadata)).await.unwrap();
        assert_eq!(answer.into_inner().error.map(|error| error.code), Some(103));
    });
    let (_, _, page) = fixture.request("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    for line in [
        r#"tidings_api_key_calls_total{key="grpc",method="publish"} 1"#,
        r#"tidings_api_key_calls_total{key="desk",method="publish"} 2"#,
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
}

#[test]
fn without_a_key_of_its_own_it_takes_that_of_http() {
    let settings = [("grpc_api.key", "")];
    let fixture = started(&settings);
    fixture.runtime.block_on(async {
        let authorization = format!("apikey {}", crate::support::API_KEY);
        let request = with(publication("open:x", "{}"), &[("authorization", &*authorization)]);
        let answer = client(&fixture).await.publish(request).await.unwrap().into_inner();
        assert_eq!(answer.error, None);
    });
}

#[test]
fn an_error_is_in_the_response_or_a_status() {
    let fixture = started(&[]);
    fixture.runtime.block_on(async {
        let mut client = client(&fixture).await;
        let answer = client.publish(with_key(publication("none:x", "{}"))).await.unwrap();
        let error = answer.into_inner().error.unwrap();
        assert_eq!((error.code, &*error.message), (102, "unknown channel"));
        let mut status = async |request: pb::PublishRequest| -> Status {
            let mut request = with_key(request);
            request.metadata_mut().insert("x-centrifugo-error-mode", "transport".parse().unwrap());
            client.publish(request).await.unwrap_err()
        };
        let unknown = status(publication("none:x", "{}")).await;
        assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "unknown channel"));
        // The error itself is in the details.
        let details = unknown.details();
        let name = b"type.googleapis.com/centrifugal.centrifugo.api.Error";
        assert!(details.windows(name.len()).any(|part| part == name), "{details:?}");
        assert_eq!(status(publication("", "{}")).await.code(), Code::InvalidArgument);
        assert_eq!(status(publication("open:x", "")).await.code(), Code::InvalidArgument);
    });
    let fixture = started(&[("grpc_api.error_mode", "transport")]);
    fixture.runtime.block_on(async {
        let mut client = client(&fixture).await;
        let answer = client.publish(with_key(publication("none:x", "{}"))).await;
        assert_eq!(answer.unwrap_err().code(), Code::NotFound);
    });
}
