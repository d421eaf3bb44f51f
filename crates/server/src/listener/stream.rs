//! The TCP stream of an HTTP connection, with timeouts, accounting of bytes, and a lingering close.
//!
//! Invariant: every wait has a timeout: for a request's head, for the next request, for progress of
//! a write, and for the end of the peer's stream after ours. It wraps the TCP stream below TLS, so
//! that TLS records count as well and the close follows the close_notify alert.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::deadline::Deadline;
use crate::limits::slots::{Crowd, Slot};
use crate::limits::{
    HEADER_TIMEOUT, HELD_FREE_MAX, LINGER_BYTES_MAX, LINGER_TIMEOUT, TLS_RECORD_MAX, WRITE_TIMEOUT,
};

/// Stream with timeouts.
pub(super) struct HttpStream<S> {
    stream: S,
    carries: Carries,
    peer: Arc<HttpPeer>,
    /// Time to wait for the next request.
    keep_alive_timeout: Duration,
    /// The phase that `read_end` belongs to.
    timed_phase: u8,
    read_end: Deadline,
    /// Deadline of a pending write; `None` for most writes, which complete at once.
    write_end: Option<Pin<Box<Sleep>>>,
    linger: Option<Linger>,
}

/// State that the stream shares with the requests on it. All of them are one task.
pub(crate) struct HttpPeer {
    slot: Slot,
    /// Whether the slot is marked as known.
    is_known: AtomicBool,
    phase: AtomicU8,
    /// Upper bound on the received bytes that TLS and hyper hold.
    held: AtomicUsize,
    /// Bytes that the slot accounts; up to date whenever the task waits.
    accounted: AtomicUsize,
    /// Bytes of the last read.
    last_read: AtomicUsize,
    /// Remaining bytes of the body of the current request.
    awaited: AtomicUsize,
    /// Whether the peer has sent a request before it had the response to the last one.
    is_pipelining: AtomicBool,
    /// The server stops: heads that are not complete are not waited for.
    is_stopping: AtomicBool,
    /// The server stops and the peer waits for nothing, so that the close does not linger.
    closes_at_once: AtomicBool,
}

/// Protocol of the bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    Http,
    Tls,
}

impl Carries {
    /// Bytes that may be held although HTTP has consumed all data: an unfinished TLS record.
    fn unfinished_max(self) -> usize {
        match self {
            Carries::Http => 0,
            Carries::Tls => TLS_RECORD_MAX,
        }
    }
}

/// Waiting for the head of a request or receiving it.
const HEAD: u8 = 0;
/// A request is being handled.
const REQUEST: u8 = 1;
/// A request was answered; waiting for the next one.
const IDLE: u8 = 2;

