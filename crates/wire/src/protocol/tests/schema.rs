//! The codecs of this crate against the protocol's schema (`proto/client.proto`) and another
//! Protobuf implementation, `prost`.
//!
//! Numbers and types of fields: our encoding has no field that the schema lacks, and the encoding
//! by `prost` decodes to the same value. Names: the message in JSON with the schema's names equals
//! our JSON.

use std::sync::LazyLock;

use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MapKey, Value as Field};
use serde_json::{Map, Value};

use super::*;

static SCHEMA: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let files = protox::compile(["client.proto"], [folder]).expect("the schema compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("the schema is whole")
});

/// Decodes one length-delimited message with the other implementation.
fn read(name: &str, framed: &[u8]) -> DynamicMessage {
    let name = format!("centrifugal.centrifuge.protocol.{name}");
    let descriptor = SCHEMA.get_message_by_name(&name).expect("the schema has the message");
    let mut message = DynamicMessage::new(descriptor);
    message.merge_length_delimited(framed).expect("a message of the schema");
    message
}

/// The message as JSON with the schema's field names; payloads are JSON themselves.
fn name_fields(message: &DynamicMessage) -> Value {
    assert_eq!(message.unknown_fields().count(), 0, "{message:?}");
    let fields = message.fields();
    let named = fields.map(|(field, value)| (field.name().to_owned(), name_value(value)));
    Value::Object(named.collect())
}

fn name_value(value: &Field) -> Value {
    let key = |key: &MapKey| key.as_str().expect("names are keys").to_owned();
    match value {
        Field::Bool(value) => (*value).into(),
        Field::I32(value) => (*value).into(),
        Field::I64(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::U64(value) => (*value).into(),
        Field::String(value) => value.as_str().into(),
        Field::Bytes(value) => serde_json::from_slice(value).expect("payloads are JSON here"),
        Field::Message(message) => name_fields(message),
        Field::List(values) => values.iter().map(name_value).collect(),
        Field::Map(values) => {
            let entries = values.iter().map(|(name, value)| (key(name), name_value(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        other => panic!("the protocol has no {other:?}"),
    }
}

/// Removes zero and empty values, which JSON may contain and Protobuf never does.
fn without_zeros(value: Value) -> Value {
    let is_zero = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
    };
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, without_zeros(value)));
            Value::Object(members.filter(|(_, value)| !is_zero(value)).collect())
        }
        Value::Array(values) => values.into_iter().map(without_zeros).collect(),
        other => other,
    }
}

/// Removes zeros from the envelope's members; the members themselves stay.
fn normalize(envelope: Value) -> Value {
    let Value::Object(members) = envelope else { panic!("{envelope}") };
    let members = members.into_iter().map(|(name, value)| (name, without_zeros(value)));
    Value::Object(members.filter(|(_, value)| *value != 0).collect())
}

fn json_of(encode: impl Fn(Codec, &mut Vec<u8>)) -> Value {
    let mut json = Vec::new();
    encode(Codec::Json, &mut json);
    normalize(serde_json::from_slice(&json).expect("JSON"))
}

fn protobuf_of(encode: impl Fn(Codec, &mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(Codec::Protobuf, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn replies_are_those_of_the_schema(id in 1u32.., body in body()) {
        let reply = Reply { id, body };
        let encode = |reply: &Reply| {
            let reply = reply.clone();
            move |codec, out: &mut Vec<u8>| encode_reply(codec, &reply, out)
        };
        let dynamic = read("Reply", &protobuf_of(encode(&reply)));
        prop_assert_eq!(normalize(name_fields(&dynamic)), json_of(encode(&reply)));
        let again = decode_replies(Codec::Protobuf, &dynamic.encode_length_delimited_to_vec());
        prop_assert_eq!(json_of(encode(&again.unwrap()[0])), json_of(encode(&reply)));
    }

    #[test]
    fn commands_are_those_of_the_schema(id in 1u32.., request in request()) {
        let command = Command { id, request };
        let encode = |command: &Command| {
            let command = command.clone();
            move |codec, out: &mut Vec<u8>| encode_command(codec, &command, out)
        };
        let dynamic = read("Command", &protobuf_of(encode(&command)));
        prop_assert_eq!(normalize(name_fields(&dynamic)), json_of(encode(&command)));
        let again = decode_commands(Codec::Protobuf, &dynamic.encode_length_delimited_to_vec());
        prop_assert_eq!(json_of(encode(&again.unwrap()[0])), json_of(encode(&command)));
    }
}
