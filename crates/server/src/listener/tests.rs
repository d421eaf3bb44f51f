//! Listeners with few slots, and listeners that fail.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::limits::slots::SlotLimits;
use crate::supervision::supervisor::Supervisor;

struct Running {
    address: SocketAddr,
    supervisor: Supervisor,
    /// The same socket as the one that accepts.
    socket: std::net::TcpListener,
    _stop: watch::Sender<bool>,
}

fn run(connections_max: usize) -> Running {
    let per_address_max = connections_max;
    run_with(SlotLimits { connections_max, per_address_max, bytes_max: usize::MAX })
}

fn run_with(limits: SlotLimits) -> Running {
    let bound = ListenOn::new("127.0.0.1", 0, 0).bind().unwrap().remove(0);
    let BoundSocket::Tcp(socket) = &bound else { panic!("TCP was asked for") };
    let (address, socket) = (socket.local_addr().unwrap(), socket.try_clone().unwrap());
    let (stop, stopped) = watch::channel(false);
    let listener = listener(limits, stopped);
    let supervisor = Supervisor::default();
    tokio::spawn(listener.run(bound, supervisor.faults()));
    Running { address, supervisor, socket, _stop: stop }
}

fn listener(limits: SlotLimits, stop: watch::Receiver<bool>) -> Listener {
    Listener {
        http_version: HttpVersion::Http1,
        routes: Arc::new(Routes::new(Router::new())),
        tls: None,
        trusted_proxies: Arc::default(),
        proxy_protocol: None,
        keep_alive_timeout: Duration::from_secs(75),
        slots: Slots::new(limits),
        throttle: None,
        stop,
    }
}

/// Asks, and gives the status line; empty when the server closes instead.
async fn ask(tcp: &mut TcpStream) -> String {
    // Who is closed at once may notice while writing.
    let _closed = tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        match tcp.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(answer).unwrap().lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_task_has_no_room_for_tls() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    let limits = SlotLimits { connections_max: 1, per_address_max: 1, bytes_max: 1 };
    let (_stop, stop) = watch::channel(false);
    let listener = listener(limits, stop);
    let slot = listener.slots.take(None, Arc::new(Eviction::default())).unwrap();
    let serving = listener.serve(tcp, ClientAddress::Unix, HttpPeer::new(slot));
    // The task is copied when it starts and when it ends; with the states of TLS it has 34 kB.
    assert!(size_of_val(&serving) < 4_096, "{}", size_of_val(&serving));
}

#[tokio::test]
async fn silent_connections_make_room() {
    let running = run(2);
    let dial = async || TcpStream::connect(running.address).await.unwrap();
    let mut silent = dial().await;
    // Its answer shows that the silent one, which came before, has a slot.
    let mut asking = dial().await;
    assert_eq!(ask(&mut asking).await, "HTTP/1.1 404 Not Found");
    assert_eq!(ask(&mut dial().await).await, "HTTP/1.1 404 Not Found");
    assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0, "the silent one was closed");
    assert_eq!(ask(&mut asking).await, "HTTP/1.1 404 Not Found");
}

#[tokio::test]
async fn what_is_sent_behind_a_request_counts_and_makes_room() {
    let running =
        run_with(SlotLimits { connections_max: 100, per_address_max: 100, bytes_max: 20_000 });
    let ask_and_send_more = async |size: usize| {
        let mut tcp = TcpStream::connect(running.address).await.unwrap();
        let more = format!("GET / HTTP/1.1\r\nHost: x\r\nX-More: {}", "x".repeat(size));
        let both = format!("GET / HTTP/1.1\r\nHost: x\r\n\r\n{more}");
        tcp.write_all(both.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        tcp.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 404");
        tcp
    };
    let mut connections = Vec::new();
    for size in [7_000, 6_000, 6_000, 6_000] {
        connections.push(ask_and_send_more(size).await);
    }
    // The one of the four that holds most is closed, which is the end of its stream or a reset, as
    // it had not read all.
    let ends = async |tcp: &mut TcpStream| tcp.read_to_end(&mut Vec::new()).await;
    tokio::time::timeout(HEADER_TIMEOUT / 2, ends(&mut connections[0])).await.unwrap().ok();
    for tcp in &mut connections[1..] {
        tcp.write_all(b"\r\n\r\n").await.unwrap();
        let mut second = Vec::new();
        while second.windows(12).filter(|bytes| bytes == b"HTTP/1.1 404").count() < 1 {
            assert!(tcp.read_buf(&mut second).await.unwrap() > 0, "closed");
        }
    }
}

#[tokio::test]
async fn a_listening_socket_that_fails_is_opened_again() {
    let running = run(8);
    let mut reason = running.supervisor.faults().changes();
    assert_eq!(running.supervisor.faults().reason(), None);
    // From now on every accept fails.
    SockRef::from(&running.socket).shutdown(std::net::Shutdown::Both).unwrap();
    let address = running.address.to_string();
    let told = reason.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(told.contains(&address), "{told}");
    // The address is free only after the old socket is closed.
    drop(running.socket);
    reason.wait_for(Option::is_none).await.unwrap();
    let mut tcp = TcpStream::connect(running.address).await.unwrap();
    assert_eq!(ask(&mut tcp).await, "HTTP/1.1 404 Not Found");
}
