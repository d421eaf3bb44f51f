//! Revocations: stored in the first partition, sent to all nodes, read in parts.
//!
//! Invariant: reading occupies the server and the connection for no longer at once than one part
//! takes.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use engine::broker::{BrokerReply, BrokerRequest};
use engine::revocation::{Revocation, Subject};

use super::super::command::CommandTarget;
use super::super::link::{OpenRequest, Purpose, SentCommand};
use super::super::resp::{Frame, encode};
use super::super::scripts::Script;
use super::Core;
use super::nodes::FIRST;
use crate::control;
use crate::limits::REVOCATIONS_PER_COMMAND;

/// A read of all revocations for an endpoint.
pub(in crate::redis) struct RevocationRead {
    pub(in crate::redis) asked: OpenRequest,
    found: Vec<Arc<Revocation>>,
}

impl Core {
    pub(super) fn read_revocations(&mut self, now: Instant, asked: OpenRequest) {
        self.read_part(now, RevocationRead { asked, found: Vec::new() }, b"0");
    }

    fn read_part(&mut self, now: Instant, reading: RevocationRead, cursor: &[u8]) {
        let Some(up) = self.links.usable(self.partitions[FIRST].link) else {
            return self.fail(reading.asked);
        };
        if self.partitions[FIRST].moving.is_some() {
            return self.fail(reading.asked);
        }
        let place = CommandTarget { keys: &self.keys, opened: &up.opened, partition: FIRST };
        place.read_revocations(cursor, &mut up.out);
        let (deadline, purpose) = (now + self.io_timeout, Purpose::Revocations(Box::new(reading)));
        up.expect(SentCommand::new(FIRST, deadline, purpose));
        self.partitions[FIRST].in_flight += 1;
    }

    /// Handles one part: a cursor, and pairs of subject and change. `HSCAN` may return an entry
    /// twice.
    pub(super) fn handle_revocations(
        &mut self,
        now: Instant,
        mut reading: RevocationRead,
        frame: &Frame,
    ) {
        let part = frame.list().and_then(|part| match part {
            [cursor, pairs] => Some((cursor.text()?.clone(), pairs.list()?)),
            _ => None,
        });
        let Some((cursor, pairs)) = part else { return self.fail(reading.asked) };
        let now_s = now_s();
        let changes = pairs.chunks_exact(2).filter_map(|pair| pair[1].text());
        let changes = changes.filter_map(|change| control::decode_revocation(change));
        reading.found.extend(changes.filter(|change| change.ends_at > now_s).map(Arc::new));
        if &cursor[..] != b"0" {
            return self.read_part(now, reading, &cursor);
        }
        if let BrokerRequest::ReadRevocations { id } = reading.asked.request {
            let result = Ok(BrokerReply::Revocations(reading.found));
            self.reply(reading.asked.endpoint, id, result);
        }
    }
}

impl CommandTarget<'_> {
    /// Writes a revocation.
    pub(in crate::redis) fn revoke(self, revocation: &Revocation, out: &mut Vec<u8>) {
        let keys = ["revocations", "revocation_ends"].map(|name| self.keys.registry(name));
        let subject = control::subject_key(&revocation.subject);
        let ends_at = revocation.ends_at.to_string();
        let (change, channel) = (control::encode_revocation(revocation), self.keys.control());
        let words = [
            subject.as_bytes(),
            ends_at.as_bytes(),
            &change,
            self.publish_command(),
            channel.as_bytes(),
        ];
        self.script(Script::Revoke, &keys, &words, out);
    }

    /// Writes a read of one subject's revocation.
    pub(in crate::redis) fn find_revocation(self, subject: &Subject, out: &mut Vec<u8>) {
        let key = self.keys.registry("revocations");
        let subject = control::subject_key(subject);
        encode(out, &[b"HGET", key.as_bytes(), subject.as_bytes()]);
    }

    /// Writes a read of a part of the revocations.
    fn read_revocations(self, cursor: &[u8], out: &mut Vec<u8>) {
        let key = self.keys.registry("revocations");
        let count = REVOCATIONS_PER_COMMAND.to_string();
        encode(out, &[b"HSCAN", key.as_bytes(), cursor, b"COUNT", count.as_bytes()]);
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
