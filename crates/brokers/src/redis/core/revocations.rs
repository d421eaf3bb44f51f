//! Revocations: stored in the first partition, sent to all nodes, read in parts.
//!
//! Invariant: reading occupies the server and the connection for no longer at once than one part
//! takes.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use engine::broker::BrokerError;
use engine::revocation::Revocation;

use super::super::command::CommandTarget;
use super::super::link::{Purpose, SentCommand};
use super::super::open_request::Asker;
use super::super::resp::Frame;
use super::super::revocation_read::{RevocationPart, RevocationRead};
use super::Core;
use super::nodes::FIRST;

impl Core {
    pub(super) fn read_revocations(&mut self, now: Instant, asker: Asker<Vec<Arc<Revocation>>>) {
        self.read_part(now, RevocationRead::new(asker), b"0");
    }

    fn read_part(&mut self, now: Instant, reading: RevocationRead, cursor: &[u8]) {
        let Some(up) = self.links.usable(self.partitions[FIRST].link) else {
            return self.answer(&reading.asker, Err(BrokerError::Unavailable));
        };
        if self.partitions[FIRST].moving.is_some() {
            return self.answer(&reading.asker, Err(BrokerError::Unavailable));
        }
        let target = CommandTarget { keys: &self.keys, opened: &up.opened, partition: FIRST };
        target.read_revocations(cursor, &mut up.out);
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
        match reading.take_part(frame, now_s()) {
            None => return self.answer(&reading.asker, Err(BrokerError::Unavailable)),
            Some(RevocationPart::More(cursor)) => return self.read_part(now, reading, &cursor),
            Some(RevocationPart::Last) => {}
        }
        self.answer(&reading.asker, Ok(reading.found));
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
