//! Requests and replies through the generated messages.

use super::*;

fn request(question: ProxyQuestion) -> ProxyRequest {
    ProxyRequest {
        client: "c1".to_owned(),
        transport: "websocket",
        protocol: "protobuf",
        user: "42".to_owned(),
        meta: Bytes::from_static(b"{}"),
        question,
    }
}

#[test]
fn requests_are_the_messages() {
    let data = Bytes::from_static(&[0, 255]);
    let question = ProxyQuestion::Publish { channel: "a".to_owned(), data };
    let plain = write_request(&request(question.clone()), BinaryData::Json);
    let plain = messages::PublishRequest::decode(&plain[..]).unwrap();
    assert_eq!((&plain.data[..], &*plain.encoding), (&[0, 255][..], "json"));
    assert_eq!((&*plain.user, &*plain.channel, &plain.meta[..]), ("42", "a", &b"{}"[..]));
    let base64 = write_request(&request(question), BinaryData::Base64);
    let base64 = messages::PublishRequest::decode(&base64[..]).unwrap();
    assert_eq!((&*base64.b64data, base64.data.len(), &*base64.encoding), ("AP8=", 0, "binary"));
}

#[test]
fn replies_are_read() {
    let read = |method, message: Vec<u8>| read_reply(method, &message.into());
    let on = messages::BoolValue { value: true };
    let r#override = messages::SubscribeOptionOverride { presence: Some(on), ..Default::default() };
    let result = messages::SubscribeResult {
        expire_at: 7,
        b64info: "YWI=".to_owned(),
        r#override: Some(r#override),
        ..Default::default()
    };
    let mut reply = messages::SubscribeResponse { result: Some(result), ..Default::default() };
    let presence = Some(true);
    let expected = BackendSubscribe {
        expire_at: 7,
        info: Bytes::from_static(b"ab"),
        overrides: SubscribeOverrides { presence, ..SubscribeOverrides::default() },
        ..BackendSubscribe::default()
    };
    let expected = ProxyReply::Result(ProxyResult::Subscribe(Some(expected)));
    assert_eq!(read(ProxyMethod::Subscribe, reply.encode_to_vec()), Ok(expected));
    // The first of disconnect, error and result holds.
    reply.error = Some(messages::Error { code: 103, ..Default::default() });
    let error = ProxyReply::Error { code: 103, message: String::new(), temporary: false };
    assert_eq!(read(ProxyMethod::Subscribe, reply.encode_to_vec()), Ok(error));
    reply.disconnect = Some(messages::Disconnect { code: 4_500, reason: "go".to_owned() });
    let disconnect = ProxyReply::Disconnect { code: 4_500, reason: "go".to_owned() };
    assert_eq!(read(ProxyMethod::Subscribe, reply.encode_to_vec()), Ok(disconnect));
    let empty = read(ProxyMethod::Connect, Vec::new());
    assert_eq!(empty, Ok(ProxyReply::Result(ProxyResult::Connect(None))));
    let wrong = read(ProxyMethod::Connect, vec![0xff; 9]).unwrap_err();
    assert_eq!(wrong.kind, FailureKind::Malformed);
}
