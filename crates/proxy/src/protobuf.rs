//! Requests and replies as Protobuf, as a backend reads and writes them over gRPC.
//!
//! Invariant: the messages are those of `proto/proxy.proto`. Unknown fields of a reply are ignored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;

use crate::failure::{BackendError, FailureKind};
use crate::reply::{
    BackendConnect, BackendPublish, BackendRenewal, BackendSubscribe, ProxyReply, ProxyResult,
    SubscribeOverrides,
};
use crate::request::{ProxyMethod, ProxyQuestion, ProxyRequest};
use crate::settings::BinaryData;

/// The generated messages.
#[expect(missing_docs, reason = "generated code")]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/centrifugal.centrifugo.proxy.rs"));
}

/// Data in the field for its form.
struct DataFields {
    data: Bytes,
    b64data: String,
}

impl DataFields {
    fn new(data: &Bytes, binary: BinaryData) -> DataFields {
        match binary {
            BinaryData::Json => DataFields { data: data.clone(), b64data: String::new() },
            BinaryData::Base64 => DataFields { data: Bytes::new(), b64data: STANDARD.encode(data) },
        }
    }
}

/// Encodes a message with the fields that all requests have, and with these.
macro_rules! encoded {
    ($message:ident, $request:expr, $binary:expr, { $($field:ident: $value:expr),* $(,)? }) => {
        messages::$message {
            client: $request.client.clone(),
            transport: $request.transport.to_owned(),
            protocol: $request.protocol.to_owned(),
            encoding: encoding($binary).to_owned(),
            $($field: $value,)*
        }
        .encode_to_vec()
    };
}

/// Writes a request.
pub(crate) fn write_request(request: &ProxyRequest, binary: BinaryData) -> Vec<u8> {
    let (user, meta) = (request.user.clone(), request.meta.clone());
    match &request.question {
        ProxyQuestion::Connect { data, name, version, channels } => {
            let DataFields { data, b64data } = DataFields::new(data, binary);
            encoded!(ConnectRequest, request, binary, {
                data: data,
                b64data: b64data,
                name: name.clone(),
                version: version.clone(),
                channels: channels.clone(),
            })
        }
        ProxyQuestion::Refresh => {
            encoded!(RefreshRequest, request, binary, { user: user, meta: meta })
        }
        ProxyQuestion::Subscribe { channel, token, data } => {
            let DataFields { data, b64data } = DataFields::new(data, binary);
            encoded!(SubscribeRequest, request, binary, {
                user: user,
                channel: channel.clone(),
                token: token.clone(),
                meta: meta,
                data: data,
                b64data: b64data,
            })
        }
        ProxyQuestion::Publish { channel, data } => {
            let DataFields { data, b64data } = DataFields::new(data, binary);
            encoded!(PublishRequest, request, binary, {
                user: user,
                channel: channel.clone(),
                data: data,
                b64data: b64data,
                meta: meta,
            })
        }
        ProxyQuestion::SubRefresh { channel } => {
            let channel = channel.clone();
            encoded!(SubRefreshRequest, request, binary, {
                user: user, channel: channel, meta: meta,
            })
        }
        ProxyQuestion::Rpc { method, data } => {
            let DataFields { data, b64data } = DataFields::new(data, binary);
            encoded!(RpcRequest, request, binary, {
                user: user,
                method: method.clone(),
                data: data,
                b64data: b64data,
                meta: meta,
            })
        }
    }
}

fn encoding(binary: BinaryData) -> &'static str {
    match binary {
        BinaryData::Json => "json",
        BinaryData::Base64 => "binary",
    }
}

/// Reads the reply to a request of this kind.
pub(crate) fn read_reply(method: ProxyMethod, body: &Bytes) -> Result<ProxyReply, BackendError> {
    match method {
        ProxyMethod::Connect => {
            let reply: messages::ConnectResponse = decode(body)?;
            refused(reply.disconnect, reply.error).map_or_else(
                || {
                    let result = reply.result.map(|result| connect(result).map(Box::new));
                    Ok(ProxyReply::Result(ProxyResult::Connect(result.transpose()?)))
                },
                Ok,
            )
        }
        ProxyMethod::Refresh => {
            let reply: messages::RefreshResponse = decode(body)?;
            refused(reply.disconnect, reply.error).map_or_else(
                || {
                    let result = reply.result.map(refresh).transpose()?;
                    Ok(ProxyReply::Result(ProxyResult::Refresh(result)))
                },
                Ok,
            )
        }
        ProxyMethod::Subscribe => {
            let reply: messages::SubscribeResponse = decode(body)?;
            refused(reply.disconnect, reply.error).map_or_else(
                || {
                    let result = reply.result.map(subscribe).transpose()?;
                    Ok(ProxyReply::Result(ProxyResult::Subscribe(result)))
                },
                Ok,
            )
        }
        ProxyMethod::Publish => {
            let reply: messages::PublishResponse = decode(body)?;
            refused(reply.disconnect, reply.error).map_or_else(
                || {
                    let result = reply.result.map(|result| publish(result).map(Box::new));
                    Ok(ProxyReply::Result(ProxyResult::Publish(result.transpose()?)))
                },
                Ok,
            )
        }
        ProxyMethod::SubRefresh => {
            let reply: messages::SubRefreshResponse = decode(body)?;
            refused(reply.disconnect, reply.error).map_or_else(
                || {
                    let result = reply.result.map(sub_refresh).transpose()?;
                    Ok(ProxyReply::Result(ProxyResult::SubRefresh(result)))
                },
                Ok,
            )
        }
        ProxyMethod::Rpc => {
            let reply: messages::RpcResponse = decode(body)?;
            refused(reply.disconnect, reply.error).map_or_else(
                || {
                    let result = reply.result.unwrap_or_default();
                    let data = either(result.data, &result.b64data)?;
                    Ok(ProxyReply::Result(ProxyResult::Rpc(data)))
                },
                Ok,
            )
        }
    }
}

