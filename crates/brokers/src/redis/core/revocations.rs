//! Revocations: stored in the first partition, sent to all nodes, read in parts.
//!
//! Invariant: reading occupies the server and the connection for no longer at once than one part
//! takes.

use std::sync::Arc;

use engine::broker::BrokerError;
use engine::revocation::Revocation;

use super::super::clock::MonotonicTime;
use super::super::command::CommandTarget;
use super::super::link::{Purpose, SentCommand};
use super::super::open_request::Asker;
use super::super::resp::Frame;
use super::super::revocation_read::{RevocationPart, RevocationRead};
use super::RedisCore;
use super::nodes::FIRST;

impl RedisCore {
    pub(super) fn read_revocations(
        &mut self,
        now: MonotonicTime,
        asker: Asker<Vec<Arc<Revocation>>>,
    ) {
        self.read_part(now, RevocationRead::new(asker), b"0");
    }

    fn read_part(&mut self, now: MonotonicTime, reading: RevocationRead, cursor: &[u8]) {
        let Some(connection) = self.links.usable(self.partitions[FIRST].link) else {
            return self.answer(&reading.asker, Err(BrokerError::Unavailable));
        };
        if self.partitions[FIRST].hold.is_some() {
            return self.answer(&reading.asker, Err(BrokerError::Unavailable));
        }
        let target =
            CommandTarget { keys: &self.keys, opened: &connection.opened, partition: FIRST };
        target.read_revocations(cursor, &mut connection.out);
        let (deadline, purpose) = (now + self.io_timeout, Purpose::Revocations(Box::new(reading)));
        connection.expect(SentCommand::new(FIRST, deadline, purpose));
        self.partitions[FIRST].in_flight += 1;
    }

    /// Handles one part: a cursor, and pairs of subject and change. `HSCAN` may return an entry
    /// twice.
    pub(super) fn handle_revocations(
        &mut self,
        now: MonotonicTime,
        mut reading: RevocationRead,
        frame: &Frame,
    ) {
        match reading.take_part(frame, self.unix_ms.div_euclid(1000)) {
            None => return self.answer(&reading.asker, Err(BrokerError::Unavailable)),
            Some(RevocationPart::More(cursor)) => return self.read_part(now, reading, &cursor),
            Some(RevocationPart::Last) => {}
        }
        self.answer(&reading.asker, Ok(reading.found));
    }
}
