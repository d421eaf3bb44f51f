//! The engine's calls as requests to backends, and replies of backends as results of calls.
//!
//! Invariant: nothing decides here. What a backend sends is bounded and well formed before the
//! engine gets it.

use bytes::Bytes;
use engine::call::{CallContext, CallRefusal, Caller, PublishGrant, Renewal};
use engine::claims::{ConnectionClaims, Overrides, SubscriptionGrant};
use engine::{CallOutcome, SessionCall};
use proxy::{
    BackendConnect, BackendError, BackendPublish, BackendRenewal, BackendSubscribe, FailureKind,
    ProxyMethod, ProxyQuestion, ProxyReply, ProxyRequest, ProxyResult,
};
use wire::protocol::{Codec, DisconnectCode, ErrorCode, ErrorReply, is_nested_too_deep};

use crate::config::{BackendKey, DEFAULT_PROXY};
use crate::service::sessions::disconnect_advice;

/// A call as a request.
pub(super) struct Asked {
    pub(super) method: ProxyMethod,
    pub(super) key: BackendKey,
    pub(super) request: ProxyRequest,
    /// Headers of the connect command.
    pub(super) emulated: Vec<(String, String)>,
    /// Bytes that it holds.
    pub(super) bytes: usize,
}

impl Asked {
    /// `None` for a call that is not for a backend.
    pub(super) fn of(call: SessionCall) -> Option<Asked> {
        match call {
            SessionCall::Verify { .. } => None,
            SessionCall::Connect(call) => {
                let bytes = call.data.len() + call.channels.iter().map(String::len).sum::<usize>();
                let question = ProxyQuestion::Connect {
                    data: call.data,
                    name: call.name,
                    version: call.version,
                    channels: call.channels,
                };
                let request = ProxyRequest {
                    client: call.client,
                    transport: TRANSPORT,
                    protocol: protocol(call.codec),
                    user: String::new(),
                    meta: Bytes::new(),
                    question,
                };
                Some(Asked::new(DEFAULT_PROXY, request, call.headers, bytes))
            }
            SessionCall::Refresh(caller) => {
                Some(Asked::by(caller, DEFAULT_PROXY, ProxyQuestion::Refresh, 0))
            }
            SessionCall::Subscribe(call) => {
                let (bytes, token) = (call.data.len(), String::new());
                let question =
                    ProxyQuestion::Subscribe { channel: call.channel, token, data: call.data };
                Some(Asked::by(call.caller, &call.proxy, question, bytes))
            }
            SessionCall::Publish(call) => {
                let bytes = call.data.len();
                let question = ProxyQuestion::Publish { channel: call.channel, data: call.data };
                Some(Asked::by(call.caller, &call.proxy, question, bytes))
            }
            SessionCall::SubRefresh(call) => {
                let question = ProxyQuestion::SubRefresh { channel: call.channel.to_string() };
                Some(Asked::by(call.caller, &call.proxy, question, 0))
            }
            SessionCall::Rpc(call) => {
                let bytes = call.data.len();
                let question = ProxyQuestion::Rpc { method: call.method, data: call.data };
                Some(Asked::by(call.caller, &call.proxy, question, bytes))
            }
        }
    }

    fn by(caller: Caller, proxy: &str, question: ProxyQuestion, bytes: usize) -> Asked {
        let Caller { info, codec, context } = caller;
        let CallContext { meta, headers } = context.map_or_else(CallContext::default, |context| {
            CallContext { meta: context.meta.clone(), headers: context.headers.clone() }
        });
        let request = ProxyRequest {
            client: info.client.clone(),
            transport: TRANSPORT,
            protocol: protocol(codec),
            user: info.user.clone(),
            meta,
            question,
        };
        Asked::new(proxy, request, headers, bytes)
    }

