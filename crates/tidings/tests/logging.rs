//! Logs of a real process: a slow reader blocks nothing, and colour is for terminals.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(15);

/// A development server on a free port; its standard error is a pipe that is read only by the
/// test.
fn serve(arguments: &[&str]) -> (Child, ChildStderr, u16) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(["serve", &format!("--http_server.port={port}")])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let end = Instant::now() + PATIENCE;
    // Connections are accepted before the server is ready; requests are refused until then.
    let is_ready = || {
        status_of(port, "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
            .is_ok_and(|status| status == "200")
    };
    while !is_ready() {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "it does not serve");
        std::thread::sleep(Duration::from_millis(20));
    }
    (child, stderr, port)
}

fn status_of(port: u16, request: &str) -> std::io::Result<String> {
    let mut tcp = TcpStream::connect(("127.0.0.1", port))?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.write_all(request.as_bytes())?;
    let mut status = [0; 12];
    tcp.read_exact(&mut status)?;
    Ok(String::from_utf8_lossy(&status[9..]).into_owned())
}

fn terminate(child: &mut Child) -> Duration {
    let began = Instant::now();
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    while child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < 2 * PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// moby#22502: a log that was not read blocked the process.
#[test]
fn a_process_whose_log_nobody_reads_serves_and_ends() {
    let (mut child, mut stderr, port) = serve(&["--log.level=debug"]);
    // Each is a line at debug; together they are more than a pipe and the queue hold.
    let refused = format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: {}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        "7".repeat(20)
    );
    let last = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let many = refused.repeat(1_000) + last;
    for _ in 0..10 {
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answers = tcp.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = String::new();
            answers.read_to_string(&mut all).unwrap();
            all.matches("HTTP/1.1 426").count()
        });
        tcp.write_all(many.as_bytes()).unwrap();
        assert_eq!(reader.join().unwrap(), 1_000, "all are answered");
    }
    assert_eq!(status_of(port, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap(), "200");
    let took = terminate(&mut child);
    assert!(took < Duration::from_secs(10), "ended after {took:?}");
    let mut pipe = Vec::new();
    stderr.read_to_end(&mut pipe).unwrap();
    assert!(pipe.len() < 256 * 1024, "the pipe held {} bytes", pipe.len());
}

#[test]
fn no_colour_goes_into_a_pipe_and_the_last_line_arrives() {
    let (mut child, mut stderr, port) = serve(&["--log.level=trace", "--log.format=pretty"]);
    let reader = std::thread::spawn(move || {
        let mut all = String::new();
        stderr.read_to_string(&mut all).unwrap();
        all
    });
    assert_eq!(status_of(port, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap(), "200");
    terminate(&mut child);
    let all = reader.join().unwrap();
    assert!(all.contains("INFO") && all.contains("stopped"), "{all}");
    assert!(!all.contains('\u{1b}'), "{all}");
}