/// Writing is shut down; input is discarded.
struct Linger {
    end: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl HttpPeer {
    pub(super) fn new(slot: Slot) -> Arc<HttpPeer> {
        Arc::new(HttpPeer {
            slot,
            is_known: AtomicBool::new(false),
            phase: AtomicU8::new(HEAD),
            held: AtomicUsize::new(0),
            accounted: AtomicUsize::new(0),
            last_read: AtomicUsize::new(0),
            awaited: AtomicUsize::new(0),
            is_pipelining: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            closes_at_once: AtomicBool::new(false),
        })
    }

    /// Marks the connection as known, after it has shown a valid API key or is a trusted proxy.
    pub(crate) fn set_known(&self) {
        if !self.is_known.swap(true, Ordering::Relaxed) {
            self.slot.set_known();
        }
    }

    /// Sets the crowd of the client that a proxy has named, which is not known. Returns `None` if
    /// the crowd has no room.
    #[must_use]
    pub(super) fn set_crowd(&self, crowd: Crowd) -> Option<()> {
        self.is_known.store(false, Ordering::Relaxed);
        self.slot.set_crowd(crowd)
    }

    /// Accounts a complete head of a request with its body. The head was incomplete before the last
    /// read, so the bytes behind it arrived with that read.
    pub(super) fn begin_request(&self, size: usize) {
        let held = self.held.load(Ordering::Relaxed);
        let behind = held.saturating_sub(size).min(self.last_read.load(Ordering::Relaxed));
        self.held.store(behind, Ordering::Relaxed);
        let accounted = accounted(behind);
        self.accounted.store(accounted, Ordering::Relaxed);
        self.awaited.store(size.saturating_sub(held), Ordering::Relaxed);
        self.slot.begin_request(accounted);
        // Nothing was read since the last response, so it came before that.
        if self.phase.swap(REQUEST, Ordering::Relaxed) == IDLE {
            self.is_pipelining.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn end_request(&self) {
        self.slot.end_request();
        self.phase.store(IDLE, Ordering::Relaxed);
    }

    /// Called between two polls of the connection: a connection without a request waits for one.
    pub(super) fn stop(&self) {
        let is_idle = self.phase.load(Ordering::Relaxed) != REQUEST
            && !self.is_pipelining.load(Ordering::Relaxed);
        self.closes_at_once.store(is_idle, Ordering::Relaxed);
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// A response is on its way, behind which a close lingers.
    fn note_pending_write(&self) {
        self.closes_at_once.store(false, Ordering::Relaxed);
    }

    /// Accounts the bytes that are held. A head that arrives with one read becomes a request before
    /// its task waits, and costs the slots nothing.
    fn account(&self) {
        let bytes = accounted(self.held.load(Ordering::Relaxed));
        if self.accounted.swap(bytes, Ordering::Relaxed) != bytes {
            self.slot.set_bytes(bytes);
        }
    }
}

/// Bytes that the slot accounts when this many are held.
fn accounted(held: usize) -> usize {
    if held > HELD_FREE_MAX { held } else { 0 }
}

impl<S> HttpStream<S> {
    pub(super) fn new(
        stream: S,
        carries: Carries,
        peer: Arc<HttpPeer>,
        keep_alive_timeout: Duration,
    ) -> HttpStream<S> {
        HttpStream {
            stream,
            carries,
            peer,
            keep_alive_timeout,
            timed_phase: HEAD,
            read_end: Deadline::default(),
            write_end: None,
            linger: None,
        }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Passes on the state of a write, or fails it after its timeout.
    fn limit_write<T>(
        &mut self,
        context: &mut Context<'_>,
        write: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if write.is_ready() {
            if self.write_end.take().is_none() {
                return write;
            }
            self.peer.note_pending_write();
            if self.timed_phase == IDLE {
                // The time to wait for the next request begins when the response is written. Waking
                // makes hyper call `poll_read` again, which starts the timer.
                self.read_end.clear();
                context.waker().wake_by_ref();
            }
            return write;
        }
        self.peer.account();
        let end = self.write_end.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        ready!(end.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }

    /// Counts `count` received bytes; 0 if no data was available.
    fn note_read(&mut self, count: usize, phase: u8) {
        let held = self.peer.held.load(Ordering::Relaxed);
        if phase == REQUEST {
            let awaited = self.peer.awaited.load(Ordering::Relaxed);
            let of_body = count.min(awaited);
            self.peer.awaited.store(awaited - of_body, Ordering::Relaxed);
            // While a request is handled, hyper reads only when it has nothing left.
            let unfinished = held.min(self.carries.unfinished_max());
            return self.note_held(unfinished, count - of_body);
        }
        if count > 0 && self.timed_phase == IDLE {
            self.peer.phase.store(HEAD, Ordering::Relaxed);
            self.timed_phase = HEAD;
            self.read_end.clear();
        }
        self.note_held(held, count);
    }

    fn note_held(&self, before: usize, count: usize) {
        if count > 0 {
            self.peer.last_read.store(count, Ordering::Relaxed);
        }
        self.peer.held.store(before + count, Ordering::Relaxed);
    }

    /// Completes when the timeout of the current phase has passed.
    fn poll_read_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let is_stopping = self.peer.is_stopping.load(Ordering::Relaxed);
        let timeout = match self.timed_phase {
            HEAD if is_stopping && self.write_end.is_none() => return Poll::Ready(()),
            HEAD => HEADER_TIMEOUT,
            // The response is still being written; the timeout of writes applies.
            IDLE if self.write_end.is_some() => return Poll::Pending,
            IDLE => self.keep_alive_timeout,
            // The handler of the request has its own timeout.
            _ => return Poll::Pending,
        };
        self.read_end.poll(timeout, context)
    }
}

impl<S: AsyncRead + Unpin> HttpStream<S> {
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.peer.account();
        let HttpStream { stream, linger, .. } = self;
        let linger = linger.get_or_insert_with(|| Linger {
            end: Box::pin(sleep(LINGER_TIMEOUT)),
            bytes_left: LINGER_BYTES_MAX as usize,
        });
        let mut discarded = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && linger.bytes_left > 0 => {
                    linger.bytes_left = linger.bytes_left.saturating_sub(buffer.filled().len());
                }
                // The end of the stream, or more input than a peer sends that is about to read.
                Poll::Ready(_) => return Poll::Ready(()),
                // A peer that waits for no response loses none by a reset.
                Poll::Pending if self.peer.closes_at_once.load(Ordering::Relaxed) => {
                    return Poll::Ready(());
                }
                Poll::Pending => return linger.end.as_mut().poll(context),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpStream<S> {
    /// Reports the end of the stream after the timeout of the current phase.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let phase = self.peer.phase.load(Ordering::Relaxed);
        if phase != self.timed_phase {
            self.timed_phase = phase;
            self.read_end.clear();
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                self.note_read(buffer.filled().len() - before, phase);
                // While a request is handled, its task may wait for something else than a read.
                if phase == REQUEST {
                    self.peer.account();
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                self.note_read(0, phase);
                self.peer.account();
                self.poll_read_end(context).map(Ok)
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HttpStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limit_write(context, write)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.stream).poll_flush(context);
        self.limit_write(context, flush)
    }

    /// A lingering close: the kernel resets a socket that is closed with unread input, which would
    /// discard a response in flight.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            let shutdown = Pin::new(&mut self.stream).poll_shutdown(context);
            ready!(self.limit_write(context, shutdown))?;
        }
        self.poll_linger(context).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.limit_write(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::limits::slots::{Evict, SlotLimits, Slots};

    const KEEP_ALIVE: Duration = Duration::from_secs(75);

    struct Stays;

    impl Evict for Stays {
        fn evict(&self) {}
    }

    fn pair(buffer: usize) -> (HttpStream<DuplexStream>, DuplexStream, Arc<HttpPeer>) {
        let limits = SlotLimits { connections_max: 1, per_address_max: 1, bytes_max: 1_000_000 };
        let slot = Slots::new(limits).take(None, Arc::new(Stays)).unwrap();
        let (near, far) = duplex(buffer);
        let peer = HttpPeer::new(slot);
        (HttpStream::new(near, Carries::Http, peer.clone(), KEEP_ALIVE), far, peer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let (mut near, mut far, _) = pair(4);
        let began = Instant::now();
        let reading = async {
            let mut byte = [0];
            for _ in 0..8 {
                sleep(WRITE_TIMEOUT * 3 / 4).await;
                far.read_exact(&mut byte).await.unwrap();
            }
            Instant::now()
        };
        let (written, last_read) = tokio::join!(near.write_all(&[0; 64]), reading);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(last_read - began, WRITE_TIMEOUT * 6);
        assert_eq!(Instant::now() - last_read, WRITE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_and_an_idle_connection_another() {
        let (mut near, mut far, _) = pair(1024);
        let began = Instant::now();
        // A head that drips has no more time than one that does not come.
        let dripping = async {
            while began.elapsed() < 2 * HEADER_TIMEOUT && far.write_all(b"x").await.is_ok() {
                sleep(HEADER_TIMEOUT / 4).await;
            }
        };
        let reading = async {
            let mut head = Vec::new();
            near.read_to_end(&mut head).await.unwrap();
            began.elapsed()
        };
        let (took, ()) = tokio::join!(reading, dripping);
        assert!(took < HEADER_TIMEOUT * 5 / 4, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_no_end_here_and_an_idle_connection_has() {
        let (mut near, _far, peer) = pair(1024);
        peer.begin_request(0);
        let reading = tokio::time::timeout(3 * KEEP_ALIVE, near.read_u8());
        assert!(reading.await.is_err(), "whoever handles the request knows for how long");
        peer.end_request();
        let idle_since = Instant::now();
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(idle_since.elapsed(), KEEP_ALIVE);
    }

    #[tokio::test]
    async fn what_stands_behind_a_head_is_held_until_hyper_has_nothing_left() {
        let (mut near, mut far, peer) = pair(1024);
        let held = || peer.held.load(Ordering::Relaxed);
        let mut buffer = [0; 1024];
        far.write_all(&[b'x'; 300]).await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 300);
        far.write_all(&[b'x'; 500]).await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 500);
        assert_eq!(held(), 800);
        // The head ends in the second part, wherever its separators are.
        peer.begin_request(200);
        assert_eq!(held(), 500);
        peer.end_request();
        peer.begin_request(400);
        assert_eq!(held(), 100);
        far.write_all(b"body").await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 4);
        assert_eq!(held(), 4);
        let mut read = std::pin::pin!(near.read_u8());
        let polled = std::future::poll_fn(|context| Poll::Ready(read.as_mut().poll(context)));
        assert!(polled.await.is_pending());
        assert_eq!(held(), 0);
        peer.end_request();
        // A body that is read in two parts, and the next request behind it.
        peer.begin_request(50);
        far.write_all(&[b'x'; 30]).await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 30);
        assert_eq!(held(), 0);
        far.write_all(&[b'x'; 60]).await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 60);
        assert_eq!(held(), 40);
        peer.begin_request(40);
        peer.end_request();
        far.write_all(b"GET").await.unwrap();
        assert_eq!(near.read(&mut buffer).await.unwrap(), 3);
        assert_eq!(held(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_reads_on_until_the_peer_ends_or_its_time_is_over() {
        let (mut near, mut far, _) = pair(16);
        let writing = async {
            far.write_all(&[0; 100_000]).await.unwrap();
            let mut answer = String::new();
            far.read_to_string(&mut answer).await.unwrap();
            drop(far);
            answer
        };
        let closing = async {
            near.write_all(b"413").await.unwrap();
            near.shutdown().await.unwrap();
        };
        let (answer, ()) = tokio::join!(writing, closing);
        assert_eq!(answer, "413");

        let (mut near, _silent, _) = pair(16);
        let began = Instant::now();
        near.shutdown().await.unwrap();
        assert_eq!(began.elapsed(), LINGER_TIMEOUT);
    }
}