fn decode<M: Message + Default>(body: &Bytes) -> Result<M, BackendError> {
    M::decode(body.clone())
        .map_err(|_| BackendError::new(FailureKind::Malformed, "the reply is not the message"))
}

fn refused(
    disconnect: Option<messages::Disconnect>,
    error: Option<messages::Error>,
) -> Option<ProxyReply> {
    let of_disconnect = disconnect
        .map(|messages::Disconnect { code, reason }| ProxyReply::Disconnect { code, reason });
    of_disconnect.or_else(|| {
        error.map(|messages::Error { code, message, temporary }| ProxyReply::Error {
            code,
            message,
            temporary,
        })
    })
}

/// Data, or that in base64 if there is any.
fn either(data: Bytes, base64: &str) -> Result<Bytes, BackendError> {
    match base64 {
        "" => Ok(data),
        base64 => STANDARD.decode(base64).map(Bytes::from).map_err(|_| {
            BackendError::new(FailureKind::Malformed, "a field of the reply is not base64")
        }),
    }
}

fn connect(result: messages::ConnectResult) -> Result<BackendConnect, BackendError> {
    let subs = result.subs.into_iter().map(|(channel, options)| {
        let options = BackendSubscribe {
            expire_at: options.expire_at,
            info: either(options.info, &options.b64info)?,
            data: either(options.data, &options.b64data)?,
            overrides: overrides(options.r#override.as_ref()),
        };
        Ok((channel, options))
    });
    Ok(BackendConnect {
        user: result.user,
        expire_at: result.expire_at,
        info: either(result.info, &result.b64info)?,
        data: either(result.data, &result.b64data)?,
        channels: result.channels,
        subs: subs.collect::<Result<_, BackendError>>()?,
        meta: result.meta,
    })
}

fn refresh(result: messages::RefreshResult) -> Result<BackendRenewal, BackendError> {
    Ok(BackendRenewal {
        expired: result.expired,
        expire_at: result.expire_at,
        info: either(result.info, &result.b64info)?,
        meta: result.meta,
    })
}

fn sub_refresh(result: messages::SubRefreshResult) -> Result<BackendRenewal, BackendError> {
    Ok(BackendRenewal {
        expired: result.expired,
        expire_at: result.expire_at,
        info: either(result.info, &result.b64info)?,
        meta: Bytes::new(),
    })
}

fn subscribe(result: messages::SubscribeResult) -> Result<BackendSubscribe, BackendError> {
    Ok(BackendSubscribe {
        expire_at: result.expire_at,
        info: either(result.info, &result.b64info)?,
        data: either(result.data, &result.b64data)?,
        overrides: overrides(result.r#override.as_ref()),
    })
}

fn overrides(overrides: Option<&messages::SubscribeOptionOverride>) -> SubscribeOverrides {
    let value = |of: fn(&messages::SubscribeOptionOverride) -> Option<messages::BoolValue>| {
        overrides.and_then(of).map(|wrapped| wrapped.value)
    };
    SubscribeOverrides {
        presence: value(|o| o.presence),
        join_leave: value(|o| o.join_leave),
        force_recovery: value(|o| o.force_recovery),
        force_positioning: value(|o| o.force_positioning),
        force_push_join_leave: value(|o| o.force_push_join_leave),
    }
}

fn publish(result: messages::PublishResult) -> Result<BackendPublish, BackendError> {
    let data = either(result.data, &result.b64data)?;
    Ok(BackendPublish {
        data: Some(data).filter(|data| !data.is_empty()),
        skip_history: result.skip_history,
        tags: result.tags.into_iter().collect(),
        idempotency_key: result.idempotency_key,
        delta: result.delta,
        version: result.version,
        version_epoch: result.version_epoch,
    })
}

#[cfg(test)]
mod tests;