    fn new(
        proxy: &str,
        request: ProxyRequest,
        emulated: Vec<(String, String)>,
        bytes: usize,
    ) -> Asked {
        let method = request.method();
        let bytes = bytes + CALL_BYTES;
        Asked { method, key: BackendKey::new(method, proxy), request, emulated, bytes }
    }
}

/// Bytes of a call beside its data: names, headers, task.
const CALL_BYTES: usize = 4096;

/// The only transport so far.
const TRANSPORT: &str = "websocket";

fn protocol(codec: Codec) -> &'static str {
    match codec {
        Codec::Json => "json",
        Codec::Protobuf => "protobuf",
    }
}

/// The result of a call.
pub(super) fn outcome(method: ProxyMethod, reply: Result<ProxyReply, BackendError>) -> CallOutcome {
    let result = match reply {
        Ok(ProxyReply::Result(result)) => granted(result),
        Ok(ProxyReply::Error { code, message, temporary }) => {
            Err(CallRefusal::Error(ErrorReply { code, message, temporary }))
        }
        Ok(ProxyReply::Disconnect { code, reason }) => {
            let advice = u16::try_from(code).ok().map(|code| disconnect_advice(code, reason));
            // An invalid code still disconnects the client, with the default code.
            let advice = advice.and_then(Result::ok);
            let disconnect = advice.unwrap_or_else(|| DisconnectCode::ForceDisconnect.into());
            Err(CallRefusal::Disconnect(disconnect))
        }
        Err(BackendError { kind: FailureKind::NotJson, .. }) => {
            Err(CallRefusal::Error(ErrorCode::BadRequest.into()))
        }
        Err(_) => Err(internal()),
    };
    result.unwrap_or_else(|refusal| refused(method, refusal))
}

/// A temporary error: the client tries again.
fn internal() -> CallRefusal {
    CallRefusal::Error(ErrorCode::Internal.into())
}

/// The result of a call of this kind that is refused.
pub(super) fn refused(method: ProxyMethod, refusal: CallRefusal) -> CallOutcome {
    match method {
        ProxyMethod::Connect => CallOutcome::Connect(Err(refusal)),
        ProxyMethod::Refresh => CallOutcome::Refresh(Err(refusal)),
        ProxyMethod::Subscribe => CallOutcome::Subscribe(Err(refusal)),
        ProxyMethod::Publish => CallOutcome::Publish(Err(refusal)),
        ProxyMethod::SubRefresh => CallOutcome::SubRefresh(Err(refusal)),
        ProxyMethod::Rpc => CallOutcome::Rpc(Err(refusal)),
    }
}

fn granted(result: ProxyResult) -> Result<CallOutcome, CallRefusal> {
    Ok(match result {
        ProxyResult::Connect(result) => {
            let claims = result.map(|result| connection(*result).map(Box::new)).transpose()?;
            CallOutcome::Connect(Ok(claims))
        }
        ProxyResult::Refresh(result) => CallOutcome::Refresh(Ok(renewal(result)?)),
        ProxyResult::Subscribe(result) => {
            let grant = result.map(subscription).transpose()?;
            CallOutcome::Subscribe(Ok(grant.unwrap_or_default()))
        }
        ProxyResult::Publish(result) => {
            let grant = result.map(|result| publication(*result)).transpose()?;
            CallOutcome::Publish(Ok(Box::new(grant.unwrap_or_default())))
        }
        ProxyResult::SubRefresh(result) => CallOutcome::SubRefresh(Ok(renewal(result)?)),
        ProxyResult::Rpc(data) => CallOutcome::Rpc(Ok(flat(data)?)),
    })
}

