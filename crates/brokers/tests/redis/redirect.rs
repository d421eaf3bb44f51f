//! A TCP proxy whose target can change, like a DNS name: new connections reach the new target, open
//! ones stay.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// A proxy with a changeable target.
pub(crate) struct Redirect {
    pub(crate) port: u16,
    to: Arc<AtomicU16>,
}

impl Redirect {
    pub(crate) fn start(to: u16) -> Redirect {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = Arc::new(AtomicU16::new(to));
        let redirect = Redirect { port, to: to.clone() };
        std::thread::spawn(move || {
            for inner in listener.incoming().flatten() {
                let to = to.load(Ordering::SeqCst);
                let Ok(outer) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                for (from, to) in [(&inner, &outer), (&outer, &inner)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || carry(from, to));
                }
            }
        });
        redirect
    }

    pub(crate) fn lead_to(&self, port: u16) {
        self.to.store(port, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The peer may have closed the connection.
    let _gone = to.shutdown(Shutdown::Both);
}
