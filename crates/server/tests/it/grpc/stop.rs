//! TLS, health, and the stop of the server.

use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::compatible::centrifugo_api_client::CentrifugoApiClient;
use super::{address, publication, started, with_key};

#[test]
fn calls_pass_through_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let fixture = started(&[
        ("grpc_api.tls.enabled", "true"),
        ("grpc_api.tls.cert_pem", &made.cert.pem()),
        ("grpc_api.tls.key_pem", &made.signing_key.serialize_pem()),
    ]);
    fixture.runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("https://{}", address(&fixture))).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(made.cert.pem()))
            .domain_name("localhost");
        let channel: Channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        let mut client = CentrifugoApiClient::new(channel);
        let answer = client.publish(with_key(publication("open:x", "1"))).await.unwrap();
        assert_eq!(answer.into_inner().error, None);
    });
}

#[test]
fn health_is_told_until_the_server_stops() {
    let mut fixture = started(&[]);
    let endpoint = format!("http://{}", address(&fixture));
    let server = fixture.server.take().unwrap();
    fixture.runtime.block_on(async {
        let endpoint = Endpoint::from_shared(endpoint).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let mut health = HealthClient::new(channel.clone());
        let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
        let service = "centrifugal.centrifugo.api.CentrifugoApi";
        for name in ["", service] {
            let answer = health.check(ask(name)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving);
        }
        assert_eq!(health.check(ask("other")).await.unwrap_err().code(), Code::NotFound);
        let mut watch = health.watch(ask(service)).await.unwrap().into_inner();
        let first = watch.message().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving);
        let mut client = CentrifugoApiClient::new(channel);
        let answer = client.publish(with_key(publication("kept:x", "1"))).await.unwrap();
        assert_eq!(answer.into_inner().error, None);
        let stopping = tokio::spawn(server.stop());
        // The watch says so, or ends with the server.
        let end = loop {
            match watch.message().await {
                Ok(Some(change)) => assert_eq!(change.status(), ServingStatus::NotServing),
                Ok(None) => break None,
                Err(status) => break Some(status.code()),
            }
        };
        assert!(matches!(end, None | Some(Code::Unavailable)), "{end:?}");
        stopping.await.unwrap();
    });
}
