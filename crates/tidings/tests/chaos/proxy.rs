//! A TCP proxy between a node and its broker: a network that can be cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use socket2::SockRef;

/// See the module. It ends with its handle.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    network: Arc<Network>,
}

/// What the network does with what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkState {
    Fair,
    /// Nothing arrives, and neither end is notified; what was sent arrives later, as TCP would send
    /// it again.
    Silent,
    /// Connections are reset, and so are new ones.
    Reset,
}

struct Network {
    to: u16,
    /// None when it has ended.
    state: Mutex<Option<NetworkState>>,
    changed: Condvar,
    /// Both ends of each connection.
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// To this port of this machine.
    pub(crate) fn start(to: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let network = Arc::new(Network {
            to,
            state: Mutex::new(Some(NetworkState::Fair)),
            changed: Condvar::new(),
            streams: Mutex::new(Vec::new()),
        });
        let shared = network.clone();
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                if shared.state.lock().unwrap().is_none() {
                    return;
                }
                let network = shared.clone();
                std::thread::spawn(move || network.carry(&near));
            }
        });
        Proxy { port, network }
    }

    pub(crate) fn turn(&self, state: NetworkState) {
        self.network.turn(Some(state));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.turn(None);
        // Wakes the thread that accepts.
        let _refused = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Network {
    fn turn(&self, state: Option<NetworkState>) {
        let mut now = self.state.lock().unwrap();
        *now = state;
        self.changed.notify_all();
        if !matches!(state, Some(NetworkState::Fair | NetworkState::Silent)) {
            self.streams.lock().unwrap().drain(..).for_each(|stream| reset(&stream));
        }
    }

    /// Waits while it is silent; then, whether it is fair.
    fn is_fair(&self) -> bool {
        let now = self.state.lock().unwrap();
        let is_silent = |now: &mut Option<NetworkState>| *now == Some(NetworkState::Silent);
        *self.changed.wait_while(now, is_silent).unwrap() == Some(NetworkState::Fair)
    }

    fn carry(self: Arc<Network>, near: &TcpStream) {
        let far =
            if self.is_fair() { TcpStream::connect(("127.0.0.1", self.to)).ok() } else { None };
        let Some(far) = far else { return reset(near) };
        let ends = [near.try_clone().unwrap(), far.try_clone().unwrap()];
        let [near_too, far_too] = [near.try_clone().unwrap(), far.try_clone().unwrap()];
        self.streams.lock().unwrap().extend(ends);
        let network = self.clone();
        let back = std::thread::spawn(move || network.pump(&far_too, &near_too));
        self.pump(near, &far);
        back.join().unwrap();
    }

    /// One direction, until either end is closed or the network resets it.
    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !self.is_fair() || to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        for end in [from, to] {
            // It may be closed already.
            let _closed = end.shutdown(Shutdown::Both);
        }
    }
}

/// Closed with a reset as soon as its threads have let it go.
fn reset(stream: &TcpStream) {
    let _closed = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    let _closed = stream.shutdown(Shutdown::Both);
}
