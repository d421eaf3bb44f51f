//! Writes requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::request::{ProxyQuestion, ProxyRequest};
use crate::settings::BinaryData;

/// The data of a client is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotJsonData;

/// The members of all requests. Empty ones are left out.
#[derive(Default, Serialize)]
struct Request<'r> {
    #[serde(skip_serializing_if = "str::is_empty")]
    client: &'r str,
    transport: &'r str,
    protocol: &'r str,
    encoding: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    channel: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    token: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'r RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'r RawValue>,
    #[serde(skip_serializing_if = "String::is_empty")]
    b64data: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'r str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'r str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    channels: &'r [String],
}

/// Writes a request.
pub(crate) fn write_request(
    request: &ProxyRequest,
    binary: BinaryData,
) -> Result<Vec<u8>, NotJsonData> {
    let mut members = Request {
        client: &request.client,
        transport: request.transport,
        protocol: request.protocol,
        encoding: if binary == BinaryData::Base64 { "binary" } else { "json" },
        user: &request.user,
        meta: raw(&request.meta)?,
        ..Request::default()
    };
    let data: &[u8] = match &request.question {
        ProxyQuestion::Connect { data, name, version, channels } => {
            (members.name, members.version, members.channels) = (name, version, channels);
            data
        }
        ProxyQuestion::Refresh => &[],
        ProxyQuestion::Subscribe { channel, token, data } => {
            (members.channel, members.token) = (channel, token);
            data
        }
        ProxyQuestion::Publish { channel, data } => {
            members.channel = channel;
            data
        }
        ProxyQuestion::SubRefresh { channel } => {
            members.channel = channel;
            &[]
        }
        ProxyQuestion::Rpc { method, data } => {
            members.method = method;
            data
        }
    };
    match binary {
        BinaryData::Json => members.data = raw(data)?,
        BinaryData::Base64 => members.b64data = STANDARD.encode(data),
    }
    Ok(serde_json::to_vec(&members).expect("texts and JSON become JSON"))
}

fn raw(json: &[u8]) -> Result<Option<&RawValue>, NotJsonData> {
    match json {
        [] => Ok(None),
        json => serde_json::from_slice(json).map(Some).map_err(|_| NotJsonData),
    }
}
