//! Bytes on their way to one server. Whoever has some writes them itself while the socket takes them: a thread less to
//! wake for each. What the socket does not take yet waits for the connection's pump.
//!
//! Invariant: bytes leave in the order in which they were sent, and while the pump writes nobody else does.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

/// See the module.
#[derive(Debug)]
pub(super) struct Pipe {
    /// A second handle of the socket, without a wait; with TLS there is none.
    direct: Option<TcpStream>,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// The pump has bytes that were sent before.
    is_pumping: bool,
}

impl Pipe {
    pub(super) fn new(direct: Option<TcpStream>) -> Pipe {
        Pipe { direct, waiting: Mutex::default(), wake: Notify::new() }
    }

    /// Sends, and empties, the bytes.
    pub(super) fn send(&self, bytes: &mut Vec<u8>) {
        let mut waiting = self.waiting();
        let mut written = 0;
        if !waiting.is_pumping
            && waiting.bytes.is_empty()
            && let Some(mut direct) = self.direct.as_ref()
        {
            // What is wrong with the socket, the pump will find and say.
            written = direct.write(bytes).unwrap_or(0);
        }
        if written < bytes.len() {
            waiting.bytes.extend_from_slice(&bytes[written..]);
            self.wake.notify_one();
        }
        bytes.clear();
    }

    /// Writes what waits, whenever something does. Ends with what is wrong with the socket.
    pub(super) async fn pump(&self, mut socket: impl AsyncWrite + Unpin) -> io::Error {
        loop {
            let bytes = self.next();
            if bytes.is_empty() {
                self.wake.notified().await;
                continue;
            }
            let written = async {
                socket.write_all(&bytes).await?;
                socket.flush().await
            };
            if let Err(error) = written.await {
                return error;
            }
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut waiting = self.waiting();
        waiting.is_pumping = !waiting.bytes.is_empty();
        std::mem::take(&mut waiting.bytes)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Arc;

    use super::*;

    /// So many, of four bytes each, that no socket takes them all at once.
    const NUMBERS: u32 = 4_000_000;

    /// Sends while a slower reader takes and the pump runs; gives what was read.
    fn carry(is_direct: bool) -> Vec<u32> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let pipe = Arc::new(Pipe::new(is_direct.then(|| stream.try_clone().unwrap())));
        let sender = pipe.clone();
        let sent = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            for number in 0..NUMBERS {
                bytes.extend_from_slice(&number.to_be_bytes());
                if number % 1_000 == 999 {
                    sender.send(&mut bytes);
                    assert!(bytes.is_empty());
                }
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let read = runtime.block_on(async {
            let socket = tokio::net::TcpStream::from_std(stream).unwrap();
            let read = tokio::task::spawn_blocking(move || {
                let (mut socket, _) = listener.accept().unwrap();
                let mut numbers = vec![0; NUMBERS as usize * 4];
                socket.read_exact(&mut numbers).unwrap();
                numbers
            });
            tokio::select! {
                error = pipe.pump(socket) => panic!("{error}"),
                read = read => read.unwrap(),
            }
        });
        sent.join().unwrap();
        read.chunks_exact(4).map(|four| u32::from_be_bytes(four.try_into().unwrap())).collect()
    }

    #[test]
    fn bytes_leave_in_their_order_by_two_ways() {
        assert!(carry(true).into_iter().eq(0..NUMBERS));
    }

    #[test]
    fn bytes_leave_in_their_order_by_the_pump_alone() {
        assert!(carry(false).into_iter().eq(0..NUMBERS));
    }
}
