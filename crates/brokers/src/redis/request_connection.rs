//! A connection that carries one request at a time, to log in and to verify the server.
//!
//! Invariant: each method returns the server's reply or the reason why the server cannot be used.

use std::io;
use std::os::fd::AsFd as _;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::resp::{self, Frame, RespDecoder};
use super::scripts::{self, Digests};
use super::settings::{Address, Login};
use super::topology::SlotRange;
use super::unavailable::{UnavailableReason, show};

/// Value of the layout key.
const LAYOUT: &str = "tidings 2";

/// TTL of the layout key in milliseconds: longer than any history.
const LAYOUT_TTL_MS: &str = "7776000000";

pub(super) trait ServerSocket: AsyncRead + AsyncWrite + Send + Unpin {
    /// A second handle for direct writes; `None` if writes need more than the socket, as with TLS.
    fn second(&self) -> Option<std::net::TcpStream>;
}

impl ServerSocket for TcpStream {
    fn second(&self) -> Option<std::net::TcpStream> {
        // Without a second handle the pump writes everything.
        self.as_fd().try_clone_to_owned().ok().map(Into::into)
    }
}

impl ServerSocket for TlsStream<TcpStream> {
    fn second(&self) -> Option<std::net::TcpStream> {
        None
    }
}

/// A connection with at most one request in flight.
pub(super) struct RequestConnection {
    pub(super) address: Address,
    pub(super) socket: Box<dyn ServerSocket>,
    pub(super) decoder: RespDecoder,
}

/// The mode in which a server must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerMode {
    Standalone,
    ClusterMember,
}

impl RequestConnection {
    pub(super) fn new(address: Address, socket: Box<dyn ServerSocket>) -> RequestConnection {
        RequestConnection { address, socket, decoder: RespDecoder::default() }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) async fn ask(&mut self, words: &[&[u8]]) -> Result<Frame, UnavailableReason> {
        let mut out = Vec::new();
        resp::encode(&mut out, words);
        self.socket.write_all(&out).await.map_err(|error| lost(&self.address, &Err(error)))?;
        loop {
            match self.next_frame().await? {
                Frame::Push(_) => {}
                frame => return Ok(frame),
            }
        }
    }

