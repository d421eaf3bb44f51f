//! A session of the client crate on one socket of a poller that many share: dialled when the test
//! wants it, read to the end of what is there.
//!
//! Invariant: the test decides when a client comes back. A lost connection leaves the session
//! disconnected, with its subscriptions and their positions.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ::client::session::Action;
use ::client::{Backoff, ClientSession, Event, Failure, Reason, SessionOptions, TransportError};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};

use crate::dice::Dice;

/// See the module.
pub(crate) struct Link {
    pub(crate) session: ClientSession,
    number: u64,
    pub(crate) stream: Option<TcpStream>,
    /// Whether the socket is connected.
    is_open: bool,
}

impl Link {
    pub(crate) fn new(number: u64) -> Link {
        let mut dice = Dice(number);
        let options = SessionOptions {
            resubscribe: Backoff { min: Duration::from_millis(50), max: PATIENCE },
            timeout: PATIENCE,
            ..SessionOptions::default()
        };
        let url = "ws://x".parse().expect("an address");
        let session = ClientSession::new(url, options, Box::new(move || dice.next()));
        Link { session, number, stream: None, is_open: false }
    }

    /// Whether the client is to dial again.
    pub(crate) fn is_lost(&self) -> bool {
        self.stream.is_none()
    }

    /// Dials, unless there is a socket.
    pub(crate) fn dial(
        &mut self,
        address: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> std::io::Result<()> {
        if self.is_lost() {
            let mut stream = dial(address, self.number)?;
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            self.stream = Some(stream);
            self.session.connect(Instant::now());
            assert_eq!(self.session.poll_action(), Some(Action::Open));
        }
        Ok(())
    }

    /// The socket may be written or read, or a timer may be due: everything that is there. Gives
    /// what happened.
    pub(crate) fn handle(&mut self, buffer: &mut [u8]) -> Vec<Event> {
        self.session.handle_timeout(Instant::now());
        if let Err(error) = self.read_all(buffer) {
            let error = match error.kind() {
                ErrorKind::UnexpectedEof => TransportError::Closed,
                _ => TransportError::Io(error.to_string()),
            };
            self.session.handle_closed(Instant::now(), error);
        }
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Event> {
        let events: Vec<Event> = std::iter::from_fn(|| self.session.poll_event()).collect();
        if events.iter().any(is_loss) {
            self.give_up();
        }
        events
    }

    /// There is no socket any more.
    pub(crate) fn give_up(&mut self) {
        (self.stream, self.is_open) = (None, false);
        self.session.disconnect();
        while self.session.poll_action().is_some() {}
        while self.session.poll_event().is_some() {}
        // The close frame, for which there is no socket any more.
        self.session.poll_transmit();
    }

    fn read_all(&mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if !self.is_open {
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            match stream.peer_addr() {
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                result => result?,
            };
            self.is_open = true;
            self.session.handle_opened(Instant::now());
        }
        loop {
            self.flush()?;
            let Some(stream) = &mut self.stream else { return Ok(()) };
            match stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.session.handle_bytes(Instant::now(), &mut buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            // The session closes: the rest of the input is discarded.
            if self.session.poll_action() == Some(Action::Close) {
                return Ok(());
            }
        }
    }

    /// A client sends little: the kernel takes it at once.
    fn flush(&mut self) -> std::io::Result<()> {
        match (&mut self.stream, self.session.poll_transmit()) {
            (Some(stream), Some(bytes)) => stream.write_all(&bytes),
            _ => Ok(()),
        }
    }
}

/// Whether the connection is lost, or was never there.
fn is_loss(event: &Event) -> bool {
    match event {
        Event::Connecting(reason) => *reason != Reason::CONNECT_CALLED,
        Event::Disconnected(_) => true,
        Event::Failed(failure) => {
            matches!(failure, Failure::Transport(_) | Failure::Closed(_) | Failure::Connect(_))
        }
        _ => false,
    }
}

/// From one of many loopback addresses, so that ports are not short.
fn dial(address: SocketAddr, number: u64) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = Ipv4Addr::new(127, 0, 2, u8::try_from(number % 200 + 1).unwrap_or(1));
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// A connect that does not wait says so.
const EINPROGRESS: i32 = 115;

/// A broker that stands still delays replies for some seconds, and that is no fault of the
/// connection.
const PATIENCE: Duration = Duration::from_secs(60);
