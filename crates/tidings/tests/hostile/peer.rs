//! What hostile peers do, over the raw peer of the server's tests.

use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

pub(crate) use crate::raw::{Peer, Received, frame, upgrade};

impl Peer {
    /// From the `index`th of many loopback addresses, so that ports are not short.
    pub(crate) fn dial_as(address: SocketAddr, index: usize) -> Peer {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let source = Ipv4Addr::new(127, 0, 1, u8::try_from(index % 200 + 1).unwrap());
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Peer::over(socket.into())
    }

    /// With as little room for what it does not read as the kernel allows.
    pub(crate) fn dial_narrow(address: SocketAddr) -> Peer {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        Peer::over(socket.into())
    }

    /// A client whose handshake was accepted.
    pub(crate) fn upgraded(address: SocketAddr) -> Peer {
        Peer::dial(address).upgrade()
    }

    /// A client whose connect command was accepted.
    pub(crate) fn admitted(address: SocketAddr) -> Peer {
        Peer::dial(address).admit()
    }

    fn upgrade(mut self) -> Peer {
        self.send(upgrade("").as_bytes());
        self.accepted();
        self
    }

    /// Shakes hands and connects.
    pub(crate) fn admit(self) -> Peer {
        let mut peer = self.upgrade();
        peer.say(r#"{"id":1,"connect":{}}"#);
        let reply = peer.receive();
        assert!(reply.contains(r#""connect":{"#), "{reply}");
        peer
    }

    /// Reads the answer to a handshake, which must be 101; gives its head.
    pub(crate) fn accepted(&mut self) -> String {
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        head
    }

    pub(crate) fn subscribe(&mut self, channel: &str) {
        self.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        let reply = self.receive();
        assert!(reply.contains(r#""subscribe":{"#), "{reply}");
    }

    /// What ends the connection, whatever is said before: a close code, or [`Received::Cut`].
    pub(crate) fn end(&mut self) -> Received {
        loop {
            match self.next() {
                end @ (Received::Closed(_) | Received::Cut) => return end,
                Received::Text(_) | Received::Binary(_) | Received::Pong(_) => {}
            }
        }
    }

    /// Sends the same again and again without reading: as long as the range begins with, then until
    /// it is over or for as long as the range ends with. Gives the bytes that were taken.
    pub(crate) fn flood(
        &mut self,
        bytes: &[u8],
        time: Range<Duration>,
        is_over: impl Fn() -> bool,
    ) -> u64 {
        const LOOK: Duration = Duration::from_millis(200);
        self.stream.set_write_timeout(Some(LOOK)).unwrap();
        let began = Instant::now();
        let mut looked = began;
        let mut sent = 0;
        // Where the last write broke off: the stream goes on there.
        let mut at = 0;
        while began.elapsed() < time.end {
            match self.stream.write(&bytes[at..]) {
                Ok(count) => {
                    sent += count as u64;
                    at = (at + count) % bytes.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            if looked.elapsed() > LOOK && began.elapsed() >= time.start {
                looked = Instant::now();
                if is_over() {
                    break;
                }
            }
        }
        sent
    }

    /// Goes without a word: the kernel sends a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
