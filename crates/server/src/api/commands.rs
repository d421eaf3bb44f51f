//! Methods that change something, with their parameters as JSON: those of HTTP requests and of
//! consumed messages.
//!
//! Invariant: a message can call the seven methods of `consumers::decode`, and nothing else.

use engine::broker::Target;
use engine::claims::SubscriptionGrant;
use wire::protocol::StreamPosition;

use super::error::MethodFailure;
use super::request::{self, OneChannel, Publish, SessionParameters, payload, read};
use crate::service::Service;
use crate::service::caller::ApiCaller;
use crate::service::error::ApiError;
use crate::service::method::Method;
use crate::service::sessions::{ServerSubscription, SessionRefresh};

/// Runs the method of a consumed message.
///
/// # Errors
/// The first error; for a broadcast the first transient error, else the first error.
pub(crate) async fn run_consumed(
    service: &Service,
    caller: &ApiCaller,
    method: &str,
    params: &[u8],
) -> Result<(), ApiError> {
    let result = match Method::named(method) {
        Some(Method::Publish) => publish(service, caller, params).await,
        Some(Method::Broadcast) => broadcast(service, caller, params).await,
        Some(Method::Subscribe) => subscribe(service, caller, params),
        Some(Method::Unsubscribe) => unsubscribe(service, caller, params),
        Some(Method::Disconnect) => disconnect(service, params),
        Some(Method::Refresh) => refresh(service, params),
        Some(Method::HistoryRemove) => history_remove(service, caller, params).await,
        _ => return Err(ApiError::bad("messages cannot call this method")),
    };
    result.map_err(|failure| match failure {
        MethodFailure::Unreadable(text) => ApiError::bad(text),
        MethodFailure::Api(error) => error,
    })
}

async fn publish(
    service: &Service,
    caller: &ApiCaller,
    params: &[u8],
) -> Result<(), MethodFailure> {
    let mut request: Publish = read(params)?;
    let data = payload(&request.data, &request.b64data)?;
    let options = request.take_options();
    service.publications.publish(caller, &request.channel, data, &options).await?;
    Ok(())
}

async fn broadcast(
    service: &Service,
    caller: &ApiCaller,
    params: &[u8],
) -> Result<(), MethodFailure> {
    let mut request: Publish = read(params)?;
    let data = payload(&request.data, &request.b64data)?;
    let options = request.take_options();
    let results = service.publications.broadcast(caller, &request.channels, data, &options).await?;
    Ok(first_error(results)?)
}

/// The error of a broadcast: one that may pass by itself if there is one, so that the whole is
/// tried again, or the first one.
pub(crate) fn first_error(results: Vec<Result<StreamPosition, ApiError>>) -> Result<(), ApiError> {
    let mut errors = results.into_iter().filter_map(Result::err);
    let Some(first) = errors.next() else { return Ok(()) };
    match first.is_transient() {
        true => Err(first),
        false => Err(errors.find(ApiError::is_transient).unwrap_or(first)),
    }
}

pub(super) fn subscribe(
    service: &Service,
    caller: &ApiCaller,
    params: &[u8],
) -> Result<(), MethodFailure> {
    let request: request::Subscribe = read(params)?;
    let subscription = ServerSubscription {
        channel: request.channel,
        expire_at: Some(request.expire_at).filter(|at| *at > 0),
        grant: SubscriptionGrant {
            info: payload(&request.info, &request.b64info)?,
            data: payload(&request.data, &request.b64data)?,
            overrides: request.overrides.unwrap_or_default().into(),
            expire_at: None,
        },
        recover_since: request.recover_since.map(StreamPosition::from),
    };
    Ok(service.sessions.subscribe(caller, target(params)?, subscription)?)
}

pub(super) fn unsubscribe(
    service: &Service,
    caller: &ApiCaller,
    params: &[u8],
) -> Result<(), MethodFailure> {
    let OneChannel { channel } = read(params)?;
    Ok(service.sessions.unsubscribe(caller, target(params)?, channel)?)
}

pub(super) fn disconnect(service: &Service, params: &[u8]) -> Result<(), MethodFailure> {
    let request: request::DisconnectCall = read(params)?;
    let advice = request.disconnect.map(request::DisconnectAdvice::disconnect).transpose()?;
    service.sessions.disconnect(target(params)?, advice);
    Ok(())
}

pub(super) fn refresh(service: &Service, params: &[u8]) -> Result<(), MethodFailure> {
    let request: request::Refresh = read(params)?;
    let expire_at = Some(request.expire_at).filter(|at| *at > 0);
    let info = payload(&request.info, "")?;
    let refresh = SessionRefresh { info, expire_at, expired: request.expired };
    service.sessions.refresh(target(params)?, refresh);
    Ok(())
}

pub(super) async fn history_remove(
    service: &Service,
    caller: &ApiCaller,
    params: &[u8],
) -> Result<(), MethodFailure> {
    let OneChannel { channel } = read(params)?;
    service.channels.remove_history(caller, &channel).await?;
    Ok(())
}

/// The sessions that the parameters of a call select.
fn target(params: &[u8]) -> Result<Option<Target>, MethodFailure> {
    let filter: SessionParameters = read(params)?;
    Ok(filter.target()?)
}
