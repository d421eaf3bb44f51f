//! What nodes tell each other about a channel: a line `t1 OFFSET EPOCH`, and behind it a Protobuf reply of the client
//! protocol that holds the push. The script that publishes writes the line.
//!
//! Invariant: what is none of ours is no message.

use std::sync::Arc;

use bytes::Bytes;
use engine::broker::{BrokerEvent, Membership};
use wire::protocol::{ClientInfo, Codec, Publication, Push, PushEvent, Reply, ReplyBody};

/// A push, as it stands behind the line and in a stream.
pub(super) fn encode_push(channel: &Arc<str>, event: PushEvent) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_push(channel, event, &mut out);
    out
}

/// A message without a position.
pub(super) fn plain(channel: &Arc<str>, event: PushEvent) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend(b"t1 0 \n");
    write_push(channel, event, &mut out);
    out
}

fn write_push(channel: &Arc<str>, event: PushEvent, out: &mut Vec<u8>) {
    let push = Push { channel: channel.clone(), event };
    let reply = Reply { id: 0, body: ReplyBody::Push(push) };
    wire::protocol::encode_reply(Codec::Protobuf, &reply, out);
}

/// What a listener hears of a message. `known` is the epoch that it most likely has.
pub(super) fn decode(channel: &Arc<str>, message: &Bytes, known: &Arc<str>) -> Option<BrokerEvent> {
    let end = message.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&message[..end]).ok()?;
    let (offset, epoch) = line.strip_prefix("t1 ")?.split_once(' ')?;
    let offset = offset.parse().ok()?;
    let channel = channel.clone();
    Some(match decode_push(&message[end + 1..])? {
        PushEvent::Publication(publication) => {
            let publication = with_offset(publication, offset);
            let epoch = if epoch == &**known { known.clone() } else { epoch.into() };
            BrokerEvent::Publication { channel, publication, epoch }
        }
        PushEvent::Join(info) => {
            BrokerEvent::Membership { channel, info, change: Membership::Join }
        }
        PushEvent::Leave(info) => {
            BrokerEvent::Membership { channel, info, change: Membership::Leave }
        }
        _ => return None,
    })
}

/// A publication as a stream keeps it, under the entry's identifier.
pub(super) fn decode_retained(identifier: &[u8], payload: &[u8]) -> Option<Arc<Publication>> {
    let offset = std::str::from_utf8(identifier).ok()?.split('-').next()?.parse().ok()?;
    match decode_push(payload)? {
        PushEvent::Publication(publication) => Some(with_offset(publication, offset)),
        _ => None,
    }
}

/// A value of presence: the length of the user, a colon, the user, and the message that tells of the leave.
pub(super) fn encode_present(channel: &Arc<str>, info: &Arc<ClientInfo>) -> Vec<u8> {
    let mut out = format!("{}:{}", info.user.len(), info.user).into_bytes();
    out.extend(plain(channel, PushEvent::Leave(info.clone())));
    out
}

pub(super) fn decode_present(value: &[u8]) -> Option<Arc<ClientInfo>> {
    let colon = value.iter().position(|byte| *byte == b':')?;
    let user: usize = std::str::from_utf8(&value[..colon]).ok()?.parse().ok()?;
    let message = value.get(colon + 1..)?.get(user..)?;
    let end = message.iter().position(|byte| *byte == b'\n')?;
    match decode_push(&message[end + 1..])? {
        PushEvent::Leave(info) => Some(info),
        _ => None,
    }
}

fn decode_push(body: &[u8]) -> Option<PushEvent> {
    let replies = wire::protocol::decode_replies(Codec::Protobuf, body).ok()?;
    match replies.into_iter().next()?.body {
        ReplyBody::Push(push) => Some(push.event),
        _ => None,
    }
}

fn with_offset(mut publication: Arc<Publication>, offset: u64) -> Arc<Publication> {
    if publication.offset != offset {
        Arc::make_mut(&mut publication).offset = offset;
    }
    publication
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_and_strange_ones_are_none() {
        let channel: Arc<str> = "a".into();
        let publication =
            Arc::new(Publication { data: Bytes::from_static(b"{\n}"), ..Publication::default() });
        let push = encode_push(&channel, PushEvent::Publication(publication.clone()));
        let message = Bytes::from([b"t1 18446744073709551615 e\n", &push[..]].concat());
        let Some(BrokerEvent::Publication { publication: back, epoch, .. }) =
            decode(&channel, &message, &"e".into())
        else {
            panic!("no publication");
        };
        assert_eq!((&*epoch, back.offset, &back.data), ("e", u64::MAX, &publication.data));
        let retained = decode_retained(b"7-0", &push).unwrap();
        assert_eq!((retained.offset, &retained.data), (7, &publication.data));
        let info = Arc::new(ClientInfo { user: "a:ü\n".into(), ..ClientInfo::default() });
        assert_eq!(decode_present(&encode_present(&channel, &info)), Some(info));
        for strange in ["", "{}", "t1 1 e\n", "t1 x e\n", "t2 1 e\n"] {
            assert!(decode(&channel, &Bytes::from(strange), &"".into()).is_none(), "{strange:?}");
        }
        for strange in ["", "1:", "9:a", ":", "-1:a"] {
            assert!(decode_present(strange.as_bytes()).is_none(), "{strange:?}");
        }
    }
}
