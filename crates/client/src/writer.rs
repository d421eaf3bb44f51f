//! The half of a socket that is written.
//!
//! Invariant: a step may be dropped at any time, and nothing is lost or sent twice. A server that
//! takes no byte for the given time counts as lost, so that what waits for it does not wait for
//! ever.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::time::timeout_at;

use crate::socket::ClientSocket;

/// The writing half of a socket.
pub(crate) struct SocketWriter {
    half: WriteHalf<ClientSocket>,
    bytes: Bytes,
    is_flushed: bool,
    timeout: Duration,
    /// When the next step must have been taken.
    due: Instant,
}

impl SocketWriter {
    pub(crate) fn new(half: WriteHalf<ClientSocket>, timeout: Duration) -> SocketWriter {
        let due = Instant::now();
        SocketWriter { half, bytes: Bytes::new(), is_flushed: true, timeout, due }
    }

    /// Whether there is nothing to write; more bytes may be given then.
    pub(crate) fn is_idle(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn send(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes.into();
        self.is_flushed = false;
        self.due = Instant::now() + self.timeout;
    }

    /// Writes some bytes, or flushes when there are none; waits forever when all is done.
    pub(crate) async fn step(&mut self) -> io::Result<()> {
        if self.is_flushed {
            return std::future::pending().await;
        }
        let step = async {
            if self.bytes.has_remaining() {
                self.half.write_buf(&mut self.bytes).await?;
                return io::Result::Ok(false);
            }
            self.half.flush().await?;
            Ok(true)
        };
        let Ok(result) = timeout_at(self.due.into(), step).await else {
            let text = format!("the server has read nothing for {:?}", self.timeout);
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        };
        self.is_flushed = result?;
        self.due = Instant::now() + self.timeout;
        Ok(())
    }

    /// Writes everything, with these bytes at the end, and closes this half.
    pub(crate) async fn finish(&mut self, last: Vec<u8>) -> io::Result<()> {
        self.half.write_all(&self.bytes).await?;
        self.half.write_all(&last).await?;
        self.half.shutdown().await
    }
}
