//! The server API of one node, over a connection that is kept, and dialled anew when it ended.

use std::io::{BufRead as _, BufReader, Error, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use wire::protocol::StreamPosition;

/// See the module.
pub(crate) struct Api {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

/// What it answers: the body of a reply with status 200.
#[derive(Debug)]
pub(crate) struct Answer(Value);

impl Api {
    pub(crate) fn new(address: SocketAddr) -> Api {
        Api { address, stream: None }
    }

    pub(crate) fn call(&mut self, method: &str, body: &str) -> std::io::Result<Answer> {
        let (status, text) = self.request(&format!("POST /api/{method}"), body)?;
        let value = serde_json::from_str(&text).ok().filter(|_| status == 200);
        value.map(Answer).ok_or_else(|| Error::other(format!("{status} {text}")))
    }

    /// The same for what may be asked twice: a connection that was kept may have ended in its
    /// idleness.
    pub(crate) fn ask(&mut self, method: &str, body: &str) -> Answer {
        let answer = self.call(method, body).or_else(|_| self.call(method, body));
        answer.unwrap_or_else(|error| panic!("{method} on {}: {error}", self.address))
    }

    pub(crate) fn is_ready(&mut self) -> bool {
        self.request("GET /ready", "").is_ok_and(|(status, _)| status == 200)
    }

    /// Why the node is not ready, if it is not.
    pub(crate) fn unready(&mut self) -> Option<String> {
        self.request("GET /ready", "").ok().filter(|(status, _)| *status == 503).map(|(_, why)| why)
    }

    /// Ends the connection. A node that stops waits a while for peers that keep theirs.
    pub(crate) fn handle_disconnect(&mut self) {
        self.stream = None;
    }

    fn request(&mut self, what: &str, body: &str) -> std::io::Result<(u16, String)> {
        let answer = self.exchange(what, body);
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    fn exchange(&mut self, what: &str, body: &str) -> std::io::Result<(u16, String)> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                none.insert(BufReader::new(stream))
            }
        };
        let length = body.len();
        let request = format!(
            "{what} HTTP/1.1\r\nHost: x\r\nX-API-Key: key\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length, mut is_last) = (None, 0, false);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            } else if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest.split(' ').next().and_then(|code| code.parse().ok());
            } else if let Some(rest) = line.strip_prefix("content-length:") {
                length = rest.trim().parse().map_err(Error::other)?;
            } else if line == "connection: close" {
                is_last = true;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        if is_last {
            self.stream = None;
        }
        let body = String::from_utf8(body).map_err(Error::other)?;
        Ok((status.ok_or(ErrorKind::InvalidData)?, body))
    }
}

impl Answer {
    /// Where the publication, or the top of the stream, is.
    pub(crate) fn position(&self) -> Option<StreamPosition> {
        let epoch = self.0["result"]["epoch"].as_str()?.to_owned();
        // Zero is the same as absent.
        let offset = self.0["result"]["offset"].as_u64().unwrap_or(0);
        Some(StreamPosition { offset, epoch })
    }

    pub(crate) fn clients(&self) -> Option<u64> {
        let result = self.0.get("result")?;
        Some(result["num_clients"].as_u64().unwrap_or(0))
    }

    pub(crate) fn is_temporary_error(&self) -> bool {
        self.0["error"]["code"] == 100
    }
}

/// Longer than anything may take.
const PATIENCE: Duration = Duration::from_secs(15);