    /// The next frame, a reply or a push.
    pub(super) async fn next_frame(&mut self) -> Result<Frame, UnavailableReason> {
        loop {
            match self.decoder.next() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => match self.socket.read_buf(self.decoder.buffer()).await {
                    Ok(length) if length > 0 => {}
                    ended => return Err(lost(&self.address, &ended)),
                },
                Err(_) => return Err(UnavailableReason::NotRedis(self.address.clone())),
            }
        }
    }

    pub(super) async fn authenticate(&mut self, login: &Login) -> Result<(), UnavailableReason> {
        if login.password.is_empty() {
            return Ok(());
        }
        let user = if login.user.is_empty() { "default" } else { &login.user };
        let answer = match login.user.is_empty() {
            true => self.ask(&[b"AUTH", login.password.as_bytes()]).await?,
            false => self.ask(&[b"AUTH", user.as_bytes(), login.password.as_bytes()]).await?,
        };
        match answer {
            Frame::Error(text) if is_login(&text) => {
                Err(UnavailableReason::Login(self.address.clone(), show(&text)))
            }
            Frame::Error(text) => Err(UnavailableReason::of_answer(&self.address, &text)),
            _ => Ok(()),
        }
    }

    /// Switches to RESP3 and verifies mode, version and role; returns the major version.
    pub(super) async fn handshake(
        &mut self,
        login: &Login,
        mode: ServerMode,
    ) -> Result<u32, UnavailableReason> {
        self.authenticate(login).await?;
        let address = self.address.clone();
        let answer = self.ask(&[b"HELLO", b"3"]).await.map_err(|reason| match reason {
            UnavailableReason::Lost(address, _) => UnavailableReason::ClosedEarly(address),
            reason => reason,
        })?;
        let answer = match answer {
            Frame::List(answer) => answer,
            Frame::Error(text) if text.starts_with(b"NOAUTH") => {
                return Err(UnavailableReason::Login(address, show(&text)));
            }
            Frame::Error(text)
                if text.starts_with(b"ERR unknown command") || text.starts_with(b"NOPROTO") =>
            {
                return Err(UnavailableReason::TooOld(address, "below 6".to_owned()));
            }
            Frame::Error(text) => return Err(UnavailableReason::of_answer(&address, &text)),
            _ => return Err(UnavailableReason::NotRedis(address)),
        };
        let field = |name: &str| {
            let mut pairs = answer.chunks_exact(2);
            let pair = pairs.find(|pair| pair[0].str() == Some(name));
            pair.and_then(|pair| pair[1].str()).unwrap_or_default()
        };
        match (field("mode"), mode) {
            ("sentinel", _) => return Err(UnavailableReason::IsSentinel(address)),
            ("cluster", ServerMode::Standalone) => {
                return Err(UnavailableReason::IsCluster(address));
            }
            ("standalone", ServerMode::ClusterMember) => {
                return Err(UnavailableReason::IsNoCluster(address));
            }
            _ => {}
        }
        let version = field("version");
        let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let version_numbers = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version_numbers < (6, 2) {
            return Err(UnavailableReason::TooOld(address, version.to_owned()));
        }
        if field("role") != "master" {
            return Err(UnavailableReason::Replica(address));
        }
        Ok(version_numbers.0)
    }

    pub(super) async fn select(&mut self, database: u32) -> Result<(), UnavailableReason> {
        if database == 0 {
            return Ok(());
        }
        match self.ask(&[b"SELECT", database.to_string().as_bytes()]).await? {
            Frame::Error(text) => {
                Err(UnavailableReason::Database(self.address.clone(), database, show(&text)))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn load_scripts(&mut self) -> Result<Digests, UnavailableReason> {
        let mut digests = Digests::default();
        for (digest, script) in digests.iter_mut().zip(scripts::ALL) {
            *digest = match self.ask(&[b"SCRIPT", b"LOAD", script.text().as_bytes()]).await? {
                Frame::Text(digest) => digest,
                Frame::Error(text) if is_transient(&text) => {
                    return Err(UnavailableReason::of_answer(&self.address, &text));
                }
                Frame::Error(text) => {
                    return Err(UnavailableReason::NoScripts(self.address.clone(), show(&text)));
                }
                _ => return Err(UnavailableReason::NotRedis(self.address.clone())),
            };
        }
        Ok(digests)
    }

    /// Whether this cluster member is the master of the slot.
    pub(super) async fn owns(&mut self, slot: u16) -> Result<bool, UnavailableReason> {
        let Frame::List(ranges) = self.ask(&[b"CLUSTER", b"SLOTS"]).await? else {
            return Ok(false);
        };
        let ranges = ranges.iter().filter_map(|range| SlotRange::read(range, &self.address));
        let found = ranges.into_iter().find(|range| (range.first..=range.last).contains(&slot));
        let mine = |address: &Address| *address == self.address;
        Ok(found.and_then(|range| range.members.into_iter().next()).as_ref().is_some_and(mine))
    }

    /// Writes the layout key; fails when the prefix holds other data.
    pub(super) async fn claim(
        &mut self,
        key: &str,
        label: &str,
        prefix: &str,
    ) -> Result<(), UnavailableReason> {
        let layout = format!("{LAYOUT}{label}");
        let set: [&[u8]; 6] =
            [b"SET", key.as_bytes(), layout.as_bytes(), b"NX", b"PX", LAYOUT_TTL_MS.as_bytes()];
        let address = self.address.clone();
        let refused = |text: &Bytes| UnavailableReason::of_answer(&address, text);
        match self.ask(&set).await? {
            Frame::Error(text) => return Err(refused(&text)),
            Frame::Text(_) => return Ok(()),
            _ => {}
        }
        match self.ask(&[b"GET", key.as_bytes()]).await? {
            Frame::Text(text) if text == layout.as_bytes() => {
                self.ask(&[b"PEXPIRE", key.as_bytes(), LAYOUT_TTL_MS.as_bytes()]).await.map(drop)
            }
            Frame::Text(text) if text.starts_with(LAYOUT.as_bytes()) => {
                let found = String::from_utf8_lossy(&text[LAYOUT.len()..]).into_owned();
                let show = |label: String| match label.is_empty() {
                    true => "the only one".to_owned(),
                    false => format!("number{label}"),
                };
                let (found, wanted) = (show(found), show(label.to_owned()));
                let (address, key) = (self.address.clone(), key.to_owned());
                Err(UnavailableReason::OtherOrder { address, found, wanted, key })
            }
            Frame::Error(text) if !text.starts_with(b"WRONGTYPE") => {
                Err(UnavailableReason::of_answer(&self.address, &text))
            }
            _ => Err(UnavailableReason::Foreign(self.address.clone(), prefix.to_owned())),
        }
    }
}

/// Why a connection ended.
pub(super) fn lost(address: &Address, ended: &io::Result<usize>) -> UnavailableReason {
    let how = match ended {
        Ok(_) => "Redis closed the connection".to_owned(),
        Err(error) => error.to_string(),
    };
    UnavailableReason::Lost(address.clone(), how)
}

/// Whether an error concerns user or password.
fn is_login(error: &[u8]) -> bool {
    const LOGIN: [&[u8]; 5] =
        [b"WRONGPASS", b"NOAUTH", b"NOPERM", b"ERR AUTH", b"ERR invalid password"];
    LOGIN.iter().any(|name| error.starts_with(name))
}

/// Whether an error is transient.
fn is_transient(error: &[u8]) -> bool {
    const TRANSIENT_ERRORS: [&[u8]; 6] =
        [b"LOADING", b"BUSY", b"CLUSTERDOWN", b"MASTERDOWN", b"TRYAGAIN", b"READONLY"];
    TRANSIENT_ERRORS.iter().any(|name| error.starts_with(name))
}
