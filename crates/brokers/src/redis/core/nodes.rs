//! This node among the nodes: its lease, its clients, its questions, and whom it clears away.
//!
//! All of it lies in the first partition, but for the presence of a node that is gone, which lies in all. Invariant: each step
//! may be lost or done twice; whoever comes next goes on from what Redis knows.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use engine::broker::{BrokerError, BrokerEvent, BrokerReply, BrokerRequest, Survey, Ticket};

use super::super::command::Place;
use super::super::link::{Asked, Purpose, Sent};
use super::super::registry::Burial;
use super::super::resp::Frame;
use super::Core;
use crate::control::{self, Message};
use crate::limits::{CLOCK_SKEW_MAX, PARTITIONS, SURVEY_TIMEOUT};

/// A question to all nodes.
pub(super) struct Asking {
    asked: Asked,
    /// Who has not answered; `None` until Redis has said who lives.
    missing: Option<HashSet<String>>,
    answers: Vec<Bytes>,
    deadline: Instant,
}

/// The partition of what nodes know of each other.
const FIRST: usize = 0;

/// Why clients of a node that was not there any more are offline.
const NODE_LOST: &str = "node lost";

/// Why those are that were left when a node ended.
const NODE_ENDED: &str = "shutdown";

impl Core {
    /// Writes one command for a partition; says whether anything can be asked there now.
    pub(super) fn write(
        &mut self,
        now: Instant,
        index: usize,
        purpose: Purpose,
        form: impl FnOnce(&super::Commander, Place<'_>, &mut Vec<u8>),
    ) -> bool {
        let is_waiting = self.partitions[index].moving.is_some();
        let up = self.links.usable(self.partitions[index].link).filter(|_| !is_waiting);
        let Some(up) = up else { return false };
        let partition = index % PARTITIONS;
        let place = Place { keys: &self.keys, opened: &up.opened, partition };
        form(&self.commander, place, &mut up.out);
        up.expect(Sent { partition: index, deadline: now + self.io_timeout, purpose });
        self.partitions[index].in_flight += 1;
        true
    }

    /// What the node has to say of itself goes out, when it is time.
    pub(super) fn tell_nodes(&mut self, now: Instant) {
        if self.registry.begins_renewal(now) {
            let asked = self.write(now, FIRST, Purpose::Lease, |commander, place, out| {
                commander.lease(place, out);
            });
            if !asked {
                self.registry.handle_renewal_failed(now);
            }
        }
        let overdue = self.surveys.iter().filter(|(_, asking)| asking.deadline <= now);
        let overdue: Vec<u64> = overdue.map(|(number, _)| *number).collect();
        overdue.into_iter().for_each(|number| self.end_survey(number));
    }

    /// Clients that came and went are told.
    pub(super) fn tell_news(&mut self, now: Instant) {
        if !self.registry.is_member {
            return;
        }
        let Some(news) = self.registry.news.take() else { return };
        let told = self.write(now, FIRST, Purpose::News(news.clone()), |commander, place, out| {
            commander.lifecycle(place, &news, out);
        });
        if !told {
            self.registry.news.take_back(news);
        }
    }

    /// The first partition has a server, which may not know what another knew.
    pub(super) fn enter_registry(&mut self, now: Instant) {
        self.registry.want_renewal(now);
        self.registry.news.tell_all();
        self.scan(now, b"0");
    }

    fn scan(&mut self, now: Instant, cursor: &[u8]) {
        // Whoever cannot be asked now is when it is back.
        let _later = self.write(now, FIRST, Purpose::Scan, |commander, place, out| {
            commander.scan(place, cursor, out);
        });
    }

    /// What became of a command of this file.
    pub(super) fn handle_told(&mut self, now: Instant, purpose: &Purpose, frame: &Frame) {
        match purpose {
            Purpose::News(_) => self.registry.news.handle_told(),
            Purpose::Life(channel) => self.handle_life(now, channel, frame),
            Purpose::Lease => self.handle_lease(now, frame),
            Purpose::Scan => {
                let Some([cursor, clients]) = frame.list() else { return };
                for pair in clients.list().unwrap_or_default().chunks_exact(2) {
                    if let (Some(client), Some(user)) = (pair[0].str(), pair[1].str()) {
                        self.registry.news.check(client, user, unix_ms());
                    }
                }
                if let Some(cursor) = cursor.text().filter(|cursor| &cursor[..] != b"0") {
                    let cursor = cursor.clone();
                    self.scan(now, &cursor);
                }
            }
            &Purpose::Survey(number) => {
                let nodes = frame.list().unwrap_or_default().iter().filter_map(Frame::str);
                let others = nodes.filter(|node| *node != self.commander.node);
                let others = others.map(str::to_owned).collect();
                if let Some(asking) = self.surveys.get_mut(&number) {
                    asking.missing = Some(others);
                }
                self.end_survey_if_done(number);
            }
            Purpose::Haunts => self.handle_haunts(now, frame),
            Purpose::Evict => {
                if let Some(burial) = &mut self.registry.burial {
                    burial.channels = burial.channels.saturating_sub(1);
                    self.go_on_burying(now);
                }
            }
            Purpose::Bury => match (frame.i64(), &self.registry.burial) {
                (Some(1..), Some(_)) => self.bury(now),
                _ => self.registry.burial = None,
            },
            _ => {}
        }
    }

    /// A command of this file has failed, or nobody knows what became of it.
    pub(super) fn handle_untold(&mut self, now: Instant, purpose: Purpose) {
        match purpose {
            Purpose::News(news) => self.registry.news.take_back(news),
            Purpose::Lease => self.registry.handle_renewal_failed(now),
            Purpose::Survey(number) => self.end_survey(number),
            // The node's lease has ended still: somebody is told again.
            Purpose::Haunts | Purpose::Evict | Purpose::Bury => self.registry.burial = None,
            _ => {}
        }
    }

    fn handle_lease(&mut self, now: Instant, frame: &Frame) {
        let Some([lasted, time, dead, twin]) = frame.list() else { return };
        let was_member = std::mem::replace(&mut self.registry.is_member, true);
        if lasted.u64() == Some(0) && was_member {
            // Others hold this node for gone: everybody is told again that they are here.
            self.registry.news.tell_all();
            for index in 0..self.partitions.len() {
                self.enter(now, index);
            }
        }
        let skew_ms = time.u64().map_or(0, |time| unix_ms() - i64::try_from(time).unwrap_or(0));
        if Duration::from_millis(skew_ms.unsigned_abs()) > CLOCK_SKEW_MAX {
            let text = format!(
                "the clock of this node is {skew_ms} ms before that of Redis: tokens and subscriptions end at other times here than on other nodes"
            );
            self.shared.complain(text);
        }
        if twin.str().is_some_and(|twin| !twin.is_empty()) {
            let name = &self.commander.name;
            self.shared.complain(format!(
                "another node is called {name:?} too: events and the API do not tell them apart (node.name)"
            ));
        }
        if let Some(dead) = dead.str().filter(|dead| !dead.is_empty())
            && self.registry.burial.is_none()
        {
            let node = dead.to_owned();
            self.registry.burial = Some(Burial { node, partition: 0, channels: 0 });
            self.ask_haunts(now);
        }
    }

    /// Asks for the channels of a partition in which the clients of the gone node are present.
    fn ask_haunts(&mut self, now: Instant) {
        let Some(Burial { node, partition, .. }) = &self.registry.burial else { return };
        let (node, partition) = (node.clone(), *partition);
        let asked = self.write(now, partition, Purpose::Haunts, |_, place, out| {
            place.haunts(&node, out);
        });
        if !asked {
            self.registry.burial = None;
        }
    }

    fn handle_haunts(&mut self, now: Instant, frame: &Frame) {
        let Some(burial) = &mut self.registry.burial else { return };
        let channels = frame.list().unwrap_or_default();
        burial.channels = channels.len();
        let (node, partition) = (burial.node.clone(), burial.partition);
        for channel in channels.iter().filter_map(Frame::str) {
            let asked = self.write(now, partition, Purpose::Evict, |_, place, out| {
                place.evict(&node, channel, out);
            });
            if !asked {
                self.registry.burial = None;
                return;
            }
        }
        self.go_on_burying(now);
    }

    /// One partition after the other; when the node's clients are present nowhere, they are told to be offline.
    fn go_on_burying(&mut self, now: Instant) {
        let count = self.partitions.len();
        let Some(burial) = self.registry.burial.as_mut().filter(|burial| burial.channels == 0)
        else {
            return;
        };
        burial.partition += 1;
        if burial.partition < count { self.ask_haunts(now) } else { self.bury(now) }
    }

    fn bury(&mut self, now: Instant) {
        let Some(Burial { node, .. }) = &self.registry.burial else { return };
        let node = node.clone();
        let is_self = node == self.commander.node;
        let reason = if is_self { NODE_ENDED } else { NODE_LOST };
        let asked = self.write(now, FIRST, Purpose::Bury, |commander, place, out| {
            commander.bury(place, &node, reason, is_self, out);
        });
        if !asked {
            self.registry.burial = None;
        }
    }

    /// This node ends. Its clients have left; what is left all the same goes with it.
    pub(in crate::redis) fn leave_registry(&mut self, now: Instant) {
        self.tell_news(now);
        if self.registry.is_member && self.registry.news.is_quiet() {
            self.registry.is_member = false;
            let (node, partition) = (self.commander.node.clone(), self.partitions.len());
            self.registry.burial = Some(Burial { node, partition, channels: 0 });
            self.bury(now);
        }
    }

    /// Asks all other nodes.
    pub(super) fn survey(&mut self, now: Instant, asked: Asked) {
        let BrokerRequest::Survey { question, .. } = &asked.request else { return };
        let number = self.random.next_u64();
        let ticket = Ticket { node: self.commander.node.clone(), number };
        let payload = control::encode_question(&ticket, question);
        let sent = self.write(now, FIRST, Purpose::Survey(number), |_, place, out| {
            place.survey(&payload, out);
        });
        if !sent {
            return self.fail(asked);
        }
        let (missing, answers, deadline) = (None, Vec::new(), now + SURVEY_TIMEOUT);
        self.surveys.insert(number, Asking { asked, missing, answers, deadline });
    }

    fn end_survey_if_done(&mut self, number: u64) {
        let asking = self.surveys.get(&number);
        if asking.is_some_and(|asking| asking.missing.as_ref().is_some_and(HashSet::is_empty)) {
            self.end_survey(number);
        }
    }

    fn end_survey(&mut self, number: u64) {
        let Some(Asking { asked, missing, answers, .. }) = self.surveys.remove(&number) else {
            return;
        };
        let result = match missing {
            Some(missing) => Ok(BrokerReply::Survey(Survey { answers, missing: missing.len() })),
            None => Err(BrokerError::Unavailable),
        };
        if let Some(id) = asked.request.id() {
            self.reply(asked.party, id, result);
        }
    }

    /// A node has something to say.
    pub(super) fn handle_message(&mut self, message: Message) {
        match message {
            Message::Order(control) => self.shared.parties.tell(&control.into()),
            Message::Question { ticket, question } if ticket.node != self.commander.node => {
                let event = BrokerEvent::Question { ticket, question };
                self.shared.parties.tell_all(&event);
            }
            Message::Question { .. } => {}
            Message::Answer { node, number, answer } => {
                if let Some(asking) = self.surveys.get_mut(&number)
                    && asking.missing.as_mut().is_some_and(|missing| missing.remove(&node))
                {
                    asking.answers.push(answer);
                    self.end_survey_if_done(number);
                }
            }
        }
    }
}

pub(super) fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
