//! HTTP: delivery of refusals, bounds on heads, keep-alive, and client addresses behind proxies.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use server::config::{Source, load};
use server::{ListenAddress, Server};

use crate::support::{API_KEY, Fixture, PATIENCE, Peer, post, token, upgrade};

/// Writes the whole request before it reads, as many HTTP clients do. Returns the response.
fn write_first(fixture: &Fixture, head: &str, body: &[u8]) -> String {
    let mut tcp = TcpStream::connect(fixture.address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.write_all(head.as_bytes()).unwrap();
    tcp.write_all(body).expect("the server reads until the end");
    tcp.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_refusal_arrives_while_the_body_is_still_being_written() {
    let fixture = Fixture::start();
    let key = format!("X-API-Key: {API_KEY}\r\n");
    let head = |method: &str, headers: &str| {
        format!("{method} /api/publish HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
    };
    let large = vec![b' '; 9 * 1024 * 1024];
    let length = format!("Content-Length: {}\r\n", large.len());
    let mut chunked = Vec::new();
    for chunk in large.chunks(1 << 20) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    let of_chunks = "Transfer-Encoding: chunked\r\n";
    let no_path = head("POST", &length).replace("publish", "nothing/here");
    for (head, body, status, text) in [
        (head("POST", &format!("{key}{length}")), &large, "413", "\"code\":107"),
        (head("POST", &format!("{key}{of_chunks}")), &chunked, "413", "\"code\":107"),
        (head("POST", &length), &large, "401", "\"code\":101"),
        (head("PUT", &format!("{key}{length}")), &large, "405", "POST"),
        (no_path, &large, "404", "nothing"),
        (
            "POST /health HTTP/1.1\r\nHost: x\r\n".to_owned() + &length + "\r\n",
            &large,
            "405",
            "GET",
        ),
        ("no HTTP\r\n\r\n".to_owned(), &large, "400", ""),
    ] {
        let answer = write_first(&fixture, &head, body);
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.contains(status) && answer.contains(text), "{head}: {answer}");
    }
}

/// RFC 9112: what a proxy in front may read in another way is refused, or ends the connection; and
/// RFC 9110: what headers a refusal has.
#[test]
fn what_could_be_read_in_two_ways_is_refused_or_ends_the_connection() {
    let fixture = Fixture::start();
    let publish = r#"{"channel":"open:x","data":1}"#;
    let length = publish.len();
    let chunks = format!("{length:x}\r\n{publish}\r\n0\r\n\r\n");
    let api = |headers: &str, body: &str| {
        format!(
            "POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\n{headers}\r\n{body}"
        )
    };
    let socket = |method: &str, headers: &str| upgrade(headers).replacen("GET", method, 1);
    let smuggled = "0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    let refused = [
        ("GET /health HTTP/1.1\r\n\r\n".to_owned(), "400", "one valid Host"),
        ("GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(), "400", "one valid Host"),
        ("GET /health HTTP/1.1\r\nHost: user@x\r\n\r\n".to_owned(), "400", "one valid Host"),
        (upgrade("").replace("Host: x\r\n", ""), "400", "one valid Host"),
        (api("Transfer-Encoding: gzip, chunked\r\n", &chunks), "501", "Transfer-Encoding"),
        (api("Transfer-Encoding: chunked, chunked\r\n", &chunks), "501", "Transfer-Encoding"),
        (api("Transfer-Encoding: xchunked\r\n", &chunks), "400", ""),
        (api("Content-Length: 5\r\nContent-Length: 6\r\n", publish), "400", ""),
        (api("Content-Length: +29\r\n", publish), "400", ""),
        (api("Content-Length : 29\r\n", publish), "400", ""),
        (api("Transfer-Encoding: chunked\r\n", "-1d\r\n"), "400", "\"code\":107"),
        (
            api("Transfer-Encoding: chunked\r\n", &format!("1d;{}\r\n", "x".repeat(20_000))),
            "400",
            "107",
        ),
        (
            api(
                "Transfer-Encoding: chunked\r\n",
                &chunks.replace("0\r\n", &format!("0\r\nX: {}\r\n", "x".repeat(40_000))),
            ),
            "400",
            "107",
        ),
        (
            api("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", smuggled),
            "400",
            "as parameters",
        ),
        (
            api(&format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"), &chunks),
            "200",
            "result",
        ),
        ("GET /health HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n".to_owned(), "400", ""),
        (socket("POST", "Connection: close\r\n"), "405", "allow: GET\r\n"),
        (socket("GET", "Content-Length: 5\r\n") + "hello", "400", "no body"),
        (socket("GET", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", "400", "no body"),
        (
            api("Content-Length: 2\r\n", "{}").replace(API_KEY, "wrong"),
            "401",
            "www-authenticate: apikey\r\n",
        ),
    ];
    for (request, status, text) in refused {
        let answer = write_first(&fixture, &request, b"");
        let first = answer.lines().next().unwrap_or_default();
        assert!(first.contains(status) && answer.contains(text), "{request}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request}: {answer}");
    }
    let (status, head, _) =
        fixture.request("GET /connection/websocket HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status, 426);
    assert!(
        head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"),
        "{head}"
    );
    assert_eq!(fixture.request("GET /health HTTP/1.0\r\n\r\n").0, 200, "HTTP/1.0 needs no Host");
}

#[test]
fn whoever_ends_its_side_behind_requests_gets_all_answers() {
    let fixture = Fixture::start();
    let key = format!("X-API-Key: {API_KEY}\r\n");
    let publish = post("/api/publish", &key, r#"{"channel":"open:x","data":1}"#);
    let health = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    let answers = write_first(&fixture, &format!("{publish}{health}{publish}"), b"");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
}

#[test]
fn a_head_has_32_kilobytes() {
    let fixture = Fixture::start();
    let with_header = |size: usize| {
        let head =
            format!("GET /health HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(size));
        let mut tcp = TcpStream::connect(fixture.address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.write_all(head.as_bytes()).unwrap();
        let mut status = [0; 12];
        tcp.read_exact(&mut status).unwrap();
        String::from_utf8(status[9..].to_vec()).unwrap()
    };
    assert_eq!(with_header(30 * 1024), "200");
    assert_eq!(with_header(33 * 1024), "431");
    assert_eq!(with_header(375 * 1024), "431");
}

#[test]
fn an_idle_connection_is_kept_as_long_as_configured() {
    let fixture = Fixture::with(&[("http_server.keep_alive_timeout", "300ms")]);
    let mut peer = Peer::dial(fixture.address);
    let began = std::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(peer.ask(&post("/api/info", &format!("X-API-Key: {API_KEY}\r\n"), "{}")).0, 200);
    }
    assert_eq!(peer.ask("").0, 0, "the server closed");
    assert!(began.elapsed().as_millis() >= 300, "{:?}", began.elapsed());
}

#[test]
fn behind_a_proxy_limits_apply_to_the_client_address() {
    let limit = ("client.unauthenticated_connection_limit", "4");
    let connect = |fixture: &Fixture, client: &str, before: &str| {
        let mut peer = Peer::dial(fixture.address);
        peer.send(before.as_bytes());
        let (status, head, _) = peer.ask(&upgrade(&format!("X-Forwarded-For: {client}\r\n")));
        assert_eq!(status, 101, "{head}");
        peer
    };
    let is_admitted = |peer: &mut Peer| {
        peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann")));
        peer.receive().contains(r#""connect":{"#)
    };
    // Two connections of one address may be unauthenticated; a third one evicts the first of them.
    let trusting = Fixture::with(&[limit, ("client.trusted_proxies", "127.0.0.0/8")]);
    let mut other = connect(&trusting, "198.51.100.1", "");
    let mut crowd: Vec<Peer> =
        (0..3).map(|n| connect(&trusting, &format!("2001:db8::{n}"), "")).collect();
    assert_eq!(crowd[0].close_code(), 3011);
    assert!(is_admitted(&mut crowd[1]) && is_admitted(&mut other));
    // Headers of peers that are not trusted are ignored.
    let plain = Fixture::with(&[limit]);
    let mut clients: Vec<Peer> =
        (0..3).map(|n| connect(&plain, &format!("198.51.100.{n}"), "")).collect();
    assert_eq!(clients[0].close_code(), 3011);

    let proxied = Fixture::with(&[
        limit,
        ("client.trusted_proxies", "127.0.0.1"),
        ("http_server.proxy_protocol", "true"),
    ]);
    let line = |ip: &str| format!("PROXY TCP4 {ip} 192.0.2.9 4711 443\r\n");
    // A header that the client itself sent is ignored.
    let mut other = connect(&proxied, "203.0.113.5", &line("198.51.100.1"));
    let mut crowd: Vec<Peer> = (0..3)
        .map(|n| connect(&proxied, &format!("198.51.100.{n}"), &line("203.0.113.5")))
        .collect();
    assert_eq!(crowd[0].close_code(), 3011);
    assert!(is_admitted(&mut crowd[2]) && is_admitted(&mut other));
    assert!(is_refused(&proxied, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"));
}

#[test]
fn a_listener_with_the_proxy_protocol_refuses_peers_that_are_not_trusted() {
    let fixture = Fixture::with(&[
        ("client.trusted_proxies", "192.0.2.1"),
        ("http_server.proxy_protocol", "true"),
    ]);
    let request =
        "PROXY TCP4 198.51.100.1 192.0.2.9 4711 443\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(is_refused(&fixture, request));
}

/// Whether the server closes without an answer.
fn is_refused(fixture: &Fixture, request: &str) -> bool {
    let mut tcp = TcpStream::connect(fixture.address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.write_all(request.as_bytes()).unwrap();
    match tcp.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn unix_sockets_serve_clients_and_internal_endpoints() {
    let folder = tempfile::tempdir().unwrap();
    let [public, internal] = ["public.sock", "internal.sock"].map(|name| folder.path().join(name));
    let address = |path: &std::path::Path| format!("unix:{}", path.display());
    let flags = [
        ("http_server.address", address(&public)),
        ("http_server.internal_address", address(&internal)),
        ("client.allow_anonymous_connect_without_token", "true".to_owned()),
        ("http_api.key", API_KEY.to_owned()),
    ];
    let flags = flags.map(|(key, value)| (key.to_owned(), value)).to_vec();
    let (config, _) = load(&Source { flags, ..Source::default() }).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start(config)).unwrap();
    assert!(matches!(server.addresses(), [ListenAddress::Unix { path, .. }] if *path == public));
    let ask = |path: &std::path::Path, request: &str| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        (String::from_utf8(answer[9..].to_vec()).unwrap(), stream)
    };
    let health = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(ask(&internal, health).0, "200");
    assert_eq!(ask(&public, health).0, "404");
    let (status, mut socket) = ask(&public, &upgrade(""));
    assert_eq!(status, "101");
    // {"id":1,"connect":{}} in a frame with a mask of zeroes.
    let command = br#"{"id":1,"connect":{}}"#;
    let mut frame = vec![0x81, 0x80 | command.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(command);
    socket.write_all(&frame).unwrap();
    let mut received = Vec::new();
    while !received.windows(9).any(|window| window == br#""connect""#) {
        let mut part = [0; 512];
        let count = socket.read(&mut part).unwrap();
        assert!(count > 0, "closed");
        received.extend_from_slice(&part[..count]);
    }
    drop(socket);
    runtime.block_on(server.stop());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the files are gone");
}
