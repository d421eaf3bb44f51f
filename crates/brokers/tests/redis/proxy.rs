//! A TCP proxy that can be closed: data in flight is lost, and new connections are refused.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A TCP proxy that can be closed.
pub(crate) struct ClosableProxy {
    pub(crate) port: u16,
    is_open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl ClosableProxy {
    pub(crate) fn open(to: u16) -> ClosableProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_open, streams) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let proxy = ClosableProxy { port, is_open: is_open.clone(), streams: Arc::clone(&streams) };
        std::thread::spawn(move || {
            for inner in listener.incoming() {
                let inner = inner.unwrap();
                let mut streams = streams.lock().unwrap();
                if !is_open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(outer) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                for (from, to) in [(&inner, &outer), (&outer, &inner)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || carry(from, to));
                }
                streams.extend([inner, outer]);
            }
        });
        proxy
    }

    pub(crate) fn close(&self) {
        let mut streams = self.streams.lock().unwrap();
        self.is_open.store(false, Ordering::SeqCst);
        for stream in streams.drain(..) {
            // The proxy may be closed already.
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn reopen(&self) {
        self.is_open.store(true, Ordering::SeqCst);
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
