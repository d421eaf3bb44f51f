//! Publications that are not JSON, for clients whose messages are.
//!
//! Invariant: the subscription continues as if the publication had been delivered, so that its
//! position stays continuous. The client is notified once for each subscription, by a message that
//! SDKs pass to the application. Ending the subscription or the connection would not help: the
//! client would reconnect, recover, and receive the publication again.

use std::sync::Arc;

use wire::protocol::{DisconnectCode, Push, PushEvent, Reply, ReplyBody};

use super::{Phase, SentPart, Session};
use crate::encoding::not_json;
use crate::rules::ClientRules;
use crate::turn::{Effect, Outputs, SessionNotice, Turn};

/// Content of the notification to the application.
const NOTICE: &str = r#"{"notice":"publication skipped","reason":"its data is not JSON; clients of the Protobuf protocol can read it"}"#;

/// Sends a reply without the publications that are not JSON. Notifies the client for the channels
/// that the reply names; the caller does so for others.
pub(super) fn send_rest(session: &mut Session, turn: &mut Turn<'_>, reply: &Reply) -> SentPart {
    let rules = &turn.rules.client;
    if let ReplyBody::Push(Push { channel, event: PushEvent::Publication(_) }) = &reply.body {
        notify(session, turn.out, rules, channel);
        return SentPart::Whole;
    }
    let rest = not_json::without_publications(&reply.body).and_then(|(body, channels)| {
        let rest = Reply { id: reply.id, body };
        let frame = turn.out.encoder.frame(session.encoding, &rest).ok()?;
        Some((frame, channels))
    });
    let Some((frame, channels)) = rest else {
        // The reply consists of data that is not JSON.
        session.close(turn.out, DisconnectCode::InappropriateProtocol);
        return SentPart::Whole;
    };
    session.send_frame(turn.out, frame, rules.queue_max_size);
    for channel in channels {
        notify(session, turn.out, rules, &channel.into());
    }
    if matches!(reply.body, ReplyBody::Connect(_)) { SentPart::Whole } else { SentPart::InPart }
}

/// Notifies a client once that it misses publications of this channel.
pub(crate) fn notify(
    session: &mut Session,
    out: &mut Outputs,
    rules: &ClientRules,
    channel: &Arc<str>,
) {
    if session.phase == Phase::Closed {
        return;
    }
    if let Some(index) = session.find(channel) {
        let traits = &mut session.subscriptions[index].traits;
        if std::mem::replace(&mut traits.was_notified_of_skip, true) {
            return;
        }
    }
    let (key, cause) = (session.key, SessionNotice::Skipped);
    out.effects.push_back(Effect::Note { key, channel: channel.clone(), cause });
    let event = PushEvent::Message { data: NOTICE.into() };
    let push = Push { channel: channel.clone(), event };
    if let Ok(frame) =
        out.encoder.frame(session.encoding, &Reply { id: 0, body: ReplyBody::Push(push) })
    {
        session.send_frame(out, frame, rules.queue_max_size);
    }
}
