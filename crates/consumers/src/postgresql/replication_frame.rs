//! Frames inside the copy stream of a replication connection.
//!
//! Invariant: any bytes give a frame or an error, never a panic.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::lsn::Lsn;
use super::pgoutput::postgres_time;

/// Bytes before the payload of [`ReplicationFrame::Data`].
pub(super) const DATA_HEAD: usize = 1 + 8 + 8 + 8;

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReplicationFrame {
    /// A message of the output plugin.
    Data {
        /// End of the server's log.
        log_end: Lsn,
        payload: Bytes,
    },
    /// A keepalive message.
    KeepAlive {
        /// End of the server's log, up to which it has sent everything.
        log_end: Lsn,
        /// Whether the server ends the connection unless it gets an answer soon.
        wants_reply: bool,
    },
}

/// The bytes are no frame of a replication stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server has sent a frame that is none of a replication stream")]
pub(super) struct NotReplication;

impl ReplicationFrame {
    pub(super) fn decode(mut frame: Bytes) -> Result<ReplicationFrame, NotReplication> {
        match frame.first() {
            Some(b'w') if frame.len() >= DATA_HEAD => {
                frame.advance(1 + 8);
                let log_end = Lsn(frame.get_u64());
                frame.advance(8);
                Ok(ReplicationFrame::Data { log_end, payload: frame })
            }
            Some(b'k') if frame.len() == 1 + 8 + 8 + 1 => {
                frame.advance(1);
                let log_end = Lsn(frame.get_u64());
                frame.advance(8);
                Ok(ReplicationFrame::KeepAlive { log_end, wants_reply: frame.get_u8() == 1 })
            }
            _ => Err(NotReplication),
        }
    }
}

/// What the consumer tells the server: everything before this place is done and may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StatusUpdate {
    pub(super) done: Lsn,
    pub(super) now_ms: i64,
}

impl StatusUpdate {
    pub(super) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + 8 * 4 + 1);
        out.put_u8(b'r');
        // Received, flushed and applied are one: nothing is kept here in between.
        for _ in 0..3 {
            out.put_u64(self.done.0);
        }
        out.put_i64(postgres_time(self.now_ms));
        out.put_u8(0);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_decoded() {
        let mut data = b"w".to_vec();
        data.extend([1u64, 2, 3].iter().flat_map(|number| number.to_be_bytes()));
        data.extend(b"payload");
        let frame = ReplicationFrame::Data { log_end: Lsn(2), payload: "payload".into() };
        assert_eq!(ReplicationFrame::decode(data.into()), Ok(frame));
        let mut alive = b"k".to_vec();
        alive.extend([7u64, 3].iter().flat_map(|number| number.to_be_bytes()));
        alive.push(1);
        let frame = ReplicationFrame::KeepAlive { log_end: Lsn(7), wants_reply: true };
        assert_eq!(ReplicationFrame::decode(alive.into()), Ok(frame));
    }

    #[test]
    fn an_update_names_one_place_three_times() {
        let update = StatusUpdate { done: Lsn(5), now_ms: 946_684_800_001 }.encode();
        assert_eq!(update.len(), 34);
        assert_eq!(update[1..9], update[17..25]);
        assert_eq!(update[25..33], 1000i64.to_be_bytes());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _any = ReplicationFrame::decode(bytes.into());
        }
    }
}
