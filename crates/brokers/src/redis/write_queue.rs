//! Output to one server. The sending thread writes directly while the socket accepts bytes, which
//! saves waking another thread. Remaining bytes wait for the connection's pump.
//!
//! Invariant: bytes leave in the order in which they were sent, and no thread writes while the pump
//! does.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

/// The output of one connection.
#[derive(Debug)]
pub(super) struct WriteQueue {
    /// Non-blocking handle of the same socket; `None` with TLS.
    direct: Option<TcpStream>,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

/// Capacity in bytes that a sender's buffer keeps.
const ROOM_MAX: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Whether the pump is writing bytes that were sent earlier.
    is_pumping: bool,
}

impl WriteQueue {
    pub(super) fn new(direct: Option<TcpStream>) -> WriteQueue {
        WriteQueue { direct, waiting: Mutex::default(), wake: Notify::new() }
    }

    /// Sends the bytes and empties the buffer.
    pub(super) fn send(&self, bytes: &mut Vec<u8>) {
        let mut waiting = self.waiting();
        let mut written = 0;
        if !waiting.is_pumping
            && waiting.bytes.is_empty()
            && let Some(mut direct) = self.direct.as_ref()
        {
            // The pump meets and reports errors of the socket.
            written = direct.write(bytes).unwrap_or(0);
        }
        if written < bytes.len() {
            bytes.drain(..written);
            match waiting.bytes.is_empty() {
                true => std::mem::swap(&mut waiting.bytes, bytes),
                false => waiting.bytes.append(bytes),
            }
            self.wake.notify_one();
        }
        bytes.clear();
        // The burst after a reconnect can make the buffer large.
        bytes.shrink_to(ROOM_MAX);
    }

    /// Writes waiting bytes as they come; returns the error that ends it.
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
    use std::os::fd::AsFd as _;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::net::{TcpSocket, TcpStream};

    use super::*;

    const NUMBERS: u32 = 2_000_000;
    /// Numbers, four bytes each, in one send.
    const PIECE: u32 = 1_000;

    /// Number of sends by how they were written.
    #[derive(Debug, Default, PartialEq)]
    struct Ways {
        at_once: u32,
        by_the_pump: u32,
        at_once_behind_the_pump: u32,
    }

    fn send_all(queue: &WriteQueue) -> Ways {
        let (mut bytes, mut ways) = (Vec::new(), Ways::default());
        for number in 0..NUMBERS {
            bytes.extend_from_slice(&number.to_be_bytes());
            if number % PIECE != PIECE - 1 {
                continue;
            }
            queue.send(&mut bytes);
            assert!(bytes.is_empty());
            let is_open = || {
                let waiting = queue.waiting();
                waiting.bytes.is_empty() && !waiting.is_pumping
            };
            match (is_open(), ways.by_the_pump) {
                (true, 0) => ways.at_once += 1,
                (true, _) => ways.at_once_behind_the_pump += 1,
                (false, _) => ways.by_the_pump += 1,
            }
            // Sometimes the pump catches up.
            while number % (100 * PIECE) == 100 * PIECE - 1 && !is_open() {
                std::thread::yield_now();
            }
        }
        ways
    }

    /// Reads more slowly than the sender writes.
    fn read_slowly(listener: &TcpListener) -> Vec<u32> {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut read = vec![0; NUMBERS as usize * 4];
        for piece in read.chunks_mut(256 * 1024) {
            std::thread::sleep(Duration::from_millis(2));
            socket.read_exact(piece).unwrap();
        }
        read.chunks_exact(4).map(|four| u32::from_be_bytes(four.try_into().unwrap())).collect()
    }

    fn carry(is_direct: bool) -> (Ways, Vec<u32>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_send_buffer_size(16 * 1024).unwrap();
            let socket: TcpStream = socket.connect(address).await.unwrap();
            let second = || socket.as_fd().try_clone_to_owned().unwrap().into();
            let queue = Arc::new(WriteQueue::new(is_direct.then(second)));
            let sender = queue.clone();
            let sent = std::thread::spawn(move || send_all(&sender));
            let read = tokio::task::spawn_blocking(move || read_slowly(&listener));
            tokio::select! {
                error = queue.pump(socket) => panic!("{error}"),
                read = read => (sent.join().unwrap(), read.unwrap()),
            }
        })
    }

    #[test]
    fn direct_and_pumped_writes_keep_their_order() {
        let (ways, read) = carry(true);
        assert!(read.into_iter().eq(0..NUMBERS));
        assert!(ways.by_the_pump > 0 && ways.at_once_behind_the_pump > 0, "{ways:?}");
    }

    #[test]
    fn no_write_overtakes_a_pump_that_waits_for_the_socket() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let direct = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        direct.set_nonblocking(true).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let queue = WriteQueue::new(Some(direct));
        let mut sent = 0;
        while queue.waiting().bytes.is_empty() {
            queue.send(&mut vec![0; 64 * 1024]);
            sent += 64 * 1024;
        }
        sent -= queue.waiting().bytes.len();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (full, _other) = tokio::io::duplex(1);
            tokio::select! {
                biased;
                error = queue.pump(full) => panic!("{error}"),
                () = tokio::task::yield_now() => {}
            }
        });
        // The socket has room again, but the pump has not written yet.
        peer.read_exact(&mut vec![0; sent]).unwrap();
        queue.send(&mut b"later".to_vec());
        assert_eq!(queue.waiting().bytes, b"later");
    }

    #[test]
    fn pumped_writes_keep_their_order() {
        let (_, read) = carry(false);
        assert!(read.into_iter().eq(0..NUMBERS));
    }
}
