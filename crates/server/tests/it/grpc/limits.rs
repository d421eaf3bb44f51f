//! What callers cannot exceed over gRPC.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use tonic::Code;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding::Gzip;
use tonic_prost::ProstCodec;

use super::client::compatible as pb;
use super::{address, channel, client, publication, started, with_key};

#[test]
fn a_key_has_its_rate_and_callers_are_told_when_to_come_back() {
    let fixture = started(&[("limits.api_key.requests", "1/h burst 3")]);
    fixture.runtime.block_on(async {
        let mut client = client(&fixture).await;
        client.publish(with_key(publication("open:x", "1"))).await.unwrap();
        // Each command of a batch counts.
        let publish = Some(publication("open:x", "2"));
        let command = pb::Command { publish, ..pb::Command::default() };
        let request = pb::BatchRequest { commands: vec![command; 3], parallel: false };
        let replies = client.batch(with_key(request)).await.unwrap().into_inner().replies;
        let codes: Vec<_> =
            replies.iter().map(|one| one.error.as_ref().map_or(0, |error| error.code)).collect();
        assert_eq!(codes, [0, 0, 111]);
        let refused = client.publish(with_key(publication("open:x", "3"))).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let pause = refused.metadata().get("grpc-retry-pushback-ms").unwrap();
        let pause: u64 = pause.to_str().unwrap().parse().unwrap();
        assert!((3_000_000..=3_600_000).contains(&pause), "{pause}");
    });
}

#[test]
fn a_message_is_bounded_before_and_after_decompression() {
    let fixture = started(&[("grpc_api.max_receive_message_size", "100000")]);
    fixture.runtime.block_on(async {
        let data = format!("\"{}\"", "x".repeat(100_000));
        let plain = client(&fixture).await.publish(with_key(publication("open:x", &data))).await;
        assert!(matches!(plain.unwrap_err().code(), Code::OutOfRange | Code::ResourceExhausted));
        // A few hundred bytes on the wire.
        let mut packed = client(&fixture).await.send_compressed(Gzip);
        let refused = packed.publish(with_key(publication("open:x", &data))).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        packed.publish(with_key(publication("open:x", "1"))).await.unwrap();
    });
}

#[test]
fn what_is_not_served_is_unimplemented_and_the_rest_goes_on() {
    let fixture = started(&[]);
    fixture.runtime.block_on(async {
        let mut calls = Grpc::new(channel(&fixture).await);
        for path in [
            "/centrifugal.centrifugo.api.CentrifugoApi/MapPublish",
            "/centrifugal.centrifugo.api.CentrifugoApi/SendPushNotification",
            "/some.other.Service/Method",
            // Reflection is off.
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ] {
            calls.ready().await.unwrap();
            let codec = ProstCodec::<pb::InfoRequest, pb::InfoResponse>::default();
            let request = with_key(pb::InfoRequest {});
            let refused = calls.unary(request, path.parse().unwrap(), codec).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unimplemented, "{path}");
        }
        client(&fixture).await.info(with_key(pb::InfoRequest {})).await.unwrap();
    });
    // HTTP/1.1 on this port: an answer of HTTP/2, or the end of the connection.
    let mut stream = TcpStream::connect(address(&fixture)).unwrap();
    stream.write_all(b"POST /api/info HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = Vec::new();
    let _reset = stream.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
}
