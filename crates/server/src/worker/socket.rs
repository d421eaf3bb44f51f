//! A non-blocking socket, plain or with TLS, with one interface.
//!
//! Invariant: `read` and `send` return `WouldBlock` only after the kernel has returned it, so that
//! a readiness event will follow.

use std::io::{self, IoSlice, Read, Write};

use engine::outbox::Outbox;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ServerConnection;

use crate::limits::SLICES_PER_WRITE;

/// Socket of a connection on a worker.
pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsSocket>),
}

pub(super) struct TlsSocket {
    tcp: TcpStream,
    tls: ServerConnection,
}

/// Result of a read.
pub(super) struct ReadResult {
    pub(super) count: usize,
    /// The kernel has no more data for now.
    pub(super) is_drained: bool,
}

impl Socket {
    pub(super) fn plain(tcp: std::net::TcpStream) -> Socket {
        Socket::Plain(TcpStream::from_std(tcp))
    }

    pub(super) fn tls(tcp: std::net::TcpStream, tls: ServerConnection) -> Socket {
        Socket::Tls(Box::new(TlsSocket { tcp: TcpStream::from_std(tcp), tls }))
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(self.tcp(), token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<ReadResult> {
        match self {
            Socket::Plain(tcp) => {
                let count = tcp.read(buffer)?;
                // A short read of a stream means that it is empty (epoll(7)); the end shows as a
                // read of zero.
                Ok(ReadResult { count, is_drained: count > 0 && count < buffer.len() })
            }
            Socket::Tls(socket) => {
                let count = socket.read(buffer)?;
                Ok(ReadResult { count, is_drained: false })
            }
        }
    }

    /// Writes queued frames with one system call and returns the number of bytes taken. With TLS
    /// some of them may need [`Socket::flush`].
    pub(super) fn send(&mut self, outbox: &Outbox) -> io::Result<usize> {
        // A `send` costs the kernel less than a `writev` of one slice, and the usual case needs no
        // list of them.
        if let (Socket::Plain(tcp), Some(frame)) = (&mut *self, outbox.only()) {
            return tcp.write(frame);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let used = outbox.slices(&mut slices);
        match self {
            Socket::Plain(tcp) => tcp.write_vectored(&slices[..used]),
            Socket::Tls(socket) => {
                socket.flush()?;
                let count = socket.tls.writer().write_vectored(&slices[..used])?;
                match socket.flush() {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                    _ => Ok(count),
                }
            }
        }
    }

    /// Writes the TLS records that are still buffered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Plain(_) => Ok(()),
            Socket::Tls(socket) => socket.flush(),
        }
    }

    /// Shuts down writing, with TLS after a close_notify alert. May be called again after
    /// `WouldBlock`.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Socket::Tls(socket) = self {
            socket.tls.send_close_notify();
            socket.flush()?;
        }
        self.tcp().shutdown(std::net::Shutdown::Write)
    }

    /// Whether no input is unread; the kernel answers a close with unread input with a reset.
    pub(super) fn is_drained(&mut self) -> bool {
        let unread = self.tcp().peek(&mut [0]);
        !matches!(unread, Ok(1..))
    }

    /// Reads bytes to discard; TLS records are not decrypted.
    pub(super) fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp().read(buffer)
    }

    fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(socket) => &mut socket.tcp,
        }
    }
}

impl TlsSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A peer may close without a close_notify alert.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            if self.tls.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            if let Err(error) = self.tls.process_new_packets() {
                let _alert = self.flush();
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            // Answers of the TLS layer itself, such as to a key update.
            match self.flush() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.tcp)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}
