//! Delivery of a channel's publications to its subscribers.
//!
//! Invariant: one look-up per publication and one encoding per variant, for any number of
//! subscribers. Each subscriber receives its next publication or is recorded as having a gap.

use std::sync::Arc;

use wire::protocol::{DisconnectCode, Publication, Push, PushEvent, Reply, ReplyBody};

use super::Worker;
use super::abandon::CurrentInput;
use crate::encoding::Variants;
use crate::hub::{ReceivedPosition, SubscriberKey};
use crate::session::{join, skipped};
use crate::subscribers::SubscriberPhase;
use crate::time::Now;

impl Worker {
    /// Delivers a publication: one look-up, one encoding per variant, one step per subscriber.
    pub(super) fn deliver(
        &mut self,
        now: Now,
        name: &str,
        publication: &Arc<Publication>,
        epoch: &Arc<str>,
    ) {
        let Worker { hub, sessions, out, rules, current_input, .. } = self;
        let Some((slot, channel)) = hub.find(name) else {
            return;
        };
        *current_input = CurrentInput::Channel(slot);
        out.counters.publications += 1;
        let offset = publication.offset;
        let gaps_before = out.gaps.len();
        if offset > 0 {
            let position = ReceivedPosition { epoch, offset };
            channel.handle_publication(now.monotonic_ms, slot, position, &mut out.gaps);
        }
        let has_lapsed = out.gaps.len() > gaps_before;
        let event = PushEvent::Publication(publication.clone());
        let push = Push { channel: channel.name.clone(), event };
        let mut variants = Variants::new(Reply { id: 0, body: ReplyBody::Push(push) });
        let queue_max_size = rules.client.queue_max_size;
        for (index, subscriber) in channel.subscribers.iter_mut() {
            let session = &mut sessions[subscriber.session as usize];
            if subscriber.phase == SubscriberPhase::Joining {
                let index = u32::try_from(index).expect("subscribers are numbered by u32");
                let subscriber_key = SubscriberKey { channel: slot, index };
                join::hold(session, subscriber_key, publication, (epoch, queue_max_size));
                continue;
            }
            if subscriber.is_positioned && offset > 0 {
                if has_lapsed || offset <= subscriber.offset {
                    continue;
                }
                if offset > subscriber.offset + 1 {
                    let index = u32::try_from(index).expect("subscribers are numbered by u32");
                    out.gaps.push((subscriber.session, SubscriberKey { channel: slot, index }));
                    continue;
                }
                subscriber.offset = offset;
            }
            match variants.frame(&mut out.encoder, session.encoding) {
                Ok(frame) => {
                    out.counters.deliveries += 1;
                    session.send_frame(out, frame.clone(), queue_max_size);
                }
                Err(_) => skipped::notify(session, out, &rules.client, &channel.name),
            }
        }
        *current_input = CurrentInput::Nothing;
    }

    /// Ends all subscriptions to an expired channel.
    pub(super) fn end_channel(&mut self, now: Now, name: &str) {
        let Some((slot, channel)) = self.hub.find(name) else {
            return;
        };
        let subscriber_key = |index: usize| {
            let index = u32::try_from(index).expect("subscribers are numbered by u32");
            SubscriberKey { channel: slot, index }
        };
        let subscribers: Vec<(u32, SubscriberKey)> = channel
            .subscribers
            .iter()
            .map(|(index, subscriber)| (subscriber.session, subscriber_key(index)))
            .collect();
        for (slot, subscriber_key) in subscribers {
            let Some(session) = self.sessions.get(slot as usize) else {
                continue;
            };
            let key = session.key;
            self.with_session(now, key, |session, turn| {
                if let Some(index) = session.find_subscription(subscriber_key) {
                    join::handle_expired(session, turn, index);
                }
            });
            self.settle(now, key);
        }
    }

    pub(super) fn notify_members(&mut self, name: &str, event: PushEvent) {
        let Worker { hub, sessions, out, rules, .. } = self;
        let Some((_, channel)) = hub.find(name) else {
            return;
        };
        let push = Push { channel: channel.name.clone(), event };
        let mut variants = Variants::new(Reply { id: 0, body: ReplyBody::Push(push) });
        for (_, subscriber) in channel.subscribers.iter() {
            if subscriber.phase != SubscriberPhase::Live || !subscriber.wants_membership {
                continue;
            }
            let session = &mut sessions[subscriber.session as usize];
            match variants.frame(&mut out.encoder, session.encoding) {
                Ok(frame) => {
                    out.counters.deliveries += 1;
                    session.send_frame(out, frame.clone(), rules.client.queue_max_size);
                }
                // Joins contain only client information, which can be left out.
                Err(_) => session.close(out, DisconnectCode::InappropriateProtocol),
            }
        }
    }
}
