//! Decodes replies of Redis into replies of the broker.
//!
//! Invariant: a reply of an unexpected shape is an error, never guessed at.

use std::sync::Arc;

use engine::broker::{
    BrokerError, BrokerReply, ChannelTtl, HistoryRemoved, JoinRead, JoinedStream, PresenceRequest,
};
use engine::revocation::{Revocation, RevokeOutcome};
use wire::protocol::protobuf::{decode_client_info, decode_publication};
use wire::protocol::{ClientInfo, HistoryResult, PresenceStats, Publication, StreamPosition};

use super::command_request::{CommandRequest, PublishCommand};
use super::publish_call::{self, PublishFailure};
use super::resp::Frame;
use crate::control;

/// The reply to a request that is not read in pages; `None` for a request without a reply.
pub(super) fn read(request: &CommandRequest, frame: &Frame) -> Option<BrokerReply> {
    match request {
        CommandRequest::Subscribe { id, read, .. } => {
            let stream = match read {
                JoinRead::Nothing => Some(JoinedStream::default()),
                _ => position(frame).map(|top| JoinedStream { top, publications: Vec::new() }),
            };
            Some(id.answer(known(stream)))
        }
        CommandRequest::History { id, query, .. } => {
            let result = known(stream_page(frame)).and_then(|page| {
                if !page.is_of_epoch && query.since.is_some() {
                    return Err(BrokerError::UnrecoverablePosition);
                }
                let StreamPosition { offset, epoch } = page.top;
                Ok(HistoryResult { publications: Vec::new(), epoch, offset })
            });
            Some(id.answer(result))
        }
        CommandRequest::Publish(PublishCommand { id, .. }) => {
            Some(id.answer(known(published(frame))))
        }
        CommandRequest::RemoveHistory { id, .. } => Some(id.answer(Ok(HistoryRemoved))),
        CommandRequest::ChannelTtl { id, .. } => Some(id.answer(known(ttl(frame)))),
        CommandRequest::Presence(PresenceRequest::Stats { id, .. }) => {
            Some(id.answer(known(stats(frame))))
        }
        CommandRequest::Revoke { id, .. } => Some(id.answer(known(outcome(frame)))),
        CommandRequest::FindRevocation { id, .. } => {
            let found = match frame {
                Frame::Null => Some(None),
                frame => revocation(frame).map(Some),
            };
            Some(id.answer(known(found)))
        }
        CommandRequest::Presence(_)
        | CommandRequest::Announce { .. }
        | CommandRequest::LimitTtl { .. }
        | CommandRequest::Control(_)
        | CommandRequest::Answer { .. } => request.refuse(BrokerError::Unavailable),
    }
}

/// A reply that could not be decoded is an error.
fn known<T>(decoded: Option<T>) -> Result<T, BrokerError> {
    decoded.ok_or(BrokerError::Unavailable)
}

/// Result of the script that stores a revocation.
fn outcome(frame: &Frame) -> Option<RevokeOutcome> {
    match frame {
        Frame::Integer(1) => Some(RevokeOutcome::Stored),
        Frame::Integer(0) => Some(RevokeOutcome::Expired),
        frame => revocation(frame).map(RevokeOutcome::Superseded),
    }
}

fn revocation(frame: &Frame) -> Option<Arc<Revocation>> {
    control::decode_revocation(frame.text()?).map(Arc::new)
}

/// A stream's position in a reply of the read script.
pub(super) fn position(frame: &Frame) -> Option<StreamPosition> {
    stream_page(frame).map(|page| page.top)
}

/// One page of a stream.
#[derive(Debug, PartialEq)]
pub(super) struct StreamPage {
    pub(super) top: StreamPosition,
    /// Whether the requested position belongs to this epoch.
    pub(super) is_of_epoch: bool,
    pub(super) publications: Vec<Arc<Publication>>,
    /// Bytes of the next publication, which exceeded the budget; 0 at the end of the range.
    pub(super) next: usize,
}

/// One page of a channel's clients.
#[derive(Debug, PartialEq)]
pub(super) struct ClientsPage {
    pub(super) clients: Vec<Arc<ClientInfo>>,
    /// `HSCAN` cursor of the next page; `0` at the end.
    pub(super) cursor: Vec<u8>,
}

pub(super) fn stream_page(frame: &Frame) -> Option<StreamPage> {
    let [epoch, offset, is_of_epoch, entries, next] = frame.list()? else { return None };
    let top = StreamPosition { offset: offset.u64()?, epoch: epoch.str()?.to_owned() };
    let publications = entries.list()?.iter().map(publication).collect::<Option<_>>()?;
    let next = usize::try_from(next.u64()?).ok()?;
    Some(StreamPage { top, is_of_epoch: is_of_epoch.u64()? == 1, publications, next })
}

pub(super) fn clients_page(frame: &Frame) -> Option<ClientsPage> {
    let [cursor, clients] = frame.list()? else { return None };
    let clients = clients.list()?.iter().map(client);
    Some(ClientsPage { clients: clients.collect::<Option<_>>()?, cursor: cursor.text()?.to_vec() })
}

/// A client as a script returns it.
pub(super) fn client(frame: &Frame) -> Option<Arc<ClientInfo>> {
    decode_client_info(frame.text()?).ok().map(Arc::new)
}

/// An entry of a stream: its id is the offset, its fields are its expiry and the publication.
fn publication(entry: &Frame) -> Option<Arc<Publication>> {
    let [id, fields] = entry.list()? else { return None };
    let [_, _, _, payload] = fields.list()? else { return None };
    let offset = id.str()?.split_once('-')?.0.parse().ok()?;
    let publication = decode_publication(payload.text()?).ok()?;
    Some(Arc::new(Publication { offset, ..publication }))
}

/// The script replies with the position of one run, `PUBLISH` with the number of receivers.
fn published(frame: &Frame) -> Option<StreamPosition> {
    if matches!(frame, Frame::Integer(_)) {
        return Some(StreamPosition::default());
    }
    publish_call::first_position(publish_call::runs(frame, 1)?.first()?).ok()
}

/// The error of the server to a publication inside of the reply.
pub(super) fn refusal<'f>(request: &CommandRequest, frame: &'f Frame) -> Option<&'f [u8]> {
    let CommandRequest::Publish(_) = request else { return None };
    match publish_call::first_position(publish_call::runs(frame, 1)?.first()?) {
        Err(PublishFailure::Refused(text)) => Some(text),
        _ => None,
    }
}

fn ttl(frame: &Frame) -> Option<Option<ChannelTtl>> {
    match frame.list()? {
        [] => Some(None),
        [age, left] => Some(Some(ChannelTtl { age_ms: age.u64()?, left_ms: left.u64()? })),
        _ => None,
    }
}

fn stats(frame: &Frame) -> Option<PresenceStats> {
    let [clients, users] = frame.list()? else { return None };
    let count = |frame: &Frame| Some(u32::try_from(frame.u64()?).unwrap_or(u32::MAX));
    Some(PresenceStats { num_clients: count(clients)?, num_users: count(users)? })
}
