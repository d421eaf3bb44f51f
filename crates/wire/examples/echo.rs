//! A WebSocket server that echoes messages, for conformance suites: this crate over blocking
//! sockets, one thread per connection. Its argument is the address to listen on. Port 0 selects a
//! free port; the address is printed.
//!
//! Not for production: the `server` crate has the real server, with the same decoder and encoder.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a server"
)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::{Deflater, Inflater, Window};
use wire::websocket::encoder::{self, FrameKind};
use wire::websocket::handshake::{self, RequestHead};

/// The suites send messages of 16 MiB.
const MESSAGE_MAX: u32 = 32 * 1024 * 1024;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = serve(stream) {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (head, early) = read_head(&mut stream)?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(&head).map_err(io::Error::other)?;
    let names: Vec<String> =
        request.headers.iter().map(|header| header.name.to_lowercase()).collect();
    let values = request.headers.iter().map(|header| header.value);
    let head = RequestHead {
        method: request.method.unwrap_or_default(),
        is_http_1_1: request.version == Some(1),
        headers: names.iter().map(String::as_str).zip(values).collect(),
    };
    let accepted = handshake::accept(&head).map_err(io::Error::other)?;
    let extensions = accepted.deflate.as_ref().map_or(String::new(), |deflate| {
        format!("Sec-WebSocket-Extensions: {}\r\n", deflate.header())
    });
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{extensions}\r\n",
        accepted.accept
    )?;
    echo(stream, &early, accepted.deflate.map(|negotiated| negotiated.window))
}

/// Reads the request's head; returns it with the bytes after it.
fn read_head(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::new();
    loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            let early = head.split_off(end + 4);
            return Ok((head, early));
        }
        let mut part = [0; 4096];
        let count = stream.read(&mut part)?;
        if count == 0 || head.len() > 64 * 1024 {
            return Err(io::Error::other("no request"));
        }
        head.extend_from_slice(&part[..count]);
    }
}

fn echo(mut stream: TcpStream, early: &[u8], deflate: Option<Window>) -> io::Result<()> {
    let limits = DecoderLimits { message_size: MESSAGE_MAX, inflated_size: MESSAGE_MAX };
    let mut decoder = Decoder::new(Role::Server, limits, deflate);
    let (mut inflater, mut deflater) = (Inflater::default(), Deflater::new(1));
    let mut buffer = vec![0; 64 * 1024];
    let mut count = early.len();
    buffer[..count].copy_from_slice(early);
    loop {
        let mut input = &mut buffer[..count];
        loop {
            let mut message = |kind, payload: &[u8]| match deflate {
                Some(window) => encoder::compressed_frame(kind, payload, window, &mut deflater),
                None => encoder::frame(kind, payload),
            };
            let answer = match decoder.next(&mut inflater, &mut input) {
                Ok(None) => break,
                Ok(Some(Message::Pong(_))) => continue,
                Ok(Some(Message::Ping(payload))) => encoder::frame(FrameKind::Pong, &payload),
                Ok(Some(Message::Close(close))) => {
                    return stream.write_all(&encoder::close_answer(close.as_ref()));
                }
                Ok(Some(Message::Text(payload))) => message(FrameKind::Text, &payload),
                Ok(Some(Message::Binary(payload))) => message(FrameKind::Binary, &payload),
                Err(breach) => {
                    let code = breach.close_code().number();
                    return stream.write_all(&encoder::close_frame(code, &breach.to_string()));
                }
            };
            stream.write_all(&answer)?;
        }
        count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
    }
}