fn connection(result: BackendConnect) -> Result<ConnectionClaims, CallRefusal> {
    let plain = result.channels.into_iter().map(|channel| (channel, BackendSubscribe::default()));
    let mut subscriptions: Vec<(String, SubscriptionGrant)> = Vec::new();
    // A channel with options wins over the same one without.
    for (channel, options) in result.subs.into_iter().chain(plain) {
        if subscriptions.iter().all(|(known, _)| *known != channel) {
            subscriptions.push((channel, subscription(options)?));
        }
    }
    Ok(ConnectionClaims {
        user: result.user,
        expire_at: time(result.expire_at),
        info: flat(result.info)?,
        subscriptions,
        data: flat(result.data)?,
        meta: flat(result.meta)?,
        ..ConnectionClaims::default()
    })
}

fn subscription(result: BackendSubscribe) -> Result<SubscriptionGrant, CallRefusal> {
    let overrides = result.overrides;
    Ok(SubscriptionGrant {
        expire_at: time(result.expire_at),
        info: flat(result.info)?,
        data: flat(result.data)?,
        overrides: Overrides {
            presence: overrides.presence,
            join_leave: overrides.join_leave,
            force_push_join_leave: overrides.force_push_join_leave,
            force_recovery: overrides.force_recovery,
            force_positioning: overrides.force_positioning,
        },
    })
}

fn renewal(result: Option<BackendRenewal>) -> Result<Renewal, CallRefusal> {
    match result {
        None | Some(BackendRenewal { expired: true, .. }) => Ok(Renewal::Expired),
        Some(BackendRenewal { expire_at, info, meta, .. }) => {
            let expire_at = time(expire_at);
            Ok(Renewal::Until { expire_at, info: flat(info)?, meta: flat(meta)? })
        }
    }
}

fn publication(result: BackendPublish) -> Result<PublishGrant, CallRefusal> {
    Ok(PublishGrant {
        data: result.data.map(flat).transpose()?,
        skip_history: result.skip_history,
        tags: result.tags,
        idempotency_key: result.idempotency_key,
        version: result.version,
        version_epoch: result.version_epoch,
    })
}

fn time(expire_at: i64) -> Option<i64> {
    (expire_at > 0).then_some(expire_at)
}

/// Data that clients can parse.
fn flat(data: Bytes) -> Result<Bytes, CallRefusal> {
    if is_nested_too_deep(&data) { Err(internal()) } else { Ok(data) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(outcome: &CallOutcome) -> (u32, bool) {
        match outcome {
            CallOutcome::Rpc(Err(CallRefusal::Error(error))) => (error.code, error.temporary),
            CallOutcome::Rpc(Err(CallRefusal::Disconnect(disconnect))) => {
                (disconnect.number().into(), false)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_become_results() {
        let rpc = |reply| outcome(ProxyMethod::Rpc, Ok(reply));
        let error = |code| ProxyReply::Error { code, message: "no".to_owned(), temporary: false };
        let disconnect = |code| ProxyReply::Disconnect { code, reason: "go".to_owned() };
        assert_eq!(code_of(&rpc(error(1000))), (1000, false));
        assert_eq!(code_of(&rpc(disconnect(4_500))), (4_500, false));
        for wrong in [1, 70_000] {
            assert_eq!(code_of(&rpc(disconnect(wrong))), (3503, false));
        }
        let deep = Bytes::from(format!("{}{}", "[".repeat(200), "]".repeat(200)));
        assert_eq!(code_of(&rpc(ProxyReply::Result(ProxyResult::Rpc(deep)))), (100, true));
    }

    #[test]
    fn options_win_over_a_name_alone() {
        let with = BackendSubscribe { expire_at: 7, ..BackendSubscribe::default() };
        let claims = connection(BackendConnect {
            channels: vec!["a".to_owned(), "b".to_owned(), "b".to_owned()],
            subs: vec![("a".to_owned(), with)],
            ..BackendConnect::default()
        });
        let claims = claims.unwrap();
        let expected: Vec<_> =
            claims.subscriptions.iter().map(|(name, grant)| (&**name, grant.expire_at)).collect();
        assert_eq!(expected, [("a", Some(7)), ("b", None)]);
        assert_eq!(claims.expire_at, None);
    }
}
