//! Shares one stream read among concurrent joins of a channel, such as after a restart.
//!
//! A follower that joins before the reply is complete: publications missing in the reply arrive
//! after it on the same connection. Invariant: a read is shared only while the channel has been
//! subscribed without interruption since the read was sent.

use std::collections::HashMap;
use std::sync::Arc;

use engine::broker::{BrokerError, JoinRead, JoinedStream, RequestId};

use super::command_request::CommandRequest;
use super::open_request::OpenRequest;
use crate::Endpoint;

/// Pending reads by channel.
#[derive(Default)]
pub(super) struct SharedReads {
    open: HashMap<Arc<str>, SharedRead>,
}

struct SharedRead {
    lead: (Endpoint, RequestId<JoinedStream>),
    read: JoinRead,
    followers: Vec<OpenRequest>,
    /// Whether further requests may follow this read.
    is_open: bool,
}

impl SharedReads {
    /// Keeps a request that a pending read covers; returns any other.
    pub(super) fn follow(&mut self, pending: OpenRequest) -> Option<OpenRequest> {
        let CommandRequest::Subscribe { channel, read, id } = &pending.request else {
            return Some(pending);
        };
        if *read == JoinRead::Nothing {
            return Some(pending);
        }
        match self.open.get_mut(channel) {
            Some(shared) if shared.is_open && covers(&shared.read, read) => {
                shared.followers.push(pending);
                None
            }
            Some(_) => Some(pending),
            None => {
                let (lead, read) = ((pending.endpoint, *id), read.clone());
                let shared = SharedRead { lead, read, followers: Vec::new(), is_open: true };
                self.open.insert(channel.clone(), shared);
                Some(pending)
            }
        }
    }

    /// The channel is unsubscribed: the pending read takes no more followers.
    pub(super) fn close(&mut self, channel: &str) {
        if let Some(shared) = self.open.get_mut(channel) {
            shared.is_open = false;
        }
    }

    /// A request has a result; returns the requests that follow it.
    pub(super) fn end(&mut self, pending: &OpenRequest) -> Vec<OpenRequest> {
        let CommandRequest::Subscribe { channel, id, .. } = &pending.request else {
            return Vec::new();
        };
        let is_lead =
            self.open.get(channel).is_some_and(|shared| shared.lead == (pending.endpoint, *id));
        let ended = if is_lead { self.open.remove(channel) } else { None };
        ended.map_or(Vec::new(), |shared| shared.followers)
    }
}

/// Whether the reply to one read contains the reply to another.
fn covers(lead: &JoinRead, read: &JoinRead) -> bool {
    match (lead, read) {
        (JoinRead::Nothing, _) | (_, JoinRead::Nothing) => false,
        (_, JoinRead::Position { .. }) | (JoinRead::Newest { .. }, JoinRead::Newest { .. }) => true,
        (
            JoinRead::Since { since: first, limit: most, bytes_max: most_bytes, .. },
            JoinRead::Since { since, limit, bytes_max, .. },
        ) => {
            first.epoch == since.epoch
                && first.offset <= since.offset
                && (limit, bytes_max) == (most, most_bytes)
        }
        _ => false,
    }
}

/// The part of a reply that another read needs; `None` when the reply does not contain it.
pub(super) fn share(
    result: &Result<JoinedStream, BrokerError>,
    read: &JoinRead,
) -> Option<Result<JoinedStream, BrokerError>> {
    let Ok(stream) = result else { return Some(result.clone()) };
    let JoinedStream { top, publications } = stream;
    let publications = match read {
        JoinRead::Nothing | JoinRead::Position { .. } => Vec::new(),
        JoinRead::Newest { .. } => publications.clone(),
        JoinRead::Since { since, .. } => {
            let is_whole = publications.last().is_none_or(|last| last.offset == top.offset);
            if !is_whole {
                return None;
            }
            let behind = publications.iter().filter(|one| one.offset > since.offset);
            behind.cloned().collect()
        }
    };
    Some(Ok(JoinedStream { top: top.clone(), publications }))
}

#[cfg(test)]
mod tests {
    use super::super::clock::MonotonicTime;

    use wire::protocol::{Publication, StreamPosition};

    use super::*;

    fn since(offset: u64, epoch: &str) -> JoinRead {
        let since = StreamPosition { offset, epoch: epoch.to_owned() };
        JoinRead::Since { since, limit: 100, bytes_max: None, meta_ttl_ms: 0 }
    }

    fn pending(id: u64, read: JoinRead) -> OpenRequest {
        let (id, channel) = (RequestId::new(id), "a".into());
        let request = CommandRequest::Subscribe { id, channel, read };
        OpenRequest::new(Endpoint(0), request, MonotonicTime::default())
    }

    #[test]
    fn a_covered_read_follows_the_pending_one() {
        let mut reads = SharedReads::default();
        let lead = reads.follow(pending(1, since(5, "e"))).expect("no read is pending");
        let position = JoinRead::Position { meta_ttl_ms: 0 };
        for read in [since(5, "e"), since(9, "e"), position.clone()] {
            assert!(reads.follow(pending(2, read)).is_none());
        }
        for read in
            [since(4, "e"), since(5, "f"), JoinRead::Newest { meta_ttl_ms: 0 }, JoinRead::Nothing]
        {
            assert!(reads.follow(pending(3, read)).is_some());
        }
        reads.close("a");
        assert!(reads.follow(pending(4, position)).is_some(), "the subscription was interrupted");
        assert_eq!(reads.end(&pending(3, since(4, "e"))).len(), 0);
        assert_eq!(reads.end(&lead).len(), 3);
        assert!(reads.open.is_empty());
    }

    #[test]
    fn each_follower_gets_its_part() {
        let publication = |offset| Arc::new(Publication { offset, ..Publication::default() });
        let answer = |first: u64, last: u64| {
            let top = StreamPosition { offset: 9, epoch: "e".into() };
            let publications = (first..=last).map(publication).collect();
            Ok(JoinedStream { top, publications })
        };
        assert_eq!(share(&answer(6, 9), &since(7, "e")), Some(answer(8, 9)));
        assert_eq!(
            share(&answer(6, 9), &JoinRead::Position { meta_ttl_ms: 0 }),
            Some(answer(1, 0))
        );
        assert_eq!(share(&answer(6, 8), &since(7, "e")), None, "it does not reach the top");
        let failed = Err(BrokerError::Unavailable);
        assert_eq!(share(&failed, &since(7, "e")), Some(failed));
    }
}
